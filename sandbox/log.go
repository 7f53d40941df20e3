package sandbox

import (
	"maps"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
)

// Call is one request in the log. What the vendor's handler knows it fills in
// itself, through CallOf, before it answers; the rest is the log's.
type Call struct {
	N      uint64    `json:"n"`     // from 1
	At     time.Time `json:"at"`    // real time of arrival
	World  time.Time `json:"world"` // the same by the API's clock
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Query  string    `json:"query,omitempty"`

	Endpoint       string `json:"endpoint,omitempty"` // vendor: the route as limits count it
	Account        string `json:"account,omitempty"`  // vendor: whom the credential stands for
	Credential     string `json:"credential,omitempty"`
	RequestID      string `json:"request_id,omitempty"`      // vendor
	IdempotencyKey string `json:"idempotency_key,omitempty"` // vendor
	Version        string `json:"version,omitempty"`         // vendor: of the API, as answered
	Limited        string `json:"limited,omitempty"`         // vendor: the limit that refused it

	Status     int      `json:"status"` // 0: under way, or cut off before its head
	Bytes      int64    `json:"bytes"`
	Took       Duration `json:"took"`
	Concurrent int      `json:"concurrent"` // requests under way when it arrived, itself included
	Fault      string   `json:"fault,omitempty"`

	fault *Fault
}

// Spoiled returns the fault that the vendor's handler itself must act on: one of
// Config.Kinds. It returns nil when there is none.
func (c *Call) Spoiled() *Fault { return c.fault }

// Summary counts what was asked since the log was last cleared.
type Summary struct {
	Requests      uint64               `json:"requests"`
	Status        map[int]uint64       `json:"status"`
	Limited       map[string]uint64    `json:"limited"` // by limit
	Faults        map[string]uint64    `json:"faults"`  // by kind
	Endpoints     map[string]*Endpoint `json:"endpoints"`
	MaxConcurrent int                  `json:"max_concurrent"`
	PeakSecond    int                  `json:"peak_second"` // most requests within any second
	First         time.Time            `json:"first"`
	Last          time.Time            `json:"last"`
}

// Endpoint counts the requests of one endpoint.
type Endpoint struct {
	Requests   uint64 `json:"requests"`
	Limited    uint64 `json:"limited"`
	PeakSecond int    `json:"peak_second"`

	second window
}

// Log keeps the requests of the vendor's routes: the last ones in full, all of them
// in the summary.
type Log struct {
	mu      sync.Mutex
	size    int
	kept    []*Call // a ring once it is full
	next    uint64  // number of the next call
	cleared uint64  // calls up to here are not shown
	running int
	summary Summary
	second  window
}

// window counts what lies within the last second.
type window struct{ at []time.Time }

func (w *window) add(t time.Time) int {
	for len(w.at) > 0 && t.Sub(w.at[0]) >= time.Second {
		w.at = w.at[1:]
	}
	w.at = append(w.at, t)
	return len(w.at)
}

func newLog(size int) *Log {
	if size <= 0 {
		size = 100_000
	}
	l := &Log{size: size, next: 1}
	l.summary = emptySummary()
	return l
}

func emptySummary() Summary {
	return Summary{Status: map[int]uint64{}, Limited: map[string]uint64{}, Faults: map[string]uint64{}, Endpoints: map[string]*Endpoint{}}
}

func (l *Log) begin(r *http.Request, world time.Time) *Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running++
	call := &Call{
		N: l.next, At: time.Now(), World: world, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Credential: mask(r.Header.Get("Authorization")), Concurrent: l.running,
	}
	l.next++
	if len(l.kept) < l.size {
		l.kept = append(l.kept, call)
	} else {
		l.kept[(call.N-1)%uint64(l.size)] = call
	}
	s := &l.summary
	s.Requests++
	s.MaxConcurrent = max(s.MaxConcurrent, l.running)
	s.PeakSecond = max(s.PeakSecond, l.second.add(call.At))
	if s.First.IsZero() {
		s.First = call.At
	}
	s.Last = call.At
	return call
}

// end closes a call. The entry in the ring is replaced, not changed, so that nobody
// reads one that is being written.
func (l *Log) end(call *Call, a *answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	done := *call
	done.Status, done.Bytes, done.Took = a.status, a.bytes, max(Duration(time.Since(call.At)), 1)
	if i := (call.N - 1) % uint64(l.size); l.kept[i].N == call.N {
		l.kept[i] = &done
	}
	s := &l.summary
	s.Status[done.Status]++
	if done.Fault != "" {
		s.Faults[done.Fault]++
	}
	if done.Endpoint == "" {
		done.Endpoint = done.Method + " " + done.Path
	}
	e := s.Endpoints[done.Endpoint]
	if e == nil {
		if len(s.Endpoints) >= 10_000 { // of unknown paths only; known ones are few
			return
		}
		e = &Endpoint{}
		s.Endpoints[done.Endpoint] = e
	}
	e.Requests++
	e.PeakSecond = max(e.PeakSecond, e.second.add(done.At))
	if done.Limited != "" {
		s.Limited[done.Limited]++
		e.Limited++
	}
}

// Calls returns the calls after number n that are kept and complete, oldest first.
func (l *Log) Calls(after uint64) []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	var calls []Call
	for _, c := range l.kept {
		if c.N > after && c.N > l.cleared && c.Took > 0 {
			calls = append(calls, *c)
		}
	}
	sort.Slice(calls, func(i, j int) bool { return calls[i].N < calls[j].N })
	return calls
}

// Summary returns the counts since the log was last cleared.
func (l *Log) Summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.summary
	s.Status, s.Limited, s.Faults = maps.Clone(s.Status), maps.Clone(s.Limited), maps.Clone(s.Faults)
	s.Endpoints = make(map[string]*Endpoint, len(l.summary.Endpoints))
	for name, e := range l.summary.Endpoints {
		s.Endpoints[name] = &Endpoint{Requests: e.Requests, Limited: e.Limited, PeakSecond: e.PeakSecond}
	}
	return s
}

// Clear forgets the calls and the counts. Numbers go on.
func (l *Log) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.summary, l.second, l.cleared = emptySummary(), window{}, l.next-1
}

// Peak returns how many requests at most lay within any stretch of that length,
// among the kept calls that match; nil matches all.
func (l *Log) Peak(stretch time.Duration, match func(Call) bool) int {
	var at []time.Time
	peak := 0
	for _, c := range l.Calls(0) {
		if match != nil && !match(c) {
			continue
		}
		for len(at) > 0 && c.At.Sub(at[0]) >= stretch {
			at = at[1:]
		}
		at = append(at, c.At)
		peak = max(peak, len(at))
	}
	return peak
}

// mask keeps of a credential its kind and its last four characters.
func mask(header string) string {
	kind, secret, _ := strings.Cut(header, " ")
	if secret == "" {
		return ""
	}
	if len(secret) < 12 {
		return kind + " …"
	}
	prefix := ""
	if i := strings.LastIndexByte(secret[:12], '_'); i > 0 {
		prefix = secret[:i+1]
	}
	return kind + " " + prefix + "…" + secret[len(secret)-4:]
}
