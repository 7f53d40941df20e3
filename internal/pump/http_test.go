package pump_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/pump"
	"lockstep/sink/webhook"
)

// endpoint is an HTTP receiver that answers by what it is told, and keeps what it took.
type endpoint struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(w http.ResponseWriter, key string) bool // whether it takes it
	byKey  map[string][]uint64
	seen   map[uint64]bool
	inside map[string]bool
	faults []string
	calls  []time.Time
}

func newEndpoint(t testing.TB) *endpoint {
	t.Helper()
	e := &endpoint{byKey: map[string][]uint64{}, seen: map[uint64]bool{}, inside: map[string]bool{}}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	var m struct {
		Metadata struct {
			Seq uint64
			PKs []string `json:"record_pks"`
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &m) != nil {
		return
	}
	key, seq := strings.Join(m.Metadata.PKs, ","), m.Metadata.Seq
	e.mu.Lock()
	e.calls = append(e.calls, time.Now())
	if e.inside[key] {
		e.faults = append(e.faults, "two requests of key "+key)
	}
	e.inside[key] = true
	answer := e.answer
	e.mu.Unlock()
	taken := answer == nil || answer(w, key)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inside[key] = false
	if !taken || e.seen[seq] {
		return
	}
	e.seen[seq] = true
	if list := e.byKey[key]; len(list) > 0 && seq < list[len(list)-1] {
		e.faults = append(e.faults, fmt.Sprintf("key %s: %d after %d", key, seq, list[len(list)-1]))
	}
	e.byKey[key] = append(e.byKey[key], seq)
}

func (e *endpoint) answers(f func(w http.ResponseWriter, key string) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func status(code int) func(http.ResponseWriter, string) bool {
	return func(w http.ResponseWriter, _ string) bool {
		w.WriteHeader(code)
		return code < 300
	}
}

func (e *endpoint) distinct() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

func (e *endpoint) check(t testing.TB, want int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.faults[:min(len(e.faults), 10)] {
		t.Error(f)
	}
	if len(e.seen) != want {
		t.Errorf("%d changes arrived, want %d", len(e.seen), want)
	}
}

func (e *endpoint) sink(t testing.TB) *webhook.Webhook {
	t.Helper()
	w, err := webhook.New(webhook.Config{URL: e.URL, AllowPrivate: true, Timeout: 5 * time.Second, Attempt: func(ctx context.Context, a webhook.Attempt) {
		r := pump.Request{At: a.At, Duration: a.Duration, Method: a.Method, URL: a.URL, Status: a.Status, Seqs: a.Seqs, Answer: string(a.AnswerBody)}
		if a.Err != nil {
			r.Error = a.Err.Error()
		}
		pump.Note(ctx, r)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestAnEndpointWithoutConsentIsRefused: nothing is delivered and no attempt counts until
// it consents, which is asked again and again.
func TestAnEndpointWithoutConsentIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(100, 10)
	var mu sync.Mutex
	consents, early := false, 0
	e := newEndpoint(t)
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		open := consents
		if !open && q.Method != http.MethodOptions {
			early++
		}
		mu.Unlock()
		if q.Method != http.MethodOptions {
			e.serve(w, q)
		} else if open {
			w.Header().Set("WebHook-Allowed-Origin", q.Header.Get("WebHook-Request-Origin"))
		}
	}))
	t.Cleanup(door.Close)
	w, err := webhook.New(webhook.Config{URL: door.URL, AllowPrivate: true, Handshake: true})
	if err != nil {
		t.Fatal(err)
	}
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 1 })
	p, stop := pumping(t, c, w, nil)
	eventually(t, "it is refused", func() bool {
		s := p.Status()
		return s.State == pump.Refused && strings.Contains(s.Reason, "gave no consent to deliveries")
	})
	mu.Lock()
	consents = true
	mu.Unlock()
	eventually(t, "all are settled", settled(c, 100))
	stop()
	e.check(t, 100)
	if early > 0 {
		t.Errorf("%d deliveries came before the consent", early)
	}
}

func TestAnEndpointThatIsDeadUnderLoadCatchesUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := newEndpoint(t)
	e.answers(status(500))
	c := r.consumer(nil)
	p, stop := pumping(t, c, e.sink(t), nil)
	for range 20 { // the load goes on while it is dead
		r.fill(100, 25)
	}
	eventually(t, "the breaker opens", func() bool { return p.Status().State == pump.Open })
	e.answers(nil)
	eventually(t, "all are settled", settled(c, 2000))
	stop()
	e.check(t, 2000)
	failed, _ := p.Book.List(0, 1, pump.FailedOnly)
	if len(failed) != 1 || failed[0].Status != 500 || failed[0].Method != "POST" || failed[0].Duration <= 0 || len(failed[0].Seqs) != 1 {
		t.Errorf("attempts: %+v", failed)
	}
}

func TestADeadEndpointLeavesAnotherAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead, well := newEndpoint(t), newEndpoint(t)
	hung := make(chan struct{})
	dead.answers(func(http.ResponseWriter, string) bool { // it never answers
		<-hung
		return false
	})
	defer close(hung)
	one, other := r.consumer(nil), r.consumer(nil)
	_, stop := pumping(t, one, dead.sink(t), func(c *pump.Config) { c.Grace = 10 * time.Millisecond })
	_, stopOther := pumping(t, other, well.sink(t), nil)
	r.fill(2000, 50)
	eventually(t, "the other has all", settled(other, 2000))
	stop()
	stopOther()
	well.check(t, 2000)
	if s := one.Stats(); s.Pending != 2000 || s.InFlight != 0 {
		t.Errorf("the dead one: %d wait, %d are out", s.Pending, s.InFlight)
	}
}

func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(100, 100)
	e := newEndpoint(t)
	var once sync.Once
	e.answers(func(w http.ResponseWriter, _ string) (taken bool) {
		taken = true
		once.Do(func() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			taken = false
		})
		return taken
	})
	c := r.consumer(nil)
	// One at a time: others that are on their way would come within the pause.
	_, stop := pumping(t, c, e.sink(t), func(c *pump.Config) { c.Concurrency = 1 })
	eventually(t, "all are settled", settled(c, 100))
	stop()
	e.check(t, 100)
	longest := time.Duration(0)
	for i := range e.calls[1:] {
		longest = max(longest, e.calls[i+1].Sub(e.calls[i]))
	}
	if longest < 900*time.Millisecond {
		t.Errorf("the longest pause was %s, want the second that was asked for", longest)
	}
}

func TestOneKeyThatAnEndpointRefusesGoesToTheDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(300, 30)
	e := newEndpoint(t)
	e.answers(func(w http.ResponseWriter, key string) bool {
		if key == "k7" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return false
		}
		return true
	})
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 2 })
	_, stop := pumping(t, c, e.sink(t), nil)
	eventually(t, "all are settled", settled(c, 300))
	e.answers(nil)
	n, err := c.ReplayDead(t.Context(), time.Now().Add(-time.Hour))
	if n != 10 || err != nil {
		t.Errorf("%d letters are replayed: %v", n, err)
	}
	eventually(t, "the ten arrive", func() bool { return e.distinct() == 300 })
	stop()
	e.check(t, 300)
}
