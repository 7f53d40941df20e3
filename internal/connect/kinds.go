package connect

import (
	"lockstep/source/github"
	"lockstep/source/rest"
	"lockstep/source/stripe"
)

// The kinds of credentials.
const (
	StripeKey   = "stripe_key"
	GitHubToken = "github_token"
	GitHubApp   = "github_app"
)

// kind is one way to sign in.
type kind struct {
	name     string
	declared map[string]rest.Property
	// ignored are properties of the older contract that say what the API says itself.
	ignored []string
}

// specOf returns the description of the API that a definition is about. A spec with
// faults gives rest.Problems.
func specOf(d Definition) (*rest.Spec, error) {
	switch d.Provider {
	case Stripe:
		return stripe.Spec(d.Properties["secret"])
	case GitHub:
		return github.Spec()
	}
	name := d.SpecFile
	if name == "" {
		name = "spec"
	}
	return rest.Parse(name, []byte(d.Spec))
}

// kindsOf returns the ways to sign in, the usual one first.
func kindsOf(provider string, spec *rest.Spec) []kind {
	switch provider {
	case Stripe:
		return []kind{{name: StripeKey, declared: spec.Credential, ignored: []string{"test", "name"}}}
	case GitHub:
		hook := optional(spec.Credential["webhook_secret"])
		return []kind{{
			name: GitHubToken,
			declared: map[string]rest.Property{
				"token":          required(spec.Credential["token"]),
				"organization":   {About: "only this organization's repositories", Optional: true, Pattern: "[A-Za-z0-9-]+"},
				"webhook_secret": hook,
			},
		}, {
			name: GitHubApp,
			declared: map[string]rest.Property{
				"app_id":          required(spec.Credential["app_id"]),
				"installation_id": required(spec.Credential["installation_id"]),
				"private_key":     required(spec.Credential["private_key"]),
				"webhook_secret":  hook,
			},
			ignored: []string{"account_type", "account_login"},
		}}
	}
	return []kind{{name: Rest, declared: spec.Credential}}
}

func required(p rest.Property) rest.Property { p.Optional = false; return p }
func optional(p rest.Property) rest.Property { p.Optional = true; return p }

// apart tells GitHub's kinds by the properties: an App's are those without a token, or
// with a value.
func apart(d Definition) string {
	for _, name := range []string{"private_key", "app_id", "installation_id"} {
		value, there := d.Properties[name]
		if d.Provider == GitHub && (value != "" || there && d.Properties["token"] == "") {
			return GitHubApp
		}
	}
	return ""
}
