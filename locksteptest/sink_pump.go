package locksteptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep"
	"lockstep/sink"
)

// canary is in the data of every message, and so must be in no error.
const canary = "canary-7f3a"

// suite is a target under test.
type suite struct {
	Target
	seq  atomic.Uint64
	keys atomic.Uint64
}

// key returns the text of a key that no other check uses.
func (s *suite) key() string {
	return fmt.Sprintf("%s-%d-%d", canary, s.seq.Load(), s.keys.Add(1))
}

// message makes the next change of a key.
func (s *suite) message(key string, action lockstep.Action) sink.Message {
	return s.row(key, canary, action)
}

// row is message with a note of one's own.
func (s *suite) row(key, note string, action lockstep.Action) sink.Message {
	seq := s.seq.Add(1)
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	m := sink.Message{
		Seq: seq, Key: h.Sum64(), Action: action, Database: "app", Schema: s.Schema, Table: s.Table,
		PKs: append(lockstep.AppendJSONString([]byte{'['}, key), ']'), IdempotencyKey: fmt.Sprintf("conformance-1-%d-0", seq),
		CommitTime: time.Now().UTC().Truncate(time.Microsecond), Attempt: 1,
	}
	m.Record = lockstep.AppendJSONString([]byte(`{"id":`), key)
	m.Record = strconv.AppendUint(append(m.Record, `,"n":`...), seq, 10)
	m.Record = append(lockstep.AppendJSONString(append(m.Record, `,"note":`...), note), '}')
	if action.Whole() {
		m.PKs, m.Record = json.RawMessage(`[]`), json.RawMessage(`null`)
	}
	m.Body = body(m)
	return m
}

// body is the message of the wire contract.
func body(m sink.Message) json.RawMessage {
	return fmt.Appendf(nil, `{"record":%s,"changes":null,"action":%q,"metadata":{"database":%q,"table_schema":%q,"table_name":%q,"seq":%d,`+
		`"commit_lsn":%d,"commit_idx":0,"commit_timestamp":%q,"xid":1,"record_pks":%s,"key_kind":"primary_key","idempotency_key":%q,"origin":"user","old_known":false,"transaction_annotations":null}}`,
		m.Record, m.Action, m.Database, m.Schema, m.Table, m.Seq, m.Seq, m.CommitTime.Format("2006-01-02T15:04:05.000000Z"), m.PKs, m.IdempotencyKey)
}

// several makes n updates for each of the keys, in turns, as they would be committed.
func (s *suite) several(keys []string, n int) []sink.Message {
	var list []sink.Message
	for range n {
		for _, key := range keys {
			list = append(list, s.message(key, lockstep.Update))
		}
	}
	return list
}

func (s *suite) someKeys(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s.key()
	}
	return list
}

// open makes a sink that is closed when the test ends; nothing may be left of it then.
func (s *suite) open(t testing.TB, address string) *subject {
	t.Helper()
	sub := &subject{suite: s, watch: newWatch()}
	sub.watch.do(t.Context(), func(context.Context) { sub.sink = s.New(t, address) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), s.Patience)
		defer cancel()
		sub.close(ctx, t)
		if left := sub.watch.left(s.Patience / 2); left != "" {
			t.Errorf("goroutines are left behind Close:\n%s", left)
		}
	})
	return sub
}

// subject is a sink that is watched.
type subject struct {
	*suite
	sink  sink.Sink
	watch *watch
}

func (s *subject) close(ctx context.Context, t testing.TB) {
	t.Helper()
	var err error
	s.watch.do(ctx, func(ctx context.Context) { err = s.sink.Close(ctx) })
	if err != nil {
		s.clean(t, err)
		t.Errorf("close: %v", err)
	}
}

// result is what Write said about each message: nil is delivered.
type result []error

var errUnknown = errors.New("what became of it is not known")

// write calls Write once and checks what can be checked at once.
func (s *subject) write(ctx context.Context, t testing.TB, messages []sink.Message) result {
	t.Helper()
	lent := lend(messages)
	var n int
	var err error
	s.watch.do(ctx, func(ctx context.Context) { n, err = s.sink.Write(ctx, lent) })
	for i := range lent {
		if !equal(lent[i], messages[i]) {
			t.Errorf("message %d of %d was changed by Write", i, len(messages))
		}
		scribble(lent[i])
	}
	s.clean(t, err)
	list := make(result, len(messages))
	var partial *sink.PartialError
	switch {
	case n < 0 || n > len(messages):
		t.Fatalf("Write of %d messages returned n = %d", len(messages), n)
	case err == nil && n < len(messages):
		t.Fatalf("Write of %d messages returned n = %d without an error", len(messages), n)
	case err == nil:
	case errors.As(err, &partial):
		s.spread(t, list, partial, n)
	case n == len(messages):
		t.Fatalf("Write delivered all of %d messages and returned an error: %v", n, err)
	default:
		list[n] = err
		for i := n + 1; i < len(list); i++ {
			list[i] = errUnknown
		}
	}
	return list
}

// spread puts the errors of a PartialError to their messages.
func (s *subject) spread(t testing.TB, list result, partial *sink.PartialError, n int) {
	t.Helper()
	if len(partial.Failed) == 0 {
		t.Fatalf("a PartialError names no message")
	}
	last := -1
	for _, f := range partial.Failed {
		if f.Index <= last || f.Index >= len(list) || f.Err == nil {
			t.Fatalf("a PartialError of %d messages names %d (%v) after %d: want indexes in the batch, ascending, each with its error", len(list), f.Index, f.Err, last)
		}
		list[f.Index], last = f.Err, f.Index
	}
	if n > partial.Failed[0].Index {
		t.Errorf("Write says that the first %d are delivered, and that message %d failed", n, partial.Failed[0].Index)
	}
}

// deliver writes until everything is delivered or given up, as the pump does, and
// returns what was given up: the messages that were rejected.
func (s *subject) deliver(t testing.TB, messages []sink.Message) (rejected []sink.Message) {
	t.Helper()
	deadline := time.Now().Add(s.Patience)
	rest := slices.Clone(messages)
	for pause := 5 * time.Millisecond; len(rest) > 0; pause = min(2*pause, 200*time.Millisecond) {
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		list := s.write(ctx, t, rest)
		cancel()
		var again []sink.Message
		var last error
		for i, m := range rest {
			switch {
			case list[i] == nil:
			case kindOf(list[i]) == sink.Rejected:
				rejected = append(rejected, m)
			default:
				m.Attempt++
				again, last = append(again, m), list[i]
			}
		}
		if len(again) > 0 && time.Now().After(deadline) {
			t.Fatalf("%d of %d messages were not delivered within %s: %v", len(again), len(messages), s.Patience, last)
		}
		if rest = again; len(rest) > 0 {
			<-time.After(pause)
		}
	}
	return rejected
}

// kindOf returns an error's kind.
func kindOf(err error) sink.Kind {
	if e, ok := errors.AsType[*sink.Error](err); ok {
		return e.Kind
	}
	return sink.Retry
}

// clean fails the test when an error tells what it must not.
func (s *suite) clean(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := fmt.Sprintf("%v\n%+v", err, err)
	if strings.TrimSpace(err.Error()) == "" {
		t.Errorf("an error says nothing: %#v", err)
	}
	if strings.Contains(text, canary) {
		t.Errorf("data of a record shows in an error: %s", strings.ReplaceAll(text, canary, "…"))
	}
	for _, secret := range s.Secrets {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("a secret shows in an error: %s", strings.ReplaceAll(text, secret, "…"))
		}
	}
}

// lend copies messages, so that their bytes can be spoiled when Write has returned.
func lend(messages []sink.Message) []sink.Message {
	list := slices.Clone(messages)
	for i, m := range list {
		list[i].PKs, list[i].Record, list[i].Body = bytes.Clone(m.PKs), bytes.Clone(m.Record), bytes.Clone(m.Body)
	}
	return list
}

func scribble(m sink.Message) {
	for _, b := range [][]byte{m.PKs, m.Record, m.Body} {
		for i := range b {
			b[i] = 'X'
		}
	}
}

func equal(a, b sink.Message) bool {
	same := bytes.Equal(a.PKs, b.PKs) && bytes.Equal(a.Record, b.Record) && bytes.Equal(a.Body, b.Body)
	a.PKs, a.Record, a.Body, b.PKs, b.Record, b.Body = nil, nil, nil, nil, nil, nil
	return same && fmt.Sprint(a) == fmt.Sprint(b)
}
