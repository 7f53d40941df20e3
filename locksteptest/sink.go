package locksteptest

import (
	"encoding/json"
	"testing"
	"time"

	"lockstep/sink"
)

// Keeps says what a destination holds.
type Keeps int

// What a destination holds: every message in order of arrival, as a queue or an
// endpoint does, or the newest of each key, as a table does.
const (
	History Keeps = iota
	Newest
)

// Arrival is one message as the destination holds it.
type Arrival struct {
	// Seq finds the message; it is unique among all of the suite's, and larger than
	// those of earlier runs.
	Seq uint64
	// Key is the text of the message's key; empty: not compared.
	Key string
	// Body is compared with the message's by meaning; nil: not compared.
	Body json.RawMessage
}

// Target is a sink and the destination behind it.
type Target struct {
	// New makes the sink as a process that was just started would. It connects to
	// address, which is Address or a proxy before it, also where the destination names
	// other addresses of itself.
	New func(t testing.TB, address string) sink.Sink
	// Address is where the destination listens, host:port of TCP. Empty: there is no
	// network between; its faults are not tested.
	Address string
	// Arrived returns what the destination holds: for [History] in order of arrival.
	// What else it returns besides the suite's messages is not looked at.
	Arrived func(t testing.TB) []Arrival
	// Keeps says what Arrived can return.
	Keeps Keeps
	// Idempotent says that a message which comes again changes nothing, also from
	// another process and after later ones of its key.
	Idempotent bool
	// Expect returns what an Arrival's Body is for a message; nil: the message's Body.
	Expect func(sink.Message) json.RawMessage
	// Trouble makes the destination refuse everything such that the error is of the
	// kind, until undo is called. Kinds that it does not have are left out.
	Trouble map[sink.Kind]func(t testing.TB) (undo func())
	// Poison changes a message so that the destination rejects it and no other. Nil:
	// the destination takes everything.
	Poison func(m *sink.Message)
	// Secrets must be in no error.
	Secrets []string
	// Schema and Table are of the messages; default: public.conformance. Rows have the
	// columns id text (the key), n bigint (the seq) and note text.
	Schema, Table string
	// Patience is how long something may take that should happen; default 10 s.
	Patience time.Duration
}

// TestSink holds a sink to the contract of package sink, as subtests. The suite calls
// it as the pump does: one call at a time for a key, what failed comes again, and a
// batch may hold several messages of one key.
//
// It checks
//
//   - that what is said to be delivered has arrived, whole and in the order of each key,
//     whatever breaks: at each of many places of a conversation, in both directions;
//   - the numbers and the errors that Write returns, and that kinds are right;
//   - that one bad message holds no other;
//   - that Write ends within a second after its context, and Close may be called twice;
//   - that messages are neither changed nor used after Write has returned;
//   - that no goroutine is left behind Close, and no error holds secrets or data.
//
// Goroutines are told apart by a profiler label that those started by the sink
// inherit, so that other tests may run at the same time.
func TestSink(t *testing.T, target Target) {
	s := newSuite(target)
	for _, c := range s.checks() {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

// check is one rule of the contract.
type check struct {
	name string
	run  func(testing.TB)
}

func (s *suite) checks() []check {
	return []check{
		{"what is written arrives", s.arrives},
		{"nothing is written", s.nothing},
		{"each key keeps its order", s.ordered},
		{"different keys are written at the same time", s.concurrent},
		{"odd and large values arrive", s.odd},
		{"deletes and truncates are taken", s.deletes},
		{"what comes again has the effect of one", s.again},
		{"a bad message holds no other", s.poisoned},
		{"errors are of the right kind", s.kinds},
		{"a context ends a call within a second", s.cancelled},
		{"closing twice is closing", s.closes},
		{"a slow network is only slow", s.slow},
		{"a destination that is away comes back", s.comesBack},
		{"a connection cut on the way there", s.cutUp},
		{"a connection cut on the way back", s.cutDown},
	}
}

// newSuite fills in the defaults.
func newSuite(target Target) *suite {
	if target.Schema == "" {
		target.Schema = "public"
	}
	if target.Table == "" {
		target.Table = "conformance"
	}
	if target.Patience == 0 {
		target.Patience = 10 * time.Second
	}
	if target.Expect == nil {
		target.Expect = func(m sink.Message) json.RawMessage { return m.Body }
	}
	s := &suite{Target: target}
	s.seq.Store(uint64(time.Now().UnixMicro()))
	return s
}
