// Package connect makes sources of definitions: it knows the providers, what they need
// to sign in, and what limits the accounts have.
//
// # Guarantees
//
//  1. [Resolve] asks nothing of any API and tells everything that is wrong with a
//     definition at once, each with the field that it belongs to.
//  2. No error holds a value of a credential.
//  3. What Resolve accepts, [Account.Open] opens.
//  4. A credential goes to the host of the base address (and to the spec's token_url)
//     only, whatever an answer redirects to.
package connect

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"lockstep"
	"lockstep/internal/pull/limit"
	"lockstep/source"
	"lockstep/source/github"
	"lockstep/source/rest"
	"lockstep/source/stripe"
)

// The providers of this version.
const (
	Stripe = "stripe"
	GitHub = "github"
	Rest   = "rest" // any API that a spec describes
)

// Providers returns the providers of this version.
func Providers() []string { return []string{GitHub, Rest, Stripe} }

// Later returns providers that are known by name and not there yet.
func Later() []string { return []string{"airtable", "hubspot", "salesforce"} }

// Definition is as much of a sync's as is needed to reach its account.
type Definition struct {
	Provider string
	Spec     string // the YAML of provider rest
	SpecFile string // where it came from, for messages; empty: not from a file
	BaseURL  string // empty: the API's own
	// Kind is the credential's; empty: the only one of the provider, or the one that
	// the properties fit.
	Kind        string
	Properties  map[string]string // of the credential
	Collections []string          // stripe:customer or customer; stripe:* and none at all: every collection
}

// Account is a definition that was found good. It may be used concurrently.
type Account struct {
	provider string
	spec     *rest.Spec
	prefix   string
	baseURL  string
	given    map[string]string // what the connector takes of the credential
	names    []string          // the chosen collections, without prefix, in the spec's order
	all      bool
}

// Resolve checks a definition. What is wrong is returned as [Problems].
func Resolve(d Definition) (*Account, error) {
	c := checker{d: d}
	a := c.account()
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	// What the connector finds only when it is made.
	if _, err := a.open(rest.Options{}); err != nil {
		return nil, Problems{{Message: plain(err)}}
	}
	return a, nil
}

// Prefix is what stands before a collection's name, as in stripe:customer, and the
// default of the schema: the provider, and of provider rest the name in its spec.
func (a *Account) Prefix() string { return a.prefix }

// Collections returns the chosen collections without prefix, in the spec's order.
// They are never none.
func (a *Account) Collections() []string { return slices.Clone(a.names) }

// Names returns the chosen collections with their prefix, or none when the definition
// leaves the choice open, so that a later version's new collections are chosen too.
func (a *Account) Names() []string {
	if a.all {
		return nil
	}
	out := make([]string, 0, len(a.names))
	for _, name := range a.names {
		out = append(out, a.prefix+":"+name)
	}
	return out
}

// Token is what an OAuth server gave.
type Token = rest.Token

// Tokens keeps the tokens of a sync over restarts.
type Tokens = rest.Tokens

// Options is what a source needs from those who run it.
type Options struct {
	Limiter   source.Limiter    // nil: no limits
	Tokens    Tokens            // nil: tokens are fetched anew after a restart
	Transport http.RoundTripper // nil: one of the source's own
}

// Open makes the account's source, which also implements [source.Writer] and
// [source.Receiver]. Nothing is asked of the API.
func (a *Account) Open(o Options) (*rest.Source, error) {
	return a.open(rest.Options{Limiter: o.Limiter, Tokens: o.Tokens, Transport: o.Transport})
}

func (a *Account) open(o rest.Options) (*rest.Source, error) {
	o.BaseURL, o.Credential = a.baseURL, maps.Clone(a.given)
	if !a.all {
		o.Collections = slices.Clone(a.names)
	}
	switch a.provider {
	case Stripe:
		return stripe.New(o)
	case GitHub:
		return github.New(o)
	}
	return rest.New(a.spec, o)
}

// Limits returns the limits of the account, narrowed as the definition's rate_limit
// says: one [limit.Limiter] of it is for everything that is asked of the account.
func (a *Account) Limits(narrow limit.Narrow) limit.Config {
	buckets := map[string]limit.Bucket{}
	for name, b := range a.spec.Limits {
		if b.Each == "" {
			buckets[name] = bucketOf(*b)
		}
	}
	return limit.Config{Buckets: buckets, Narrow: narrow, Bucket: func(name string) (limit.Bucket, bool) {
		b, ok := a.spec.Bucket(name)
		return bucketOf(b), ok
	}}
}

func bucketOf(b rest.Bucket) limit.Bucket {
	return limit.Bucket{
		Rate: b.Rate, Per: b.Per, Burst: b.Burst, Concurrency: b.Concurrency, Penalty: b.Penalty, Reserve: b.Reserve,
		LimitHeader: b.LimitHeader, RemainingHeader: b.RemainingHeader, ResetHeader: b.ResetHeader, ResetFormat: b.ResetFormat,
	}
}

// Problem is one thing that is wrong with a definition.
type Problem struct {
	// Field is the definition's, such as provider, spec, base_url, credential.kind,
	// credential.properties.secret or collections[0]; empty: all of it.
	Field   string
	Message string // what is wrong
	Remedy  string // what to do; may be empty
	// Spec is set when the fault lies inside the spec: where.
	Spec *rest.Problem
}

// String returns the field or the place in the spec, what is wrong, and what to do.
func (p Problem) String() string {
	if p.Spec != nil {
		return p.Spec.String()
	}
	text := p.Message
	if p.Remedy != "" {
		text += ", " + p.Remedy
	}
	if p.Field == "" {
		return text
	}
	return p.Field + ": " + text
}

// Problems is everything that is wrong with a definition. As an error it wraps
// [lockstep.ErrInvalid].
type Problems []Problem

// Error returns one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap says that the definition is invalid input.
func (p Problems) Unwrap() error { return lockstep.ErrInvalid }

// plain is the text of an error about invalid input without the word for that.
func plain(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+lockstep.ErrInvalid.Error())
}
