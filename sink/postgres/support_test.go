package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// open makes a sink that is closed at the end of the test.
func open(t testing.TB, c Config) *Postgres {
	t.Helper()
	p, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return p
}

// change makes a message of public.orders, whose key is the record's id.
func change(seq uint64, action lockstep.Action, record string) sink.Message {
	var key struct {
		ID json.RawMessage `json:"id"`
	}
	_ = json.Unmarshal([]byte(record), &key)
	text := strings.Trim(string(key.ID), `"`)
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	m := sink.Message{
		Seq: seq, Key: h.Sum64(), Action: action, Database: "app", Schema: "public", Table: "orders",
		PKs: append(lockstep.AppendJSONString([]byte{'['}, text), ']'), IdempotencyKey: fmt.Sprintf("sys-1-%d-0", seq),
		CommitTime: time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC), Attempt: 1, Record: json.RawMessage(record),
	}
	if action.Whole() {
		m.PKs, m.Record = json.RawMessage(`[]`), json.RawMessage(`null`)
	}
	m.Body = fmt.Appendf(nil, `{"record":%s,"changes":null,"action":%q,"metadata":{"seq":%d}}`, m.Record, action, seq)
	return m
}

func upsert(seq uint64, record string) sink.Message { return change(seq, lockstep.Update, record) }

func remove(seq uint64, record string) sink.Message { return change(seq, lockstep.Delete, record) }

// write delivers everything.
func write(t testing.TB, p *Postgres, messages ...sink.Message) {
	t.Helper()
	if n, err := p.Write(t.Context(), messages); err != nil || n != len(messages) {
		t.Fatalf("delivered %d of %d: %v", n, len(messages), err)
	}
}

// refused returns the error of a message that is not delivered.
func refused(t testing.TB, p *Postgres, kind sink.Kind, m sink.Message) string {
	t.Helper()
	n, err := p.Write(t.Context(), []sink.Message{m})
	var e *sink.Error
	if n != 0 || !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("got %d and %v, want an error of kind %s", n, err, kind)
	}
	return err.Error()
}

// rows returns a table's rows as text, one per line.
func rows(t testing.TB, url, sql string) string {
	t.Helper()
	var lines []string
	for _, r := range pgtest.Query(t, url, sql) {
		lines = append(lines, strings.Join(r, " "))
	}
	return strings.Join(lines, "\n")
}

func same(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func contains(t testing.TB, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("got %q, want %q in it", text, part)
	}
}
