package realtime

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"lockstep"
	"lockstep/internal/obs"
)

// connect makes a socket of a request, and serves it to its end.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	version, err := parseWire(query.Get("vsn"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	token := tokenOf(r)
	if _, err := s.authorize(r.Context(), token); err != nil {
		status, text := denied(err)
		refuse(w, status, text)
		return
	}
	database := s.config.Database(query)
	if _, err := s.feed(database); err != nil {
		status := http.StatusServiceUnavailable
		if errors.Is(err, lockstep.ErrNotFound) {
			status = http.StatusNotFound
		}
		refuse(w, status, fmt.Sprintf("the database %q cannot be followed here", database))
		return
	}
	k := &socket{
		server: s, wire: version, database: database, token: token, since: sinceOf(query), remote: r.RemoteAddr,
		out: newOutbox(s.config.Limits, &s.queued), frames: newBucket(s.config.Limits.Frames), channels: map[string]*channel{},
		quiet: make(chan struct{}),
	}
	k.heard.Store(time.Now().UnixNano())
	switch err := s.enter(k); {
	case errors.Is(err, errTooManySockets):
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusTooManyRequests, err.Error())
		return
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer s.leave(k)
	// Origins were checked before; the library's own check knows less.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		s.config.Logger.DebugContext(r.Context(), "a WebSocket was not accepted", obs.KeyAddress, k.remote, obs.KeyError, err)
		return
	}
	conn.SetReadLimit(s.config.Limits.MessageBytes)
	if !k.connected(conn) {
		_ = conn.Close(websocket.StatusGoingAway, errStopping.Error()) // nobody is there to be told that it failed
		return
	}
	k.run(s.life) //nolint:contextcheck // a request's context means nothing once its connection was taken over
}

// enter counts the socket. The server's end waits for it until leave.
func (s *Server) enter(k *socket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errStopping
	case len(s.sockets) >= s.config.Limits.Sockets:
		return errTooManySockets
	}
	s.sockets[k] = struct{}{}
	s.clients.Add(1)
	return nil
}

func (s *Server) leave(k *socket) {
	s.mu.Lock()
	delete(s.sockets, k)
	s.mu.Unlock()
	s.clients.Done()
}

// connected gives the socket its connection, unless it was ended before it had one.
func (s *socket) connected(conn *websocket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	return !s.ending
}

// sinceOf returns the parameter since as JSON: the place of bindings without their own.
func sinceOf(query url.Values) []byte {
	if since := query.Get("since"); since != "" {
		return lockstep.AppendJSONString(nil, since)
	}
	return nil
}

// tokenOf returns what the caller shows: clients send it in several places.
func tokenOf(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") && token != "" {
		return strings.TrimSpace(token)
	}
	for _, token := range []string{r.Header.Get("X-Api-Key"), r.Header.Get("Apikey"), r.URL.Query().Get("apikey")} {
		if token != "" {
			return token
		}
	}
	return ""
}

// denied tells why a token lets nobody in.
func denied(err error) (status int, text string) {
	switch {
	case errors.Is(err, errScope):
		return http.StatusForbidden, errScope.Error()
	case errors.Is(err, lockstep.ErrUnavailable):
		return http.StatusServiceUnavailable, "tokens cannot be checked for now"
	}
	return http.StatusUnauthorized, err.Error()
}

// refuse answers as the real server does.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body := lockstep.AppendJSONString([]byte(`{"error":`), text)
	_, _ = w.Write(append(body, "}\n"...)) // a caller that is gone needs no answer
}

// checkOrigin refuses what a page of another site makes a browser send, and without
// tokens all that does not come from this machine.
func (s *Server) checkOrigin(r *http.Request) error {
	if s.config.Open() {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && !loopback(hostname(local.String())) {
			return errors.New("without API tokens this node answers to its own machine only; create a token (lockstep token create)")
		}
		if !loopback(hostname(r.Host)) {
			// A page can make its own name resolve to 127.0.0.1 (DNS rebinding) and is then of
			// the same origin as far as the browser knows. Only the Host header tells.
			return fmt.Errorf("without API tokens this node answers to localhost only, not to %q; "+
				"create a token (lockstep token create) to use another name", hostname(r.Host))
		}
	}
	if origin := r.Header.Get("Origin"); origin != "" && !s.allows(origin, r.Host) {
		return errors.New("requests from pages of other sites are refused: allow the page's origin in the configuration")
	}
	return nil
}

// allows reports whether pages of the origin may talk to the node that they call host.
func (s *Server) allows(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return s.allowsAll()
	}
	if strings.EqualFold(u.Host, host) {
		return true
	}
	// What a page of the same machine may do, any program there may; a developer's page
	// is served from another port.
	if s.config.Open() && loopback(u.Hostname()) {
		return true
	}
	for _, allowed := range s.config.AllowedOrigins {
		if allowed != "*" && like(strings.ToLower(allowed), strings.ToLower(u.Scheme+"://"+u.Host)) {
			return true
		}
	}
	return s.allowsAll()
}

// allowsAll reports whether every page may. That is so only where tokens are asked for.
func (s *Server) allowsAll() bool {
	return !s.config.Open() && slices.Contains(s.config.AllowedOrigins, "*")
}

// like matches an origin with a pattern, in which the first * stands for any characters
// of a host's name or port.
func like(pattern, origin string) bool {
	before, behind, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == origin
	}
	return len(origin) > len(before)+len(behind) && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, behind)
}

// loopback reports whether a host's name or address is this machine's own.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// hostname cuts the port off a Host header.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// allowOrigin lets a page of an allowed origin read the answer.
func (s *Server) allowOrigin(w http.ResponseWriter, r *http.Request) {
	if origin := r.Header.Get("Origin"); origin != "" {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Add("Vary", "Origin")
	}
}

// preflight answers a browser that asks whether a page may post.
func (s *Server) preflight(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "POST")
	h.Set("Access-Control-Allow-Headers", "authorization, apikey, content-type, x-client-info, x-supabase-api-version")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
