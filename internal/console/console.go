// Package console is the web console: pages in the binary that show how a node is and
// let a person act on it.
//
// # Guarantees
//
//  1. A page knows and may do what the token of its reader knows and may do over the
//     HTTP API: it makes the same calls, so scopes, checks and the audit are the API's.
//  2. What comes from outside (rows, names, errors) is text on every page. The policy of
//     the pages lets them load and run nothing that is not in the binary.
//  3. Reading works without scripts; scripts keep what is shown current.
//  4. A token is never shown again by a page: the browser holds it sealed, in a cookie
//     that scripts cannot read and that other sites cannot send.
//  5. Everything that changes something is a POST from the console's own pages.
package console

import (
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"lockstep/client"
)

// Prefix is where the pages are.
const Prefix = "/console/"

// Sealer seals the token of a session into its cookie; a [secret.Key] is one.
type Sealer interface {
	Seal(plain []byte, context string) []byte
	Open(sealed []byte, context string) ([]byte, error)
}

// Config is what a console is made of. API and Sealer are needed.
type Config struct {
	API    http.Handler     // the HTTP API of this node, which pages call in this process
	Sealer Sealer           // the same after a restart, so that nobody has to sign in again
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: slog.Default
}

// Console answers everything below [Prefix]. It is an http.Handler, safe for
// concurrent use. Whoever serves it checks Host and Origin first.
type Console struct {
	mux     *http.ServeMux
	sealer  Sealer
	now     func() time.Time
	log     *slog.Logger
	http    *http.Client
	door    door
	pages   map[string]*template.Template
	version string // of the assets, so that a new binary's are loaded
}

// New makes a console. It starts nothing.
func New(c Config) (*Console, error) {
	if c.API == nil || c.Sealer == nil {
		return nil, fmt.Errorf("make the console: the API and a sealer are needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Console{
		mux: http.NewServeMux(), sealer: c.Sealer, now: c.Now, log: c.Logger,
		http: &http.Client{Transport: local{c.API}},
	}
	var err error
	if s.version, err = fingerprint(); err != nil {
		return nil, err
	}
	if s.pages, err = s.parse(); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

// routes says what is at which address. Each page has a file of its own beside this one.
func (s *Console) routes() {
	s.assets()
	s.mux.HandleFunc("GET "+Prefix+"sign-in", s.signInForm)
	s.mux.HandleFunc("POST "+Prefix+"sign-in", s.signIn)
	s.mux.HandleFunc("POST "+Prefix+"sign-out", s.signOut)
	s.page("{$}", "overview", overview)
	s.charts()
	s.databasePages()
	s.syncPages()
	s.streamPages()
	s.consumerPages()
	s.createPages()
	s.setupPages()
	s.mux.HandleFunc(Prefix, s.signedIn(func(c *visit) { c.fail(errNoPage) }))
}

// ServeHTTP implements http.Handler.
func (s *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if r.URL.Path == "/" {
		http.Redirect(w, r, Prefix, http.StatusFound)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// policy lets pages load, run and send to nothing but this node.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// caller makes a client of the API for a token; empty on a node without tokens.
func (s *Console) caller(token string) (*client.Client, error) {
	return client.New(client.Config{Server: "http://localhost", Token: token, HTTP: s.http, Agent: "lockstep-console"})
}
