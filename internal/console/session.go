package console

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

const (
	cookieName     = "lockstep_session"
	noticeName     = "lockstep_notice"
	sessionTime    = 12 * time.Hour // after it, a person signs in again
	sessionContext = "console session"
	maxToken       = 1024 // bytes; a cookie holds no more than 4096
)

// session is what the cookie holds, sealed.
type session struct {
	Token string    `json:"t"`
	Until time.Time `json:"u"`
}

// errSignedOut says that there is no session, or one that has run out.
var errSignedOut = errors.New("sign in first")

// token returns the token of the request's session; empty and no error never.
func (s *Console) token(r *http.Request) (string, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return "", errSignedOut
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return "", errSignedOut
	}
	plain, err := s.sealer.Open(sealed, sessionContext)
	if err != nil {
		return "", errSignedOut // another node's, or somebody's invention
	}
	var held session
	if err := json.Unmarshal(plain, &held); err != nil || held.Token == "" || !s.now().Before(held.Until) {
		return "", errSignedOut
	}
	return held.Token, nil
}

func (s *Console) cookie(r *http.Request, name, value string, life time.Duration) *http.Cookie {
	c := &http.Cookie{
		Name: name, Value: value, Path: Prefix, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https", MaxAge: int(life.Seconds()),
	}
	if life <= 0 {
		c.MaxAge = -1
	}
	return c
}

// signInForm shows where to enter a token.
func (s *Console) signInForm(w http.ResponseWriter, r *http.Request) {
	s.askForToken(w, r, http.StatusOK, "")
}

type signInView struct {
	frame
	Next  string
	Wrong string
}

func (s *Console) askForToken(w http.ResponseWriter, r *http.Request, status int, wrong string) {
	s.write(w, status, "sign-in", "layout", signInView{
		frame: frame{Title: "Sign in", Assets: s.version, Bare: true}, Next: ownPath(r.FormValue("next")), Wrong: wrong,
	})
}

// signIn takes a token and, when the API takes it too, begins a session.
func (s *Console) signIn(w http.ResponseWriter, r *http.Request) {
	if wait := s.door.wait(host(r), s.now()); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
		s.askForToken(w, r, http.StatusTooManyRequests, "Too many wrong tokens came from your address. Wait a minute.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	token := strings.TrimSpace(r.PostFormValue("token"))
	switch {
	case token == "":
		s.askForToken(w, r, http.StatusUnprocessableEntity, "Enter a token.")
		return
	case len(token) > maxToken:
		s.askForToken(w, r, http.StatusUnprocessableEntity, "That is too long for a token.")
		return
	}
	err := s.known(withRemote(r), token) //nolint:contextcheck // it is that of the request, and more
	switch statusOf(err) {
	case http.StatusOK:
	case http.StatusUnauthorized:
		s.door.wrong(host(r), s.now())
		s.askForToken(w, r, http.StatusUnauthorized, "This node does not know the token, or it has been revoked or has run out.")
		return
	case http.StatusForbidden:
		s.askForToken(w, r, http.StatusForbidden, "This token may not read: the console needs one of the scope read or admin.")
		return
	default:
		s.askForToken(w, r, http.StatusServiceUnavailable, words(err))
		return
	}
	plain, err := json.Marshal(session{Token: token, Until: s.now().Add(sessionTime)})
	if err != nil {
		s.askForToken(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	sealed := base64.RawURLEncoding.EncodeToString(s.sealer.Seal(plain, sessionContext))
	http.SetCookie(w, s.cookie(r, cookieName, sealed, sessionTime))
	http.Redirect(w, r, ownPath(r.FormValue("next")), http.StatusSeeOther)
}

// known asks the API whether it takes the token.
func (s *Console) known(ctx context.Context, token string) error {
	api, err := s.caller(token)
	if err != nil {
		return err
	}
	_, err = api.Databases(ctx)
	return err
}

// signOut ends the session of this browser.
func (s *Console) signOut(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, s.cookie(r, cookieName, "", 0))
	http.Redirect(w, r, Prefix+"sign-in", http.StatusSeeOther)
}

// ownPath returns where to go after signing in: a page of the console, never elsewhere.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(u.Path, Prefix) || strings.ContainsAny(next, "\\\r\n") {
		return Prefix
	}
	return u.RequestURI()
}

// withRemote is the request's context with the address of who reads the page, for the
// audit.
func withRemote(r *http.Request) context.Context {
	return context.WithValue(r.Context(), remoteKey{}, r.RemoteAddr)
}

// notice is what the page after an action says about it.
type notice struct {
	Kind string `json:"k"` // done or failed
	Text string `json:"t"`
}

// leave stores a notice for the next page.
func (s *Console) leave(w http.ResponseWriter, r *http.Request, n notice) {
	if len(n.Text) > 1500 {
		n.Text = n.Text[:1500] + "…"
	}
	text, err := json.Marshal(n)
	if err != nil {
		return
	}
	http.SetCookie(w, s.cookie(r, noticeName, base64.RawURLEncoding.EncodeToString(text), time.Minute))
}

// collect returns the notice that the last action left, and forgets it.
func (s *Console) collect(w http.ResponseWriter, r *http.Request) *notice {
	cookie, err := r.Cookie(noticeName)
	if err != nil {
		return nil
	}
	http.SetCookie(w, s.cookie(r, noticeName, "", 0))
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return nil
	}
	var n notice
	if err := json.Unmarshal(text, &n); err != nil || n.Kind != "done" && n.Kind != "failed" {
		return nil
	}
	return &n
}

// words returns an error as a person should read it.
func words(err error) string {
	text := fmt.Sprint(err)
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Detail != "" {
		text = problem.Detail
	}
	for _, kind := range []error{lockstep.ErrConflict, lockstep.ErrInvalid, lockstep.ErrNotFound, lockstep.ErrUnavailable} {
		// A program reads the kind of error at the end; a person has read the sentence.
		text = strings.TrimSuffix(text, ": "+kind.Error())
	}
	return text
}
