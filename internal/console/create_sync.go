package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"lockstep"
	"lockstep/client"
)

// newSyncView is the form of a new sync.
type newSyncView struct {
	frame
	Provider  string
	Providers []kindOption
	Ways      []option // of getting in, when the provider has several
	Way       string
	Form      form
}

// providerOptions are the APIs that can be mirrored.
func providerOptions() []kindOption {
	return []kindOption{
		{"stripe", "Stripe", "An account, read with a secret or restricted key"},
		{"github", "GitHub", "Organizations and their repositories"},
		{"rest", "An API of your own", "Any API of JSON over HTTP, described by a spec"},
	}
}

// waysIn are the kinds of credentials of a provider.
func waysIn(provider string) []option {
	if provider == "github" {
		return []option{{"github_token", "A token"}, {"github_app", "A GitHub App"}}
	}
	return nil
}

// credentialFields are what a way in needs.
func credentialFields(provider, way string) []field {
	const in = "credential.properties."
	switch {
	case provider == "stripe":
		return []field{
			{Name: in + "secret", Label: "Secret key", As: asSecret, Holder: "sk_… or rk_…", Hint: "A restricted key with read access to Events and to what is mirrored will do."},
			{Name: in + "account", Label: "Connected account", As: asText, Holder: "acct_…", Hint: "Only for an account that is connected to yours."},
			{Name: in + "webhook_secret", Label: "Webhook secret", As: asSecret, Holder: "whsec_…", Hint: "If Stripe calls this node's webhook of the sync."},
		}
	case provider == "github" && way == "github_app":
		return []field{
			{Name: in + "app_id", Label: "App id", As: asText, Holder: "123456"},
			{Name: in + "installation_id", Label: "Installation id", As: asText, Holder: "12345678"},
			{Name: in + "private_key", Label: "Private key", As: asHidden, Broad: true, Holder: "-----BEGIN RSA PRIVATE KEY-----", Hint: "The text of the PEM file."},
			{Name: in + "webhook_secret", Label: "Webhook secret", As: asSecret, Hint: "If GitHub calls this node's webhook of the sync."},
		}
	case provider == "github":
		return []field{
			{Name: in + "token", Label: "Token", As: asSecret, Holder: "github_pat_… or ghp_…", Hint: "With read access to contents, issues, metadata and pull requests."},
			{Name: in + "organization", Label: "Organization", As: asText, Holder: "acme", Hint: "Only its repositories. Empty: all that the token may see."},
			{Name: in + "webhook_secret", Label: "Webhook secret", As: asSecret, Hint: "If GitHub calls this node's webhook of the sync."},
		}
	}
	return nil
}

func syncForm(provider, way string, databases []string) form {
	first := []field{{Name: "name", Label: "Name", As: asText, Holder: "acme-" + provider, Hint: "Unique. Empty: made of the provider."}}
	credential := group{Title: "The way in", Hint: "Sealed when it is stored, and never shown again.", Fields: credentialFields(provider, way)}
	base := field{Name: "base_url", Label: "Base URL", As: asText, Holder: "https://gateway.example.com", Hint: "A sandbox or a gateway in the place of the API. It gets the credential."}
	f := form{Groups: []group{{Title: "The sync", Fields: first}}}
	if provider == "rest" {
		f.Groups[0].Fields = append(f.Groups[0].Fields, field{Name: "spec", Label: "Spec", As: asArea, Broad: true, Hint: "The YAML itself. docs/own-api.md says how to write one."})
		credential.Fields = []field{{Name: "credential.properties", Label: "Properties", As: asPairs, Broad: true, Holder: "host: shop.example.com\ntoken: …", Hint: "One on each line, as the spec names them. They are shown here until the sync is made, and never again."}}
	}
	f.Groups = append(f.Groups, credential)
	where := []field{{Name: "schema", Label: "Schema", As: asText, Holder: provider, Hint: "Its tables lie there. A schema belongs to one sync. Empty: the provider's name."}}
	if len(databases) > 1 {
		where = append([]field{{Name: "database", Label: "Database", As: asChoice, Options: choices(databases...)}}, where...)
	}
	f.Groups = append(f.Groups,
		group{Title: "What, and where to", Fields: append(where, field{Name: "collections", Label: "Collections", As: asLines, Holder: map[string]string{"stripe": "stripe:customer\nstripe:invoice", "github": "github:pull_request"}[provider], Hint: "One on each line. Empty: all of them."})},
		group{Title: "How often, and how fast", Rare: true, Fields: []field{
			{Name: "every", Label: "Pause between two polls", As: asText, Holder: "5s", Hint: "Empty: what suits the API."},
			{Name: "rate_limit.requests_per_second", Label: "Requests per second", As: asDecimal, Hint: "At most. Empty: what the API allows."},
			{Name: "rate_limit.max_concurrent", Label: "Requests at a time", As: asNumber},
			{Name: "rate_limit.reserve", Label: "Share that is left to others", As: asDecimal, Holder: "0.2", Hint: "Of the API's limits: from 0 to below 1."},
			base,
			{Name: "paused", Label: "Paused at first", As: asCheck, Hint: "Made, and asks nothing of the API until resumed."},
		}})
	return f
}

func newSync(c *visit) (framed, error) {
	v, err := syncEntry(c, c.r.URL.Query())
	if err != nil {
		return nil, err
	}
	return v, nil
}

// syncEntry makes the form with what was entered.
func syncEntry(c *visit, values url.Values) (*newSyncView, error) {
	names, err := databaseNames(c)
	if err != nil {
		return nil, err
	}
	v := &newSyncView{frame: frame{Title: "Create a sync", Nav: "syncs"}, Providers: providerOptions(), Provider: values.Get("provider"), Way: values.Get("way")}
	if asked, ok := strings.CutPrefix(values.Get("do"), "provider."); ok {
		v.Provider = asked
	}
	if asked, ok := strings.CutPrefix(values.Get("do"), "way."); ok {
		v.Way = asked
	}
	if v.Provider != "github" && v.Provider != "rest" {
		v.Provider = "stripe"
	}
	if v.Ways = waysIn(v.Provider); len(v.Ways) == 0 {
		v.Way = ""
	} else if v.Way != v.Ways[1].Value {
		v.Way = v.Ways[0].Value
	}
	v.Form = syncForm(v.Provider, v.Way, names)
	v.Form.take(values, c.sealer)
	return v, nil
}

// makeSync takes the form.
func makeSync(c *visit) {
	v, err := syncEntry(c, c.r.Form)
	if err != nil {
		c.fail(err)
		return
	}
	if c.r.PostFormValue("do") != "create" {
		c.show(http.StatusOK, "create-sync", v)
		return
	}
	made, err := v.create(c)
	if errors.Is(err, lockstep.ErrUnavailable) {
		v.Form.Wrong = append(v.Form.Wrong, words(err))
	}
	if err != nil {
		c.show(http.StatusUnprocessableEntity, "create-sync", v)
		return
	}
	c.leave(c.w, c.r, notice{Kind: "done", Text: "Sync " + made.Name + " is there, and begins to read."})
	c.go_(Prefix + "syncs/" + url.PathEscape(made.ID))
}

func (v *newSyncView) create(c *visit) (client.Sync, error) {
	body, good := v.Form.body()
	if !good {
		return client.Sync{}, fmt.Errorf("the form holds what is none of its fields'")
	}
	body["provider"] = v.Provider
	if credential, ok := body["credential"].(map[string]any); ok && v.Way != "" {
		credential["kind"] = v.Way
	}
	made, err := c.api.CreateSync(c.ctx, body)
	if err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
		v.Form.blame(err)
	}
	return made, err
}
