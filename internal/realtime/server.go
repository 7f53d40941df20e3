package realtime

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"lockstep"
)

// What clients are told.
const (
	errTooManyChannels = refusal("ChannelRateLimitReached: Too many channels")
	errTooManySockets  = refusal("ConnectionRateLimitReached: Too many connected users")
	errPresenceSize    = refusal("Track message size exceeded")
	errPresenceShape   = refusal("Presence track payload must be a map")
	errPresenceKey     = refusal("InvalidJoinPayload: the key of a presence has at most 255 bytes")
	errStopping        = refusal("the node is stopping")
	errEnded           = refusal("the socket has ended")
	errNoToken         = refusal("API key is missing")
	errScope           = refusal("the token lacks the scope: it needs read")
)

// Server serves the protocol. It is an http.Handler for
//
//	GET  /realtime/v1/websocket
//	POST /realtime/v1/api/broadcast
//	POST /realtime/v1/api/broadcast/{topic}/events/{event}
//
// and for OPTIONS of the latter two. It checks origins and tokens itself. It serves
// from New on, until Run ends.
type Server struct {
	config  Config
	hub     *hub
	moving  *movings
	mux     *http.ServeMux
	queued  atomic.Int64  // bytes that wait for sockets
	replays chan struct{} // turns to read for a replay
	posts   *bucket       // of broadcasts by HTTP

	life context.Context // ends with Run: of readings, joins and sockets
	kill context.CancelFunc

	mu      sync.Mutex
	feeds   map[string]*feed     // guarded by mu, by database
	sockets map[*socket]struct{} // guarded by mu
	closed  bool                 // guarded by mu
	clients sync.WaitGroup       // sockets; Add under mu
	work    sync.WaitGroup       // what is spawned; Add under mu
}

// New returns a server, which serves at once. Run must be called to keep it in order,
// and to end it.
func New(config Config) *Server {
	config = config.withDefaults()
	s := &Server{
		config: config, mux: http.NewServeMux(), hub: newHub(strings.ToLower(rand.Text()[:8]) + "-"),
		replays: make(chan struct{}, config.Limits.Replays), posts: newBucket(config.Limits.HTTPMessages),
		feeds: map[string]*feed{}, sockets: map[*socket]struct{}{},
	}
	s.life, s.kill = context.WithCancel(context.Background())
	s.moving = newMovings(config, s.spawn)
	s.mux.HandleFunc("GET /realtime/v1/websocket", s.connect)
	s.mux.HandleFunc("POST /realtime/v1/api/broadcast", s.broadcasts)
	s.mux.HandleFunc("POST /realtime/v1/api/broadcast/{topic}/events/{event}", s.broadcast)
	s.mux.HandleFunc("OPTIONS /realtime/v1/api/", s.preflight)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.checkOrigin(r); err != nil {
		refuse(w, http.StatusForbidden, err.Error())
		return
	}
	s.allowOrigin(w, r)
	s.mux.ServeHTTP(w, r)
}

// Run watches over sockets until ctx ends: those that are silent, that take nothing, or
// whose token is not good any more. Then it closes all of them and waits for them; it
// takes at most some ten seconds.
func (s *Server) Run(ctx context.Context) error {
	var watch sync.WaitGroup
	watch.Go(func() { every(ctx, time.Second, s.watch) })
	watch.Go(func() {
		every(ctx, s.config.Limits.Reauthorize, func(now time.Time) { s.recheck(ctx, now) })
	})
	<-ctx.Done()
	watch.Wait()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, k := range s.open() {
		k.end(websocket.StatusGoingAway, "the node is stopping; connect again")
	}
	// A client that takes nothing does not hold the node up.
	timer := time.AfterFunc(stopWait, s.kill)
	s.clients.Wait()
	timer.Stop()
	s.kill()
	s.work.Wait()
	return nil
}

// stopWait is how long clients have to take leave when the server stops.
const stopWait = 7 * time.Second

// every calls f at intervals until ctx ends.
func every(ctx context.Context, interval time.Duration, f func(now time.Time)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			f(now)
		case <-ctx.Done():
			return
		}
	}
}

// watch closes sockets that have been silent for too long, or take nothing.
func (s *Server) watch(now time.Time) {
	l := s.config.Limits
	for _, k := range s.open() {
		writing := k.writing.Load()
		switch {
		case writing != 0 && now.Sub(time.Unix(0, writing)) > l.WriteWait:
			k.end(websocket.StatusTryAgainLater, "nothing was taken for too long")
		case now.Sub(time.Unix(0, k.heard.Load())) > l.Idle:
			k.end(websocket.StatusPolicyViolation, "no heartbeat")
		}
	}
}

func (s *Server) recheck(ctx context.Context, now time.Time) {
	for _, k := range s.open() {
		for _, c := range k.list() {
			c.recheck(ctx, now)
		}
	}
}

func (s *Server) open() []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.sockets))
}

// spawn runs something that the end of the server waits for, with a context that ends
// then. It reports false when that has come.
func (s *Server) spawn(f func(ctx context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.work.Go(func() { f(s.life) })
	return true
}

// feed returns the feed of a database.
func (s *Server) feed(database string) (*feed, error) {
	s.mu.Lock()
	f := s.feeds[database]
	s.mu.Unlock()
	if f != nil {
		return f, nil
	}
	log, err := s.config.Log(database)
	if err != nil {
		return nil, fmt.Errorf("open the log of database %q: %w", database, err)
	}
	s.mu.Lock()
	if s.feeds[database] == nil {
		s.feeds[database] = newFeed(s, database, log)
	}
	f = s.feeds[database]
	s.mu.Unlock()
	// One that was forgotten while its log was opened is not taken up again.
	if _, err := s.config.Log(database); err != nil {
		s.drop(database)
		return nil, fmt.Errorf("open the log of database %q: %w", database, err)
	}
	return f, nil
}

func (s *Server) drop(database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.feeds, database)
}

// Forget ends all channels of a database that was deleted: each is told why, and closed.
// Their sockets stay; who joins again is refused until there is a database of the name.
// [Config.Log] must not know the database any more when it is called.
func (s *Server) Forget(database string) {
	s.drop(database)
	for _, k := range s.open() {
		if k.database != database {
			continue
		}
		for _, c := range k.list() {
			c.fail("UnableToConnectToProject: the database " + strconv.Quote(database) + " was deleted")
		}
	}
}

// authorizeWait bounds the check of a token: a socket's other messages wait for it.
const authorizeWait = 5 * time.Second

// authorize checks a token; an error's text may be told to its holder.
func (s *Server) authorize(ctx context.Context, token string) (Claims, error) {
	if s.config.Authorize == nil {
		return Claims{Read: true}, nil
	}
	if token == "" && !s.config.Open() {
		return Claims{}, errNoToken
	}
	ctx, cancel := context.WithTimeout(ctx, authorizeWait)
	defer cancel()
	claims, err := s.config.Authorize(ctx, token)
	switch {
	case err != nil:
		return Claims{}, err
	case !claims.Read:
		return Claims{}, errScope
	case !claims.Expires.IsZero() && !time.Now().Before(claims.Expires):
		return Claims{}, fmt.Errorf("the token has expired: %w", lockstep.ErrInvalid)
	}
	return claims, nil
}
