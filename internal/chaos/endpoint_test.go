package chaos_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"lockstep/client"
)

// manner is how an endpoint treats those who come to it.
type manner string

const (
	takes    manner = "takes everything"
	refuses  manner = "connection refused"
	declines manner = "503 with Retry-After"
	drips    manner = "answers 1 byte a second"
)

// endpoint receives webhooks as a careful one does: it processes each change once, by
// its id, and answers when it has. It holds the node to that everything comes, and of a
// row in order.
type endpoint struct {
	name    string
	address string
	work    sync.WaitGroup

	mu       sync.Mutex
	server   *http.Server  // nil: connections are refused
	turn     chan struct{} // closed when the manner changes
	manner   manner
	phase    string // of the run, for the times
	rows     map[string][]uint64
	last     map[string]uint64 // seq of a row's last processed change
	ids      map[string]struct{}
	again    int // came with an id that was processed before
	requests map[manner]int
	took     map[string][]time.Duration // from the commit, by phase
	heard    time.Time                  // of the first change since the manner changed
	faults   []string
}

// newEndpoint opens one that takes everything.
func newEndpoint(t testing.TB, name string) *endpoint {
	t.Helper()
	e := recorder(name)
	// Below the ports that connections get: while it refuses, nobody else takes its port.
	var l net.Listener
	for range 100 {
		e.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(18000+rand.IntN(12000)))
		var err error
		if l, err = net.Listen("tcp", e.address); err == nil {
			break
		}
	}
	if l == nil {
		t.Fatal("no port is free")
	}
	e.serve(l)
	t.Cleanup(func() {
		e.shut(refuses)
		e.work.Wait()
	})
	return e
}

// recorder is an endpoint without a port.
func recorder(name string) *endpoint {
	return &endpoint{
		name: name, manner: takes, turn: make(chan struct{}), rows: map[string][]uint64{}, last: map[string]uint64{},
		ids: map[string]struct{}{}, requests: map[manner]int{}, took: map[string][]time.Duration{},
	}
}

func (e *endpoint) serve(l net.Listener) {
	server := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	e.mu.Lock()
	e.server = server
	e.mu.Unlock()
	e.work.Go(func() { _ = server.Serve(l) })
}

// behave changes the manner.
func (e *endpoint) behave(m manner) error {
	if m == refuses {
		e.shut(m)
		return nil
	}
	e.mu.Lock()
	closed := e.server == nil
	e.mu.Unlock()
	e.change(m)
	if !closed {
		return nil
	}
	l, err := net.Listen("tcp", e.address)
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.name, err)
	}
	e.serve(l)
	return nil
}

func (e *endpoint) change(m manner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.manner, e.heard = m, time.Time{}
	close(e.turn)
	e.turn = make(chan struct{})
}

// shut breaks all connections and lets none in.
func (e *endpoint) shut(m manner) {
	e.change(m)
	e.mu.Lock()
	server := e.server
	e.server = nil
	e.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
}

// ServeHTTP implements [http.Handler].
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // a node that was killed
	}
	e.mu.Lock()
	m, turn := e.manner, e.turn
	e.requests[m]++
	e.mu.Unlock()
	if m == declines {
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	e.process(r.Header.Get("Webhook-Id"), body, time.Now())
	if m != drips {
		return
	}
	// It has taken it, and nobody gets to know: what comes again must count once.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		_, _ = w.Write([]byte(" ")) // the sender may have gone, which its context tells
		_ = http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-turn:
			panic(http.ErrAbortHandler) // an answer that never ends does not become a good one
		case <-r.Context().Done():
			return
		}
	}
}

// process takes what was not taken before.
func (e *endpoint) process(id string, body []byte, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, err := messages(body)
	if err != nil {
		e.fault("%v", err)
	}
	for i := range list {
		if len(list) == 1 && id != list[i].Metadata.IdempotencyKey {
			e.fault("change %d came with webhook-id %q, and its idempotency key is %q", list[i].Metadata.Seq, id, list[i].Metadata.IdempotencyKey)
		}
		if err := e.one(&list[i], now); err != nil {
			e.fault("change %d: %v", list[i].Metadata.Seq, err)
		}
	}
}

// one processes a change unless its id was there before. The caller holds mu.
func (e *endpoint) one(c *client.Change, now time.Time) error {
	if c.Action == "gap" || c.Action == "truncate" {
		return fmt.Errorf("a %s, although none was provoked: %s", c.Action, c.Metadata.Gap)
	}
	if _, known := e.ids[c.Metadata.IdempotencyKey]; known {
		e.again++
		return nil
	}
	e.ids[c.Metadata.IdempotencyKey] = struct{}{}
	key, version, write, err := content(c)
	if err != nil {
		return err
	}
	if c.Metadata.Seq <= e.last[key] {
		return fmt.Errorf("%s: it came after change %d of the same row", key, e.last[key])
	}
	e.last[key] = c.Metadata.Seq
	if write != deleted && version != len(e.rows[key])+1 {
		return fmt.Errorf("%s: version %d came after version %d", key, version, len(e.rows[key]))
	}
	e.rows[key] = append(e.rows[key], write)
	e.took[e.phase] = append(e.took[e.phase], now.Sub(c.Metadata.CommitTime()))
	if e.heard.IsZero() {
		e.heard = now
	}
	return nil
}

// messages reads one message, or several.
func messages(body []byte) ([]client.Change, error) {
	var several struct{ Data []json.RawMessage }
	if err := json.Unmarshal(body, &several); err != nil {
		return nil, fmt.Errorf("a body that is no JSON: %w", err)
	}
	if several.Data == nil {
		several.Data = []json.RawMessage{body}
	}
	list := make([]client.Change, len(several.Data))
	for i, raw := range several.Data {
		var err error
		if list[i], err = client.ParseChange(raw); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// fault notes a broken promise. The caller holds mu.
func (e *endpoint) fault(format string, args ...any) {
	if len(e.faults) < 20 {
		e.faults = append(e.faults, "endpoint "+e.name+": "+fmt.Sprintf(format, args...))
	}
}

// enter says which phase of the run it is.
func (e *endpoint) enter(phase string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.phase = phase
}

// processed returns how many changes were processed, each once.
func (e *endpoint) processed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.ids)
}

// asked returns how many requests it treated so.
func (e *endpoint) asked(m manner) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.requests[m]
}

// compare holds what was processed against what was committed.
func (e *endpoint) compare(committed map[string][]uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var wrong []error
	for key, want := range committed {
		if got := e.rows[key]; !slices.Equal(got, want) && len(wrong) < 5 {
			wrong = append(wrong, fmt.Errorf("endpoint %s: %s: %d changes were committed, %d were processed, not the same in the same order", e.name, key, len(want), len(got)))
		}
	}
	for key := range e.rows {
		if committed[key] == nil && len(wrong) < 5 {
			wrong = append(wrong, fmt.Errorf("endpoint %s: %s was never committed", e.name, key))
		}
	}
	return errors.Join(wrong...)
}

// quantile of the times of a phase; 0: there was none.
func (e *endpoint) quantile(phase string, at float64) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := slices.Sorted(slices.Values(e.took[phase]))
	if len(all) == 0 {
		return 0
	}
	return all[min(int(at*float64(len(all))), len(all)-1)]
}
