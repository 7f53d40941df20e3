package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"lockstep/internal/auth"
)

// ServeHTTP implements http.Handler: what holds for every request, then its route.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.active.enter() {
		problem(http.StatusServiceUnavailable, "the node is stopping").header("Connection", "close").write(w)
		return
	}
	defer a.active.leave()
	if a.realtime != nil && strings.HasPrefix(r.URL.Path, realtimePrefix) {
		if err := a.checkHost(r); err != nil {
			problemOf(err).write(w)
			return
		}
		a.realtime.ServeHTTP(w, r)
		return
	}
	secureHeaders(w.Header())
	if err := a.checkOrigin(r); err != nil {
		problemOf(err).write(w)
		return
	}
	if a.console != nil && (r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, consolePrefix)) {
		a.console.ServeHTTP(w, r)
		return
	}
	h, pattern := a.mux.Handler(r)
	if pattern == "" {
		unrouted(w, r, h)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// consolePrefix is where the pages of the console are.
const consolePrefix = "/console/"

// realtimePrefix is where clients of Supabase Realtime connect.
const realtimePrefix = "/realtime/v1/"

func secureHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// checkOrigin refuses what a page of another site makes a browser send.
func (a *API) checkOrigin(r *http.Request) error {
	if err := a.checkHost(r); err != nil {
		return err
	}
	return a.checkSite(r)
}

// checkHost refuses what comes from elsewhere as long as nobody is asked for a token.
func (a *API) checkHost(r *http.Request) error {
	if !a.tokens.Open() {
		return nil
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && !auth.Loopback(hostname(local.String())) {
		return problem(http.StatusForbidden, "without API tokens this node answers to its own machine only; create a token (lockstep token create)")
	}
	if !auth.Loopback(hostname(r.Host)) {
		// A page can make its own name resolve to 127.0.0.1 (DNS rebinding) and is then
		// of the same origin as far as the browser knows. Only the Host header tells.
		return problem(http.StatusForbidden, fmt.Sprintf("without API tokens this node answers to localhost only, not to %q; "+
			"create a token (lockstep token create) to use another name", hostname(r.Host)))
	}
	return nil
}

// checkSite refuses calls with an effect that a page of another site makes.
func (a *API) checkSite(r *http.Request) error {
	if err := a.crossOrigin.Check(r); err != nil {
		return problem(http.StatusForbidden, "requests from pages of other sites are refused")
	}
	return nil
}

// sameSite refuses calls of pages of other sites also where the method is safe: some
// calls take changes by GET, and a page need not read the answer to do harm.
func sameSite(r *http.Request) error {
	site := r.Header.Get("Sec-Fetch-Site")
	if site == "" || site == "same-origin" || site == "none" {
		return nil
	}
	return problem(http.StatusForbidden, "requests from pages of other sites are refused")
}

// hostname cuts the port off a Host header.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// caller is who made a request, and from where.
type caller struct {
	auth.Identity
	remote string
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// admit decides whether the caller of a route may come in.
func (a *API) admit(rt Route, r *http.Request) (auth.Identity, error) {
	if rt.Takes {
		if err := sameSite(r); err != nil {
			return auth.Identity{}, err
		}
		if r.Method == http.MethodHead {
			// The mux hands HEAD to the handlers of GET.
			return auth.Identity{}, problem(http.StatusMethodNotAllowed, "HEAD is not possible here").header("Allow", "GET, POST")
		}
	}
	if rt.Subscriber {
		return a.admitSubscriber(rt, r)
	}
	if rt.Need == auth.NeedNothing {
		return auth.Identity{}, nil
	}
	plain, err := bearer(r)
	if err != nil {
		return auth.Identity{}, err
	}
	who, err := a.tokens.Authenticate(plain)
	if err != nil {
		return auth.Identity{}, err
	}
	id, name := "", ""
	if rt.Consumer {
		id, name = a.namesOf(r.PathValue("id"))
	}
	if who.Scopes.Allows(rt.Need, id, name) {
		return who, nil
	}
	return auth.Identity{}, problem(http.StatusForbidden, fmt.Sprintf("the token %q lacks the scope for this call: it needs %s", who.Name, scopeText(rt)))
}

func scopeText(rt Route) string {
	if rt.Consumer && (rt.Need == auth.NeedConsume || rt.Need == auth.NeedPeek) {
		return rt.Need.String() + " (or consume:<this consumer>)"
	}
	return rt.Need.String()
}

// namesOf returns id and name of the consumer that a path names. An unknown one is
// taken at its word: whoever may use a consumer of that name is told that it is not
// there; others are not.
func (a *API) namesOf(idOrName string) (id, name string) {
	c, err := a.consumers.Find(idOrName)
	if err != nil {
		return idOrName, idOrName
	}
	d := c.Definition()
	return d.ID, d.Name
}

// bearer returns the token of the Authorization header, or nothing when there is none.
func bearer(r *http.Request) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", auth.ErrUnauthenticated
	}
	// A bare "Bearer" is what scripts send whose variable is empty: no token.
	return strings.TrimSpace(token), nil
}
