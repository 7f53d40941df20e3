// Package rest mirrors any API that a declarative spec describes: [Parse] reads and
// checks the spec, [New] makes a [source.Source] of it that also writes and receives
// webhooks where the spec says how. docs/own-api.md teaches the language.
//
// # Guarantees
//
//  1. [Parse] tells everything that is wrong in one run, with line and column.
//  2. A credential goes to the host of base_url and to the spec's token_url, nowhere
//     else: redirects and next addresses to other hosts are refused. It is in no
//     error, log or cursor.
//  3. An answer is taken as a whole or not at all: cut off, too large, too slow or not
//     JSON are errors of kind [source.Retry] or [source.Failed].
//  4. Record data is the API's, byte for byte; only lists inside that were cut off are
//     filled up, and members put in that the spec's add names.
//  5. A list that goes in circles is an error, not a loop.
//  6. A rotating refresh token is saved before it is used; one refresh runs at a time.
package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/suggest"
	"lockstep/source"
)

const (
	defaultTimeout = 60 * time.Second
	defaultMaxBody = 64 << 20
	// hydrators is how many records of one page are fetched at the same time. The
	// limiter spaces them; this bounds memory and connections.
	hydrators = 8
)

// Options is what a source needs besides its spec.
type Options struct {
	BaseURL    string            // instead of the spec's: a sandbox or a gateway
	Credential map[string]string // the properties that the spec declares
	// Collections limits what feeds bring; empty: all.
	Collections []string
	Limiter     source.Limiter    // nil: no limits
	Tokens      Tokens            // nil: tokens are fetched anew after a restart
	Transport   http.RoundTripper // default: an http.Transport of its own
}

// Source is an API. It implements [source.Source], [source.Writer] and
// [source.Receiver]. All methods may be used concurrently.
type Source struct {
	spec      *Spec
	base      *url.URL
	scope     *scope
	auth      *signer
	only      map[string]bool // nil: every collection
	limiter   source.Limiter
	transport http.RoundTripper
	timeout   time.Duration
	maxBody   int64
	clock     clock

	mu      sync.Mutex
	circles map[string]*circle     // by list, guarded by mu
	parents map[string]*parentPage // by collection, guarded by mu
	etags   map[string]etag        // by address, guarded by mu
	known   knownIDs               // guarded by mu
	walks   map[string]*walked     // by collection, guarded by mu
}

var (
	_ source.Source   = (*Source)(nil)
	_ source.Writer   = (*Source)(nil)
	_ source.Receiver = (*Source)(nil)
	_ source.Learner  = (*Source)(nil)
)

// New makes a source. Errors wrap [lockstep.ErrInvalid] and name the property that is
// missing or malformed, never its value.
func New(spec *Spec, o Options) (*Source, error) {
	s := &Source{
		spec: spec, limiter: o.Limiter, transport: o.Transport, timeout: spec.Timeout, maxBody: spec.MaxBody,
		circles: map[string]*circle{}, parents: map[string]*parentPage{}, etags: map[string]etag{}, walks: map[string]*walked{},
	}
	given, err := properties(spec, o.Credential)
	if err != nil {
		return nil, err
	}
	s.scope = &scope{credential: given}
	s.auth = &signer{auth: spec.authOf(given), scope: s.scope, keep: o.Tokens}
	base := o.BaseURL
	if base == "" {
		base = spec.BaseURL.fill(s.scope)
	}
	if s.base, err = url.Parse(base); err != nil || s.base.Host == "" || s.base.Scheme != "http" && s.base.Scheme != "https" || s.base.User != nil {
		return nil, fmt.Errorf("%s: base_url is not an address of http or https without a user: %w", spec.Name, lockstep.ErrInvalid)
	}
	for _, name := range o.Collections {
		if spec.Collections[name] == nil {
			return nil, fmt.Errorf("%s: there is no collection %s, %s: %w", spec.Name, name, suggest.Remedy(name, sortedKeys(spec.Collections)), lockstep.ErrInvalid)
		}
		if s.only == nil {
			s.only = map[string]bool{}
		}
		s.only[name] = true
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	if s.maxBody == 0 {
		s.maxBody = defaultMaxBody
	}
	if s.transport == nil {
		s.transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: s.timeout, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 1 << 20,
		}
	}
	return s, nil
}

// Beside returns a source of the same account that signs in as this one does, with the
// same tokens and the same limits, and reads lists of its own: two readers of one list
// must not be taken for one that goes in circles.
func (s *Source) Beside() *Source {
	return &Source{
		spec: s.spec, base: s.base, scope: s.scope, auth: s.auth, only: s.only, limiter: s.limiter, transport: s.transport,
		timeout: s.timeout, maxBody: s.maxBody,
		circles: map[string]*circle{}, parents: map[string]*parentPage{}, etags: map[string]etag{}, walks: map[string]*walked{},
	}
}

func properties(spec *Spec, given map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range sortedKeys(given) {
		if _, ok := spec.Credential[name]; !ok {
			return nil, fmt.Errorf("%s: the credential has no property %s, %s: %w", spec.Name, name, suggest.Remedy(name, sortedKeys(spec.Credential)), lockstep.ErrInvalid)
		}
	}
	for _, name := range sortedKeys(spec.Credential) {
		p, v := spec.Credential[name], given[name]
		if v == "" {
			v = p.Default
		}
		switch {
		case v == "" && !p.Optional:
			return nil, fmt.Errorf("%s: the credential's property %s is missing (%s): %w", spec.Name, name, p.About, lockstep.ErrInvalid)
		case v != "" && p.Pattern != "" && !regexp.MustCompile(`^(?:`+p.Pattern+`)$`).MatchString(v):
			return nil, fmt.Errorf("%s: the credential's property %s has not the right form (%s): %w", spec.Name, name, p.About, lockstep.ErrInvalid)
		}
		out[name] = v
	}
	return out, nil
}

// name is the API's for people.
func (s *Source) name() string {
	if s.spec.Title != "" {
		return s.spec.Title
	}
	return s.spec.Name
}

// Check implements [source.Source].
func (s *Source) Check(ctx context.Context) (string, error) {
	if s.spec.Check == nil {
		name := s.spec.CollectionNames()[0]
		_, err := s.Backfill(ctx, name, nil)
		return "", err
	}
	a, err := s.do(ctx, call{what: "check the credential", request: &s.spec.Check.Request, scope: s.scope})
	if errors.Is(err, errEmpty) {
		return "", nil // the credential works, but may not see whose it is
	}
	if err != nil {
		return "", err
	}
	return s.spec.Check.Account.text(a.body), nil
}

// Collections implements [source.Source]. It asks nothing of the API.
func (s *Source) Collections(context.Context) ([]source.Collection, error) {
	var out []source.Collection
	for _, name := range s.spec.CollectionNames() {
		if s.only != nil && !s.only[name] {
			continue
		}
		out = append(out, s.describe(s.spec.Collections[name]))
	}
	return out, nil
}

func (s *Source) describe(c *Collection) source.Collection {
	d := source.Collection{
		Name: c.name, Feed: c.Feed, Volatile: slices.Clone(c.Volatile), Every: c.Every, Settle: c.Settle, Trailing: c.Trailing,
		Get: c.Get != nil, IDs: c.Sweep != nil && !c.Virtual, Virtual: c.Virtual,
	}
	if c.Sweep != nil {
		d.SweepEvery = c.Sweep.Every
	}
	f := c.Changes
	switch {
	case c.Feed != "":
		f = s.spec.Feeds[c.Feed]
		if c.Changes != nil {
			d.Also = []string{c.name}
		}
	case f != nil:
		d.Feed = c.name
	}
	if f != nil {
		d.Every, d.Settle, d.Trailing = either(d.Every, f.Every), either(d.Settle, f.Settle), either(d.Trailing, f.Trailing)
	}
	for _, name := range sortedKeys(c.Fields) {
		col := c.Fields[name]
		d.Fields = append(d.Fields, source.Field{Name: name, Path: col.Path, Key: col.Key, Type: col.sourceType()})
	}
	return d
}

func either(a, b time.Duration) time.Duration {
	if a != 0 {
		return a
	}
	return b
}

func (s *Source) collection(name string) (*Collection, error) {
	c, ok := s.spec.Collections[name]
	if !ok {
		return nil, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("%s has no collection %s", s.name(), name), Err: lockstep.ErrNotFound}
	}
	return c, nil
}

var errNoCursor = errors.New("the cursor is not one of this list; begin again")
