package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep/internal/auth"
)

const (
	// ticketLife is how long a ticket lets a client in that has no connection: to connect
	// at first, and to come back after its connection broke.
	ticketLife = time.Minute
	// ticketAge is how long a ticket lasts at most.
	ticketAge = 24 * time.Hour
	// maxTickets bounds those that are kept at a time.
	maxTickets = 100_000
)

// ticket lets whoever holds it follow one subscriber's events, in the place of the token
// that it was made with. Browsers cannot give a token to an EventSource, and an address
// is the wrong place for anything that lasts.
type ticket struct {
	issuer                      auth.Identity
	subscriber, database, table string
	made                        time.Time
	until                       time.Time // without a connection
	connections                 int
}

func (t *ticket) live(now time.Time) bool {
	return now.Sub(t.made) < ticketAge && (t.connections > 0 || now.Before(t.until))
}

// tickets are those of this node, in memory: after a restart new ones are needed.
type tickets struct {
	mu   sync.Mutex
	all  map[[sha256.Size]byte]*ticket // guarded by mu, by the hash of what the holder sends
	next time.Time                     // guarded by mu: when to sweep again
}

// add makes a ticket; false when there are too many.
func (s *tickets) add(t ticket, now time.Time) (plain string, ok bool) {
	plain = "tk_" + strings.ToLower(rand.Text()+rand.Text())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[[sha256.Size]byte]*ticket{}
	}
	if now.After(s.next) {
		s.next = now.Add(ticketLife / 2)
		for hash, old := range s.all {
			if !old.live(now) {
				delete(s.all, hash)
			}
		}
	}
	if len(s.all) >= maxTickets {
		return "", false
	}
	t.made, t.until = now, now.Add(ticketLife)
	s.all[sha256.Sum256([]byte(plain))] = &t
	return plain, true
}

// find returns a ticket that is good.
func (s *tickets) find(plain string, now time.Time) (ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.all[sha256.Sum256([]byte(plain))]
	if t == nil || !t.live(now) {
		return ticket{}, auth.ErrUnauthenticated
	}
	return *t, nil
}

// use is find for a connection, which ends with leave.
func (s *tickets) use(plain string, now time.Time) (ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.all[sha256.Sum256([]byte(plain))]
	if t == nil || !t.live(now) {
		return ticket{}, auth.ErrUnauthenticated
	}
	t.connections++
	return *t, nil
}

func (s *tickets) leave(plain string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.all[sha256.Sum256([]byte(plain))]; t != nil {
		t.connections--
		t.until = now.Add(ticketLife)
	}
}

// stillGood tells whether a ticket's connection may go on: its token must still be good.
func (a *API) stillGood(t ticket) error {
	now := time.Now()
	if now.Sub(t.made) >= ticketAge {
		return auth.ErrUnauthenticated
	}
	if t.issuer.Token == "" { // the node asked for none
		if !a.tokens.Open() {
			return auth.ErrUnauthenticated
		}
		return nil
	}
	if !a.tokens.Live(t.issuer.Token) {
		return auth.ErrUnauthenticated
	}
	return nil
}

// TicketBody asks for a ticket.
type TicketBody struct {
	Subscriber string `json:"consumer_id,omitempty" maxLength:"1024" doc:"The subscriber; default: the header X-Consumer-Id, or the only one that the token is for"`
	Database   string `json:"database,omitempty" doc:"Needs the scope read"`
	Table      string `json:"table,omitempty" doc:"Needs the scope read"`
}

// TicketView is a ticket.
type TicketView struct {
	Ticket     string    `json:"ticket" doc:"For ?ticket= of GET /events"`
	Subscriber string    `json:"consumer_id"`
	URL        string    `json:"url" doc:"Where to connect, on this node"`
	ExpiresAt  time.Time `json:"expires_at" doc:"Connect before. While it is connected, and a minute after, it stays good, for a day at most"`
}

type (
	ticketInput struct {
		Header string      `header:"X-Consumer-Id" doc:"The subscriber"`
		Query  string      `query:"consumer_id" doc:"Like the header"`
		Body   *TicketBody `required:"false"`
	}
	ticketOutput struct{ Body TicketView }
)

func (a *API) createTicket(ctx context.Context, in *ticketInput) (*ticketOutput, error) {
	body := TicketBody{}
	if in.Body != nil {
		body = *in.Body
	}
	who := callerOf(ctx)
	r := &http.Request{Header: http.Header{"X-Consumer-Id": {in.Header}}, URL: &url.URL{RawQuery: url.Values{"consumer_id": {in.Query}}.Encode()}}
	if body.Subscriber == "" {
		body.Subscriber = subscriberOf(r, who.Scopes)
	}
	switch {
	case body.Subscriber == "":
		const detail = "whose ticket? name the subscriber with consumer_id"
		return nil, problem(http.StatusUnprocessableEntity, detail, Fault{Message: detail, Location: "body.consumer_id"})
	case !who.Scopes.Allows(auth.NeedPeek, body.Subscriber, body.Subscriber):
		return nil, problem(http.StatusForbidden, "the token may not follow the events of this subscriber")
	case (body.Database != "" || body.Table != "") && !who.Scopes.Allows(auth.NeedRead, "", ""):
		return nil, problem(http.StatusForbidden, "choosing a database or a table needs the scope read")
	}
	now := time.Now()
	plain, ok := a.tickets.add(ticket{issuer: who.Identity, subscriber: body.Subscriber, database: body.Database, table: body.Table}, now)
	if !ok {
		return nil, problem(http.StatusTooManyRequests, "too many tickets wait to be used").header("Retry-After", "30")
	}
	return &ticketOutput{Body: TicketView{Ticket: plain, Subscriber: body.Subscriber, URL: "/events?ticket=" + plain, ExpiresAt: now.Add(ticketLife).UTC()}}, nil
}

// checkPage refuses pages of other sites, unless the configuration allows their origin.
func (a *API) checkPage(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		// Browsers send none with a GET of the same origin. A no-cors request of another
		// site has none either, and cannot be read; it is refused all the same.
		return sameSite(r)
	}
	if a.allowsPage(origin, r.Host) {
		return nil
	}
	return problem(http.StatusForbidden, "requests from pages of other sites are refused: allow the page's origin with cors in the configuration")
}

// allowsPage reports whether pages of the origin may talk to the node that they call host.
func (a *API) allowsPage(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return a.allowsAnyPage()
	}
	if strings.EqualFold(u.Host, host) {
		return true
	}
	// What a page of this machine may do, any program there may; a developer's page is
	// served from another port.
	if a.tokens.Open() && auth.Loopback(u.Hostname()) {
		return true
	}
	for _, allowed := range a.origins {
		if allowed != "*" && sameOrigin(strings.ToLower(allowed), strings.ToLower(u.Scheme+"://"+u.Host)) {
			return true
		}
	}
	return a.allowsAnyPage()
}

// sameOrigin compares an origin with one of the configuration, in which the first *
// stands for any characters of the host's name or port.
func sameOrigin(allowed, origin string) bool {
	before, behind, pattern := strings.Cut(allowed, "*")
	if !pattern {
		return allowed == origin
	}
	return len(origin) > len(before)+len(behind) && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, behind)
}

// allowsAnyPage reports whether every page may; only where tokens are asked for.
func (a *API) allowsAnyPage() bool { return slices.Contains(a.origins, "*") && !a.tokens.Open() }

// letPageRead lets a page of an allowed origin read the answer, be it an error.
func (a *API) letPageRead(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" && a.allowsPage(origin, r.Host) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
}

// preflight answers a browser that asks whether a page may send headers of its own.
func (a *API) preflight(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET")
	h.Set("Access-Control-Allow-Headers", "authorization, x-consumer-id, last-event-id, cache-control")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
