package rest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"lockstep/source"
)

// Auth says how requests are signed.
type Auth struct {
	At   place
	When string `y:"when"` // the property that must be given for this one to count
	Kind string `y:"kind,required" oneof:"none bearer basic header oauth_refresh jwt_bearer github_app"`

	Token    Template `y:"token"`    // bearer
	Scheme   string   `y:"scheme"`   // before a token; default Bearer
	User     Template `y:"user"`     // basic
	Password Template `y:"password"` // basic
	Header   string   `y:"header"`   // header: its name
	Value    Template `y:"value"`    // header

	TokenURL     Template            `y:"token_url"` // an address, or a path behind base_url
	ClientID     Template            `y:"client_id"`
	ClientSecret Template            `y:"client_secret"`
	RefreshToken Template            `y:"refresh_token"` // the first one
	ClientAuth   string              `y:"client_auth" oneof:"form basic"`
	Extra        map[string]Template `y:"extra"` // further parameters of the token request

	Issuer     Template      `y:"issuer"` // github_app: the app's id
	Subject    Template      `y:"subject"`
	Audience   Template      `y:"audience"`
	PrivateKey Template      `y:"private_key"` // PEM, RSA
	Lifetime   time.Duration `y:"lifetime"`    // of a token when the API does not say; default 50m
}

// authOf picks the way to sign in that the credential is made for.
func (s *Spec) authOf(given map[string]string) *Auth {
	for i := range s.Auth {
		if a := &s.Auth[i]; a.When == "" || given[a.When] != "" {
			return a
		}
	}
	return &Auth{Kind: "none"}
}

// Token is what an OAuth server gave.
type Token struct {
	Access  string    `json:"access"`
	Refresh string    `json:"refresh,omitempty"` // rotating: the next one
	Expires time.Time `json:"expires"`           // zero: not said
}

// Tokens keeps the tokens of a sync over restarts, encrypted.
type Tokens interface {
	// Load returns the last token saved; the zero Token when there is none.
	Load(ctx context.Context) (Token, error)
	// Save keeps a token. It is called before the token is used for the first time:
	// an API that rotates refresh tokens takes the old one away at once.
	Save(ctx context.Context, t Token) error
}

// early is how long before its end a token is not used any more.
const early = time.Minute

// signer signs requests. One refresh runs at a time, whoever asks.
type signer struct {
	auth  *Auth
	scope *scope
	keep  Tokens

	mu      sync.Mutex
	loaded  bool
	token   Token
	unsaved bool      // token is new and could not be saved: it must not be used
	refused error     // the last refresh was refused for good
	until   time.Time // do not ask again before
}

// refusedPause keeps a revoked credential from being tried all the time.
const refusedPause = 2 * time.Minute

func (a *signer) fetches() bool {
	switch a.auth.Kind {
	case "oauth_refresh", "jwt_bearer", "github_app":
		return true
	}
	return false
}

func (a *signer) canRefresh() bool { return a.fetches() }

// current returns the token to sign with; a new one when there is none or it ends.
func (a *signer) current(ctx context.Context, s *Source) (string, error) {
	if !a.fetches() {
		return "", nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.loaded && a.keep != nil {
		t, err := a.keep.Load(ctx)
		if err != nil {
			return "", err
		}
		a.token = t
	}
	a.loaded = true
	if a.unsaved {
		if err := a.save(ctx); err != nil {
			return "", err
		}
	}
	if a.token.Access != "" && (a.token.Expires.IsZero() || time.Until(a.token.Expires) > early) {
		return a.token.Access, nil
	}
	return a.fetch(ctx, s)
}

// refresh returns another token than the one that was refused.
func (a *signer) refresh(ctx context.Context, s *Source, refused string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token.Access != refused && a.token.Access != "" && !a.unsaved {
		return a.token.Access, nil // somebody else was faster
	}
	return a.fetch(ctx, s)
}

// fetch gets, saves and returns a token. The caller holds mu.
func (a *signer) fetch(ctx context.Context, s *Source) (string, error) {
	if a.refused != nil && time.Now().Before(a.until) {
		return "", a.refused
	}
	t, err := s.fetchToken(ctx, a)
	if err != nil {
		if e, ok := asError(err); ok && e.Kind == source.Unauthorized {
			a.refused, a.until = err, time.Now().Add(refusedPause)
		}
		return "", err
	}
	if t.Refresh == "" {
		t.Refresh = a.token.Refresh
	}
	a.token, a.refused = t, nil
	return t.Access, a.save(ctx)
}

// save keeps the token before it is used. The caller holds mu.
func (a *signer) save(ctx context.Context) error {
	if a.keep == nil {
		return nil
	}
	a.unsaved = true
	if err := a.keep.Save(ctx, a.token); err != nil {
		return &source.Error{Kind: source.Retry, Message: "save the new token before its first use: " + err.Error(), Err: err}
	}
	a.unsaved = false
	return nil
}

// sign puts the credential on a request.
func (a *signer) sign(r *http.Request, token string) {
	switch a.auth.Kind {
	case "bearer":
		r.Header.Set("Authorization", a.scheme()+" "+a.auth.Token.fill(a.scope))
	case "basic":
		r.SetBasicAuth(a.auth.User.fill(a.scope), a.auth.Password.fill(a.scope))
	case "header":
		r.Header.Set(a.auth.Header, a.auth.Value.fill(a.scope))
	case "oauth_refresh", "jwt_bearer", "github_app":
		r.Header.Set("Authorization", a.scheme()+" "+token)
	}
}

func (a *signer) scheme() string {
	if a.auth.Scheme != "" {
		return a.auth.Scheme
	}
	return "Bearer"
}

// secrets lists what must not show in messages.
func (s *Source) secrets() []string {
	var out []string
	for name, v := range s.scope.credential {
		if s.spec.Credential[name].Secret {
			out = append(out, v)
		}
	}
	return append(out, s.auth.tokens()...)
}

// tokens must not wait for a refresh under way: it is asked for errors of one, too.
func (a *signer) tokens() []string {
	if !a.mu.TryLock() {
		return nil
	}
	defer a.mu.Unlock()
	return []string{a.token.Access, a.token.Refresh}
}
