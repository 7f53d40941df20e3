package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"

	"lockstep/internal/auth"
	"lockstep/internal/obs"
)

// Route is one route of the API. Every route is registered with what it needs of its
// caller; there is no other way in.
type Route struct {
	Method string
	Path   string // pattern, for example /v1/consumers/{id}
	Need   auth.Need
	// Audit names what is recorded when the call succeeds; empty for calls that
	// change nothing of the control plane.
	Audit string
	// Consumer says that {id} names a consumer, for the scope consume:<consumer>.
	Consumer bool
	// Waits marks long polls and streams: their time is not a measure of anything.
	Waits bool
	// Takes marks calls that have an effect although their method is safe.
	Takes bool
	// Webhook marks calls of other systems, which sign their bodies: header and body
	// come to the handler as they are, the body up to maxWebhook.
	Webhook bool
	// Subscriber marks calls on behalf of a subscriber of events: its own page may make
	// them, and a token or a ticket for that subscriber is enough.
	Subscriber bool
	// Hidden routes are no part of the documented API: documentation, metrics.
	Hidden bool
}

// routeKey is where huma's operation keeps its Route.
const routeKey = "lockstep:route"

// adapter puts huma's operations onto our mux, through our own gate.
type adapter struct{ api *API }

// Handle implements huma.Adapter.
func (a adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	rt, _ := op.Metadata[routeKey].(Route)
	a.api.register(rt, func(w http.ResponseWriter, r *http.Request) {
		handler(humago.NewContext(op, r, w))
	})
}

// ServeHTTP implements huma.Adapter.
func (a adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.api.ServeHTTP(w, r) }

// register puts a handler onto the mux, behind the checks that its route asks for.
func (a *API) register(rt Route, h http.HandlerFunc) {
	a.routes = append(a.routes, rt)
	a.mux.HandleFunc(rt.Method+" "+rt.Path, func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		out := &answer{ResponseWriter: w}
		a.guarded(rt, out, r, h)
		if a.metrics != nil {
			a.metrics.Answered(rt.Method, rt.Path, out.code())
			if !rt.Waits {
				a.metrics.Took(rt.Method, rt.Path, time.Since(began))
			}
		}
		if a.log.Enabled(r.Context(), slog.LevelDebug) {
			a.log.DebugContext(r.Context(), "answered", obs.KeyMethod, rt.Method, obs.KeyRoute, rt.Path, obs.KeyStatus, out.code(), obs.KeyDuration, time.Since(began))
		}
	})
}

// guarded lets a request through to its handler, or answers it with what is wrong.
func (a *API) guarded(rt Route, w *answer, r *http.Request, h http.HandlerFunc) {
	defer a.recovered(rt, w, r)
	if rt.Subscriber {
		a.letPageRead(w, r)
	}
	who, err := a.admit(rt, r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if rt.Webhook {
		r.Body = http.MaxBytesReader(w, r.Body, maxWebhook)
	} else {
		r.Body = http.MaxBytesReader(w, r.Body, a.maxBody)
		lenientContentType(r)
	}
	ctx := context.WithValue(r.Context(), callerKey{}, caller{Identity: who, remote: remoteHost(r)})
	h(w, r.WithContext(ctx))
}

// lenientContentType takes the body types that curl and simple clients send by
// default for JSON. That browsers may send these across sites is dealt with by origin.
func lenientContentType(r *http.Request) {
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(t)) {
	case "application/x-www-form-urlencoded", "text/plain", "application/octet-stream":
		r.Header.Set("Content-Type", "application/json")
	}
}

// recovered turns a panic into an answer, so that one request cannot end the node.
func (a *API) recovered(rt Route, w *answer, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // net/http's own way to cut a connection
	}
	id := uuid.NewString()
	a.log.ErrorContext(r.Context(), "a request panicked", obs.KeyRequest, id, obs.KeyMethod, rt.Method, obs.KeyRoute, rt.Path,
		obs.KeyError, v, "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	p := problem(http.StatusInternalServerError, "internal error; the server's log has more under this request_id")
	p.RequestID = id
	p.write(w)
}

// fail answers with the problem that err is, and logs what callers are not told.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.explain(r.Context(), err).write(w)
}

// explain is problemOf, with internal errors logged under an id that the caller gets.
func (a *API) explain(ctx context.Context, err error) *Problem {
	p := problemOf(err)
	if p.Status != http.StatusInternalServerError {
		return p
	}
	p.RequestID = uuid.NewString()
	a.log.ErrorContext(ctx, "a request failed", obs.KeyRequest, p.RequestID, obs.KeyError, err)
	return p
}

// unrouted answers requests that no route takes.
func unrouted(w http.ResponseWriter, r *http.Request, h http.Handler) {
	probe := &answer{ResponseWriter: discard{header: http.Header{}}}
	h.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		problem(http.StatusNotFound, "there is nothing at this address; /openapi.json lists what there is").write(w)
		return
	}
	allowed := probe.Header().Get("Allow")
	problem(http.StatusMethodNotAllowed, r.Method+" is not possible here; allowed: "+allowed).header("Allow", allowed).write(w)
}

// answer remembers the status of a response.
type answer struct {
	http.ResponseWriter
	status int
}

func (w *answer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answer) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// discard is a ResponseWriter that keeps headers only.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// drain tells long polls and streams that the node is about to stop.
type drain struct {
	// A context only for its AfterFunc: it carries nothing and belongs to no call.
	signal context.Context
	begin  context.CancelFunc
}

func newDrain() drain {
	ctx, cancel := context.WithCancel(context.Background())
	return drain{signal: ctx, begin: cancel}
}

// until returns a context that also ends when the node is about to stop.
func (d drain) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.signal, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

func (d drain) begun() bool { return d.signal.Err() != nil }

// gate counts the requests under way, so that stopping can wait for them.
type gate struct {
	mu     sync.Mutex
	n      int           // guarded by mu
	idle   chan struct{} // guarded by mu; set by close, closed when n is 0
	closed bool          // guarded by mu
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.closed && g.n == 0 {
		close(g.idle)
	}
}

// close lets nobody in any more and returns when the last one has left.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.idle = make(chan struct{})
	if g.n == 0 {
		close(g.idle)
	}
	g.mu.Unlock()
	<-g.idle
}
