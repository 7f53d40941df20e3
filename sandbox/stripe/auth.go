package stripe

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"lockstep/sandbox"
)

// access is what a key may do.
type access struct {
	key     string
	revoked bool
	only    []string // collections (customers, invoices …) of a restricted key; nil: all
}

var keyForm = regexp.MustCompile(`^(sk|rk)_(test|live)_[A-Za-z0-9_]{6,}$`)

// signIn lets any key of the right form in, but for those that were revoked.
func (s *Sandbox) signIn(r *http.Request) (*access, *Error) {
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if user, _, ok := r.BasicAuth(); ok {
		key = user
	}
	denied := &Error{Status: http.StatusUnauthorized, Type: "invalid_request_error"}
	switch {
	case key == "":
		denied.Message = "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
		return nil, denied
	case !keyForm.MatchString(key):
		denied.Message = "Invalid API Key provided: " + masked(key)
		return nil, denied
	}
	s.mu.RLock()
	a := s.keys[key]
	s.mu.RUnlock()
	if a == nil {
		a = &access{key: key}
	}
	if a.revoked {
		denied.Code, denied.Message = "api_key_expired", "Expired API Key provided: "+masked(key)
		return nil, denied
	}
	if other := r.Header.Get("Stripe-Account"); other != "" && other != s.accountID() {
		return nil, &Error{Status: http.StatusForbidden, Type: "invalid_request_error", Code: "account_invalid", Message: fmt.Sprintf(
			"The provided key '%s' does not have access to account '%s' (or that account does not exist). Application access may have been revoked.", masked(key), other)}
	}
	return a, nil
}

// limit names the limit of the account as a whole.
func (a *access) limit() string {
	if strings.Contains(a.key[:8], "_live_") {
		return limitLive
	}
	return limitTest
}

// allows says whether a restricted key may use a route.
func (a *access) allows(r *route) *Error {
	if a.only == nil {
		return nil
	}
	for _, collection := range a.only {
		if strings.HasPrefix(r.pattern+"/", "/v1/"+collection+"/") {
			return nil
		}
	}
	return &Error{Status: http.StatusForbidden, Type: "invalid_request_error", Message: fmt.Sprintf(
		"The provided key '%s' does not have the required permissions for this endpoint on account. Having the required permission would allow this request to continue.", masked(a.key))}
}

func masked(key string) string {
	if len(key) < 12 {
		return strings.Repeat("*", len(key))
	}
	return key[:8] + strings.Repeat("*", len(key)-12) + key[len(key)-4:]
}

// RevokeKey makes a key expired until AllowKey.
func (s *Sandbox) RevokeKey(key string) { s.setAccess(&access{key: key, revoked: true}) }

// AllowKey lets a key in again, for these collections only (customers, invoices,
// checkout/sessions …), or for all when none is named.
func (s *Sandbox) AllowKey(key string, collections ...string) {
	s.setAccess(&access{key: key, only: collections})
}

func (s *Sandbox) setAccess(a *access) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[a.key] = a
}

func (s *Sandbox) accountID() string { return "acct_1" + s.options.Seed.Code("account", 0, 15) }

// controls are the control routes that only this API has.
func (s *Sandbox) controls() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"keys": func(w http.ResponseWriter, r *http.Request) {
			var ask struct {
				Key    string
				Revoke bool
				Only   []string
			}
			control(w, r, &ask, func() error {
				if ask.Revoke {
					s.RevokeKey(ask.Key)
					return nil
				}
				s.AllowKey(ask.Key, ask.Only...)
				return nil
			})
		},
		"lateness": func(w http.ResponseWriter, r *http.Request) {
			s.mu.RLock()
			late := s.lateness
			s.mu.RUnlock()
			control(w, r, &late, func() error { s.SetLateness(late); return nil })
		},
		"version": func(w http.ResponseWriter, r *http.Request) {
			var ask struct{ Version string }
			control(w, r, &ask, func() error { return s.SetVersion(ask.Version) })
		},
	}
}

// control reads the body of a POST and applies it.
func control(w http.ResponseWriter, r *http.Request, ask any, apply func() error) {
	err := sandbox.ReadBody(r, ask)
	if err == nil && r.Method == http.MethodPost {
		err = apply()
	}
	if err != nil {
		sandbox.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	sandbox.WriteJSON(w, http.StatusOK, ask)
}
