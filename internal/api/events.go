package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/events"
	"lockstep/internal/obs"
)

// Events is where GET /events gets its events from.
type Events interface {
	// Table returns the table that database and table mean; empty: the configured one. An
	// error wraps lockstep.ErrNotFound when there is none, and lockstep.ErrUnavailable as
	// long as that cannot be told.
	Table(database, table string) (EventTable, error)
	// Log returns a database's log, for the places that requests name.
	Log(database string) (Log, error)
	Open(r events.Request) (*events.Session, error)
}

// EventTable is an events table of a database.
type EventTable struct {
	Database string
	Table    events.Table
}

// tableWait is how long a request waits for its events table to be found: after a start,
// and when the table was just made. An EventSource that is refused never comes back.
const tableWait = 5 * time.Second

func (a *API) eventRoutes() {
	stream := Route{Method: http.MethodGet, Path: "/events", Need: auth.NeedPeek, Subscriber: true, Waits: true}
	a.plain(stream, about{"stream-events", "Follow the events of a subscriber (SSE)", "events", 200}, a.describeEvents, a.followEvents)
	ask := Route{Method: http.MethodOptions, Path: "/events", Need: auth.NeedNothing, Subscriber: true, Hidden: true}
	a.plain(ask, about{}, nil, a.preflight)
	ticket := Route{Method: http.MethodPost, Path: "/v1/events/tickets", Need: auth.NeedPeek, Subscriber: true}
	typed(a, ticket, about{"create-event-ticket", "Let a browser follow the events of a subscriber", "events", 201}, a.createTicket)
}

// subscriberOf returns whose events a request is about: as it says, else the only one
// that its token is for.
func subscriberOf(r *http.Request, scopes auth.Scopes) string {
	for _, text := range []string{r.Header.Get("X-Consumer-Id"), r.URL.Query().Get("consumer_id")} {
		if text != "" {
			return text
		}
	}
	only := ""
	for _, s := range scopes {
		name, ok := strings.CutPrefix(s, "consume:")
		if !ok || only != "" {
			return ""
		}
		only = name
	}
	return only
}

// admitSubscriber decides whether the caller may act for the subscriber that the request
// is about: a token must allow to consume it, or to read everything. A ticket stands for
// the token that it was made with.
func (a *API) admitSubscriber(rt Route, r *http.Request) (auth.Identity, error) {
	if err := a.checkPage(r); err != nil {
		return auth.Identity{}, err
	}
	if rt.Need == auth.NeedNothing {
		return auth.Identity{}, nil
	}
	if plain := r.URL.Query().Get("ticket"); plain != "" && rt.Method == http.MethodGet {
		t, err := a.tickets.find(plain, time.Now())
		if err == nil {
			err = a.stillGood(t)
		}
		return t.issuer, err
	}
	plain, err := bearer(r)
	if err != nil {
		return auth.Identity{}, err
	}
	who, err := a.tokens.Authenticate(plain)
	if err != nil {
		return auth.Identity{}, err
	}
	if name := subscriberOf(r, who.Scopes); who.Scopes.Allows(rt.Need, name, name) {
		return who, nil
	}
	return auth.Identity{}, problem(http.StatusForbidden, "the token "+strconv.Quote(who.Name)+" lacks the scope for this call: it needs read, consume or consume:<subscriber>")
}

// following is one open stream of events of a subscriber.
type following struct {
	api     *API
	w       http.ResponseWriter
	session *events.Session
	beat    []byte
	allowed func() error // whether the caller may still follow
	buf     []byte
}

func (a *API) followEvents(w http.ResponseWriter, r *http.Request) {
	if a.events == nil {
		a.fail(w, r, problem(http.StatusNotFound, "this node serves no events"))
		return
	}
	request, allowed, done, err := a.eventRequest(r)
	defer done()
	switch {
	case errors.Is(err, lockstep.ErrUnavailable):
		comeBack(w)
		return
	case err != nil:
		a.fail(w, r, err)
		return
	}
	if r.Method == http.MethodHead {
		streamHeaders(w.Header())
		w.WriteHeader(http.StatusOK)
		return
	}
	session, err := a.events.Open(request)
	if errors.Is(err, events.ErrFull) || errors.Is(err, lockstep.ErrUnavailable) {
		a.log.WarnContext(r.Context(), "a subscriber was told to come back later", obs.KeyDatabase, request.Database, obs.KeyError, err)
		comeBack(w)
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	defer session.Close()
	if a.metrics != nil {
		a.metrics.StreamOpened(request.Database)
		defer a.metrics.StreamClosed(request.Database)
	}
	f := &following{api: a, w: w, session: session, beat: []byte(": heartbeat\n\n"), allowed: allowed}
	if r.URL.Query().Get("heartbeat") == "event" {
		f.beat = []byte("event: heartbeat\ndata: {}\n\n")
	}
	ctx, cancel := a.drain.until(r.Context())
	defer cancel()
	if db, err := a.database(request.Database); err == nil { // else the session ends by itself, or has nothing to wait for
		var release func()
		ctx, release = unlessGone(ctx, db)
		defer release()
	}
	f.run(ctx)
}

func streamHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
}

// comeBack answers a client that cannot be served for now: an EventSource takes any
// other status than 200, and 204 too, as a reason never to come back.
func comeBack(w http.ResponseWriter) {
	streamHeaders(w.Header())
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte("retry: 5000\n: cannot be served for now\n\n")) // a client that is gone needs none
}

// run sends events until the client goes, takes nothing, may not any more, or the node
// stops. The answer has begun: a client learns of the end by the end, and comes back
// with the last id that it has seen.
func (f *following) run(ctx context.Context) {
	streamHeaders(f.w.Header())
	f.w.WriteHeader(http.StatusOK)
	waitsLong(f.w)
	f.buf = append(f.buf, "retry: 2000\n\n"...)
	checked := time.Now()
	for {
		if f.flush() != nil {
			return
		}
		parts, err := f.session.Next(ctx, f.api.heartbeat)
		if err != nil {
			return
		}
		for _, part := range parts {
			if len(f.buf) > 0 && len(f.buf)+len(part) > sseFlushBytes && f.flush() != nil {
				return
			}
			f.buf = append(f.buf, part...)
		}
		if len(parts) == 0 {
			f.buf = append(f.buf, f.beat...)
		}
		if time.Since(checked) >= f.api.heartbeat {
			if checked = time.Now(); f.allowed() != nil {
				return
			}
		}
	}
}

// flush hands what was appended, whole events only, to the client.
func (f *following) flush() error {
	if len(f.buf) == 0 {
		return nil
	}
	writesUntil(f.w, f.api.writeWait)
	_, err := f.w.Write(f.buf)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	if cap(f.buf) > 4<<10 {
		f.buf = nil // most streams are quiet most of the time
	}
	f.buf = f.buf[:0]
	return err
}

// eventRequest reads what a request asks for. allowed tells later whether its caller may
// still follow; done must be called at the end of the stream.
func (a *API) eventRequest(r *http.Request) (request events.Request, allowed func() error, done func(), err error) {
	query := r.URL.Query()
	database, table := query.Get("database"), query.Get("table")
	scopes := callerOf(r.Context()).Scopes
	done = func() {}
	plain, _ := bearer(r) // it was read before
	allowed = func() error {
		who, err := a.tokens.Authenticate(plain)
		if err == nil && !who.Scopes.Allows(auth.NeedPeek, request.Subscriber, request.Subscriber) {
			err = auth.ErrUnauthenticated
		}
		if errors.Is(err, lockstep.ErrUnavailable) {
			return nil
		}
		return err
	}
	request.Subscriber = subscriberOf(r, scopes)
	switch text := query.Get("ticket"); {
	case text != "":
		t, err := a.tickets.use(text, time.Now())
		if err != nil {
			return request, allowed, done, err
		}
		done = func() { a.tickets.leave(text, time.Now()) }
		if named := subscriberOf(r, nil); named != "" && named != t.subscriber || database != "" && database != t.database || table != "" && table != t.table {
			return request, allowed, done, problem(http.StatusForbidden, "the ticket is for another subscriber or table")
		}
		request.Subscriber, database, table = t.subscriber, t.database, t.table
		allowed = func() error { return a.stillGood(t) }
	case request.Subscriber == "":
		return request, allowed, done, bad("header.X-Consumer-Id", "whose events? name the subscriber with the header X-Consumer-Id, or with ?consumer_id=")
	case (database != "" || table != "") && !scopes.Allows(auth.NeedRead, "", ""):
		return request, allowed, done, problem(http.StatusForbidden, "choosing a database or a table needs the scope read")
	}
	found, err := a.eventTable(r.Context(), database, table)
	if err != nil {
		return request, allowed, done, err
	}
	request.Database, request.Table = found.Database, found.Table
	err = a.eventPlace(r, &request)
	return request, allowed, done, err
}

// eventPlace reads where the stream is to begin.
func (a *API) eventPlace(r *http.Request, request *events.Request) error {
	query := r.URL.Query()
	if request.LastID = r.Header.Get("Last-Event-ID"); request.LastID == "" {
		request.LastID = query.Get("last_event_id")
	}
	from := query.Get("from")
	if request.LastID != "" || from == "" || from == "now" {
		return nil
	}
	place, err := parsePlace(from, time.Now())
	if err != nil {
		return bad("query.from", "from: %s", err)
	}
	log, err := a.events.Log(request.Database)
	if err != nil {
		return err
	}
	seq, err := place.resolve(r.Context(), log)
	request.From = max(seq, 1)
	return err
}

// eventTable finds the table, and waits a little for it.
func (a *API) eventTable(ctx context.Context, database, table string) (EventTable, error) {
	ctx, cancel := context.WithTimeout(ctx, a.tableWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := a.events.Table(database, table)
		if err == nil || !errors.Is(err, lockstep.ErrNotFound) && !errors.Is(err, lockstep.ErrUnavailable) {
			return found, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return found, err
		}
	}
}

func (a *API) describeEvents(op *huma.Operation) {
	op.Description += " Each row that is inserted into the events table for the subscriber is an event: the row's id, its type, its payload. " +
		"A client that comes back with Last-Event-ID misses nothing; when that id is not there any more, an event gap says so. " +
		"A browser, which cannot set headers, comes with a ticket."
	op.Parameters = append(op.Parameters,
		&huma.Param{Name: "X-Consumer-Id", In: "header", Description: "The subscriber", Schema: textSchema()},
		queryParam("consumer_id", "Like the header", textSchema()),
		&huma.Param{Name: "Last-Event-ID", In: "header", Description: "The last id seen: goes on behind it. 0: everything that there is", Schema: textSchema()},
		queryParam("last_event_id", "Like the header, for browsers", textSchema()),
		queryParam("from", "Without an id, where to begin: now (default), beginning, a time, or 1h for an hour ago", textSchema()),
		queryParam("ticket", "Of POST /v1/events/tickets, in the place of a token", textSchema()),
		queryParam("database", "Needs the scope read", textSchema()),
		queryParam("table", "Another events table; needs the scope read", textSchema()),
		queryParam("heartbeat", "event: heartbeats are events, not comments", textSchema()))
	op.Responses["200"] = &huma.Response{Description: "A stream of events", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: textSchema()}}}
}
