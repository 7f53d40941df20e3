package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"lockstep/internal/syncs"
)

// SyncBody defines a sync: the keys of the configuration as JSON, or the members of
// 2024. What is left out keeps its default, or, in a change, its value.
type SyncBody struct {
	Name        *string             `json:"name,omitempty" doc:"Unique. Default: made of the provider" example:"acme-stripe"`
	Provider    *string             `json:"provider,omitempty" doc:"stripe, github or rest. Needed to make a sync" example:"stripe"`
	Spec        *string             `json:"spec,omitempty" doc:"Of provider rest: the spec itself, as YAML. A change of it needs the credential again"`
	BaseURL     *string             `json:"base_url,omitempty" doc:"A sandbox or a gateway instead of the API. A change of it needs the credential again"`
	Credential  *SyncCredentialBody `json:"credential,omitempty" doc:"Sealed when stored, and never shown"`
	Collections *[]string           `json:"collections,omitempty" doc:"Default: all" example:"[\"stripe:customer\"]"`
	Database    *string             `json:"database,omitempty" doc:"Where the tables lie"`
	Schema      *string             `json:"schema,omitempty" doc:"Default: the provider's name"`
	Every       *Span               `json:"every,omitempty" doc:"Pause between two polls; 0: as the API's spec says"`
	RateLimit   *SyncRateBody       `json:"rate_limit,omitempty" doc:"Narrows what the API allows. A change replaces all of it: {} lifts it"`
	Paused      *bool               `json:"paused,omitempty" doc:"Made, and asked nothing of the API until resumed. Change it by pause and resume"`
	ExternalID  *string             `json:"external_id,omitempty" doc:"Yours: kept and returned"`
	Metadata    *Anything           `json:"metadata,omitempty" doc:"Yours: kept and returned"`

	CollectionIDs *[]string `json:"collection_ids,omitempty" doc:"The older form of collections"`
	Frequency     *string   `json:"sync_frequency,omitempty" doc:"The older form of every: continuous, or a length of time such as 4h"`
	CredentialID  *Anything `json:"credential_id,omitempty" doc:"Refused: a sync has its own credential here"`
	StreamID      *Anything `json:"stream_id,omitempty" doc:"Only null"`
	MaxAgeDays    *Anything `json:"max_age_days,omitempty" doc:"Only null"`
}

// SyncCredentialBody lets a sync into an account.
type SyncCredentialBody struct {
	Kind       *string             `json:"kind,omitempty" doc:"For people: the properties decide" example:"stripe_key"`
	Properties map[string]Anything `json:"properties,omitempty" doc:"What the provider asks for, such as secret: texts, numbers, true or false. kind may stand here, too"`
	Provider   *string             `json:"provider,omitempty" doc:"Must be the sync's"`
	OAuthApp   *Anything           `json:"oauth_app_id,omitempty" doc:"Only null"`
	Metadata   *Anything           `json:"metadata,omitempty" doc:"Only null: metadata belongs to the sync"`
}

// SyncRateBody narrows what an API allows.
type SyncRateBody struct {
	PerSecond     *float64 `json:"requests_per_second,omitempty"`
	MaxConcurrent *int     `json:"max_concurrent,omitempty"`
	Reserve       *float64 `json:"reserve,omitempty" doc:"The share that is left to others, from 0 to below 1"`

	Allowed       *float64 `json:"allowed_requests,omitempty" doc:"The older form: so many in each interval"`
	Interval      *Span    `json:"interval,omitempty" doc:"Default: one second"`
	MaxRequesting *int     `json:"max_concurrent_requests,omitempty" doc:"The older form of max_concurrent"`
}

// invalidSync turns the faults that are found in a sync's definition into a problem.
func (f faults) invalidSync(err error) error {
	var def *syncs.DefinitionError
	if !errors.As(err, &def) {
		return unprocessable(err)
	}
	for _, p := range def.Problems {
		f.add(p.Field, "%s", p.Message)
	}
	return f.problem()
}

// apply writes what the body says into the definition.
func (b SyncBody) apply(d *syncs.Definition, f *faults) {
	take(&d.Name, b.Name)
	take(&d.Provider, b.Provider)
	take(&d.Spec, b.Spec)
	take(&d.BaseURL, b.BaseURL)
	take(&d.Database, b.Database)
	take(&d.Schema, b.Schema)
	take(&d.Paused, b.Paused)
	take(&d.ExternalID, b.ExternalID)
	if b.Metadata != nil {
		d.Metadata = slices.Clone(b.Metadata.RawMessage)
	}
	if b.Name != nil && badName(d.Name) {
		f.add("name", "a name stands in addresses: it is not empty, and has no slash, no control characters, no space around it")
	}
	b.selection(d, f)
	b.frequency(d, f)
	b.refused(f)
	b.source(d, f)
	if b.Credential != nil {
		d.Credential = b.Credential.credential(d.Provider, f)
	}
	if b.RateLimit != nil {
		d.RateLimit = syncs.RateLimit{}
		b.RateLimit.apply(&d.RateLimit, f)
	}
}

func badName(name string) bool {
	return name == "" || strings.ContainsRune(name, '/') || strings.ContainsFunc(name, unicode.IsControl) || strings.TrimSpace(name) != name || !utf8.ValidString(name)
}

func (b SyncBody) selection(d *syncs.Definition, f *faults) {
	given, field := b.Collections, "collections"
	if b.CollectionIDs != nil {
		if given != nil {
			f.add("collection_ids", "it means the same as collections: give one of them")
			return
		}
		given, field = b.CollectionIDs, "collection_ids"
	}
	if given == nil {
		return
	}
	d.Collections = []string{}
	for i, name := range *given {
		if name == "" {
			f.add(fmt.Sprintf("%s[%d]", field, i), "it is empty: name a collection, such as stripe:customer")
		}
		if !slices.Contains(d.Collections, name) {
			d.Collections = append(d.Collections, name)
		}
	}
}

func (b SyncBody) frequency(d *syncs.Definition, f *faults) {
	b.Every.apply(&d.Every, "every", f)
	if b.Frequency == nil {
		return
	}
	if b.Every != nil {
		f.add("sync_frequency", "it means the same as every: give one of them")
		return
	}
	if *b.Frequency == "continuous" {
		d.Every = 0
		return
	}
	every, err := time.ParseDuration(*b.Frequency)
	if err != nil || every <= 0 {
		f.add("sync_frequency", "%q is unknown: use continuous, or a length of time such as 4h", *b.Frequency)
		return
	}
	d.Every = every
}

// refused tells of members of 2024 that mean nothing here. To leave them out without
// a word would be to promise them.
func (b SyncBody) refused(f *faults) {
	if b.CredentialID != nil {
		f.add("credential_id", "credentials are not kept apart from syncs here: give the credential itself, as credential")
	}
	if b.StreamID != nil {
		f.add("stream_id", "there are no streams to choose from: a sync's changes are in the stream of its database; leave it out")
	}
	if b.MaxAgeDays != nil {
		f.add("max_age_days", "a mirror holds every record that the API has; leave it out, and select by age where the records are read")
	}
}

// source checks what says which API it is.
func (b SyncBody) source(d *syncs.Definition, f *faults) {
	if d.Provider == "" {
		f.add("provider", "say which API is mirrored: stripe, github or rest")
	}
	if b.BaseURL != nil && d.BaseURL != "" {
		u, err := url.Parse(d.BaseURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			f.add("base_url", "it is no address of http or https without a user, such as https://gateway.example.com/stripe")
		}
	}
	spec := strings.TrimSpace(d.Spec)
	switch {
	case b.Spec == nil:
	case d.Provider != "rest":
		f.add("spec", "only a sync of provider rest has a spec of its own")
	case !strings.Contains(spec, "\n") && (strings.HasSuffix(spec, ".yaml") || strings.HasSuffix(spec, ".yml")):
		f.add("spec", "%q looks like the name of a file: give the YAML itself", spec)
	}
	if d.Provider == "rest" && spec == "" && d.SpecFile == "" {
		f.add("spec", "a sync of provider rest needs a spec: the YAML itself")
	}
}

// moved reports what of a change would send a stored credential somewhere else.
func (b SyncBody) moved(before, after syncs.Definition, f *faults) {
	if b.Credential != nil {
		return
	}
	for _, one := range []struct{ field, was, is string }{{"base_url", before.BaseURL, after.BaseURL}, {"spec", before.Spec, after.Spec}} {
		if one.was != one.is {
			f.add(one.field, "it decides who gets the credential: give the credential again to change it")
		}
	}
}

// credential returns what the body says. No value of it goes into a fault.
func (b SyncCredentialBody) credential(provider string, f *faults) syncs.Credential {
	out := syncs.Credential{Properties: map[string]string{}}
	take(&out.Kind, b.Kind)
	if b.Provider != nil && *b.Provider != provider {
		f.add("credential.provider", "it is of another provider than the sync")
	}
	if b.OAuthApp != nil {
		f.add("credential.oauth_app_id", "there are no OAuth apps here: give what the app is known by among the properties (client_id, client_secret)")
	}
	if b.Metadata != nil {
		f.add("credential.metadata", "metadata belongs to the sync: give it there")
	}
	for _, name := range slices.Sorted(maps.Keys(b.Properties)) {
		text, set, err := scalar(b.Properties[name].RawMessage)
		switch {
		case err != nil:
			f.add("credential.properties."+name, "%s", err)
		case !set:
		case name != "kind":
			out.Properties[name] = text
		case out.Kind != "" && out.Kind != text:
			f.add("credential.properties.kind", "it differs from credential.kind: give one of them")
		default:
			out.Kind = text
		}
	}
	return out
}

var errNoScalar = errors.New("it must be a text, a number, true or false")

// scalar returns a JSON value as text. null is not set.
func scalar(raw json.RawMessage) (text string, set bool, err error) {
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) == 0 || bytes.Equal(raw, []byte("null")):
		return "", false, nil
	case raw[0] == '{' || raw[0] == '[':
		return "", false, errNoScalar
	case raw[0] != '"':
		return string(raw), true, nil
	}
	if json.Unmarshal(raw, &text) != nil {
		return "", false, errNoScalar
	}
	return text, true, nil
}

// apply writes what the body says.
func (b SyncRateBody) apply(d *syncs.RateLimit, f *faults) {
	for _, pair := range []struct {
		older, newer string
		both         bool
	}{
		{"allowed_requests", "requests_per_second", b.Allowed != nil && b.PerSecond != nil},
		{"max_concurrent_requests", "max_concurrent", b.MaxRequesting != nil && b.MaxConcurrent != nil},
	} {
		if pair.both {
			f.add("rate_limit."+pair.older, "it means the same as %s: give one of them", pair.newer)
		}
	}
	b.rate(d, f)
	takeCount(&d.MaxConcurrent, b.MaxConcurrent, "rate_limit.max_concurrent", f)
	takeCount(&d.MaxConcurrent, b.MaxRequesting, "rate_limit.max_concurrent_requests", f)
	if b.Reserve != nil && (*b.Reserve < 0 || *b.Reserve >= 1) {
		f.add("rate_limit.reserve", "it is a share: from 0 to below 1")
		return
	}
	take(&d.Reserve, b.Reserve)
}

// rate reads requests per second in either form.
func (b SyncRateBody) rate(d *syncs.RateLimit, f *faults) {
	if b.PerSecond != nil {
		if *b.PerSecond <= 0 {
			f.add("rate_limit.requests_per_second", "it must be more than 0")
		}
		d.RequestsPerSecond = *b.PerSecond
	}
	interval := time.Second
	b.Interval.apply(&interval, "rate_limit.interval", f)
	switch {
	case b.Allowed == nil && b.Interval != nil:
		f.add("rate_limit.interval", "it means nothing without allowed_requests")
	case b.Allowed == nil:
	case *b.Allowed <= 0 || interval <= 0:
		f.add("rate_limit.allowed_requests", "it must be more than 0, as interval must")
	default:
		d.RequestsPerSecond = *b.Allowed / interval.Seconds()
	}
}
