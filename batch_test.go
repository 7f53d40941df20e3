package lockstep_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
)

var orders = &lockstep.Table{OID: 16400, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}

// add appends one change as capture does: the parts in order, their lengths in the head.
func add(w *lockstep.BatchWriter, t *lockstep.Table, a lockstep.Action, idx uint32, row, changes, pks, extra string) {
	buf := w.Open()
	buf = append(append(append(append(buf, row...), changes...), pks...), extra...)
	w.Close(buf, lockstep.RecordHead{
		Action: a, OldKnown: changes != "", Table: w.Table(t), CommitIdx: idx, KeyHash: lockstep.KeyHashPart(lockstep.KeyHash(t), []byte(pks)),
		RecordLen: len(row), ChangesLen: len(changes), PKsLen: len(pks), ExtraLen: len(extra),
	})
}

func sampleMark() lockstep.Mark {
	return lockstep.Mark{SystemID: 7300000000000000001, Timeline: 1, CommitLSN: 0x16B3748, Ordinal: 9, CommitIdx: 1, EndLSN: 0x16B3800, Complete: true}
}

func sealSample(t testing.TB) []byte {
	t.Helper()
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 0x16B3748, CommitTime: 1790000000123456, XID: 733, Annotations: []byte(`{"who":"ann"}`)})
	add(&w, orders, lockstep.Insert, 0, `{"id":7,"amount":"12.50"}`, ``, `["7"]`, ``)
	add(&w, orders, lockstep.Update, 1, `{"id":7}`, `{"amount":"10.00"}`, `["7"]`, `,"unchanged":["body"]`)
	add(&w, &lockstep.Table{Schema: "o\"dd", Name: "täble", Key: lockstep.KeyRow}, lockstep.Truncate, 2, ``, ``, ``, ``)
	data, err := w.Seal(41, sampleMark())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBatchGivesBackWhatWasWritten(t *testing.T) {
	t.Parallel()
	b, err := lockstep.ParseBatch(sealSample(t))
	if err != nil {
		t.Fatal(err)
	}
	want := sampleMark()
	want.Seq = 43
	if diff := cmp.Diff(want, b.Mark); diff != "" {
		t.Errorf("mark differs (-want +got):\n%s", diff)
	}
	if b.First != 41 || b.Len() != 3 {
		t.Fatalf("got first %d, %d changes; want 41 and 3", b.First, b.Len())
	}
	r := b.Record(1)
	got := []any{r.Seq(), r.Action(), r.OldKnown(), r.Table().String(), r.Tx().XID, r.CommitIdx(), string(r.Row()), string(r.Changes()), string(r.PKs()), string(r.Extra())}
	if diff := cmp.Diff([]any{uint64(42), lockstep.Update, true, "public.orders", uint32(733), uint32(1), `{"id":7}`, `{"amount":"10.00"}`, `["7"]`, `,"unchanged":["body"]`}, got); diff != "" {
		t.Errorf("record differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]uint32{{0, 1}, {2}}, [][]uint32{b.OfTable(0), b.OfTable(1)}); diff != "" {
		t.Errorf("records by table differ:\n%s", diff)
	}
	if _, ok := b.Find(44); ok {
		t.Error("found a change behind the last one")
	}
	if r, ok := b.Find(41); !ok || r.Seq() != 41 {
		t.Errorf("Find(41) = %v, %v", r.Seq(), ok)
	}
}

// sealAddressed is a batch of rows for one consumer, for everybody, and with a note
// of whoever put them there.
func sealAddressed(t testing.TB) []byte {
	t.Helper()
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 5, CommitTime: 1790000000123456})
	for i, one := range addressed() {
		add(&w, &one, lockstep.Read, uint32(i), `{"id":7}`, ``, `["7"]`, `,"backfill":{"id":"b1"}`)
	}
	data, err := w.Seal(10, sampleMark())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func addressed() []lockstep.Table {
	var tables []lockstep.Table
	for _, to := range []struct{ consumer, progress string }{
		{}, {"0190b0e1-1c1c-7000-8000-000000000001", ""}, {"", "job 1, page 7"}, {"0190b0e1-1c1c-7000-8000-000000000001", strings.Repeat("p", 65_535)}, {"ü", "{\"after\":[\"\\u0000\"]}"},
	} {
		one := *orders
		one.Consumer, one.Progress = to.consumer, to.progress
		tables = append(tables, one)
	}
	return tables
}

func TestBatchKeepsWhomItsRowsAreForAndTheProgressNoted(t *testing.T) {
	t.Parallel()
	b, err := lockstep.ParseBatch(sealAddressed(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(addressed(), b.Tables()); diff != "" {
		t.Errorf("tables differ (-want +got):\n%s", diff)
	}
	for i, want := range addressed() {
		r := b.Record(i)
		if *r.Table() != want || r.Action() != lockstep.Read {
			t.Errorf("record %d is of %+v, want %+v", i, *r.Table(), want)
		}
		// It is a row of the same table, whomever it is for: its place in its key's
		// order depends on that.
		if lockstep.KeyHash(r.Table()) != lockstep.KeyHash(orders) {
			t.Errorf("record %d: whom a row is for is part of its key", i)
		}
		m := string(lockstep.AppendMessage(nil, r, lockstep.MessageOptions{}))
		if strings.Contains(m, "job 1") || strings.Contains(m, "ppp") || !strings.Contains(m, `"action":"read"`) || !strings.Contains(m, `,"backfill":{"id":"b1"}`) {
			t.Errorf("message %s", m)
		}
	}
}

func TestBatchWithoutChangesMovesTheMark(t *testing.T) {
	t.Parallel()
	var w lockstep.BatchWriter
	w.Reset(nil)
	data, err := w.Seal(10, sampleMark())
	if err != nil {
		t.Fatal(err)
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil || b.Len() != 0 || b.Mark.Seq != 9 {
		t.Fatalf("got %d changes up to seq %d, error %v; want none up to 9", b.Len(), b.Mark.Seq, err)
	}
}

func TestBatchNoticesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 5})
	one := *orders
	one.Consumer, one.Progress = "c1", "page 7"
	add(&w, &one, lockstep.Read, 0, `{"id":7}`, ``, `["7"]`, ``)
	short, err := w.Seal(10, sampleMark())
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{sealSample(t), short} {
		noticesDamage(t, data)
	}
}

func noticesDamage(t *testing.T, data []byte) {
	t.Helper()
	for i := range data {
		for bit := range 8 {
			damaged := append([]byte(nil), data...)
			damaged[i] ^= 1 << bit
			if _, err := lockstep.ParseBatch(damaged); !errors.Is(err, lockstep.ErrCorrupt) {
				t.Fatalf("bit %d of byte %d flipped: got error %v, want ErrCorrupt", bit, i, err)
			}
		}
	}
	for n := range data {
		if _, err := lockstep.ParseBatch(data[:n]); !errors.Is(err, lockstep.ErrCorrupt) {
			t.Fatalf("cut after %d bytes: got error %v, want ErrCorrupt", n, err)
		}
	}
}

func TestAbandonedRecordLeavesNoTrace(t *testing.T) {
	t.Parallel()
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 1})
	add(&w, orders, lockstep.Insert, 0, `{"id":1}`, ``, `["1"]`, ``)
	w.Abandon(append(w.Open(), "half a row"...))
	add(&w, orders, lockstep.Insert, 1, `{"id":2}`, ``, `["2"]`, ``)
	data, err := w.Seal(1, lockstep.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil || b.Len() != 2 || string(b.Record(1).Row()) != `{"id":2}` {
		t.Fatalf("got %v, error %v", b, err)
	}
}

func TestMessageHasTheContractsShape(t *testing.T) {
	t.Parallel()
	b, err := lockstep.ParseBatch(sealSample(t))
	if err != nil {
		t.Fatal(err)
	}
	got := string(lockstep.AppendMessage(nil, b.Record(1), lockstep.MessageOptions{Database: "app", ConsumerID: "c1", ConsumerName: "orders"}))
	want := `{"record":{"id":7},"changes":{"amount":"10.00"},"action":"update","metadata":{"database":"app","table_schema":"public","table_name":"orders",` +
		`"seq":42,"commit_lsn":23803720,"commit_idx":1,"commit_timestamp":"2026-09-21T14:13:20.123456Z","xid":733,"record_pks":["7"],"key_kind":"primary_key",` +
		`"idempotency_key":"1jgnsvwi7q0w1-1-e6708-1","origin":"user","old_known":true,"transaction_annotations":{"who":"ann"},"unchanged":["body"],"consumer":{"id":"c1","name":"orders"}}}`
	got = strings.Replace(got, string(lockstep.AppendIdempotencyKey(nil, b.Record(1))), "1jgnsvwi7q0w1-1-e6708-1", 1)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message differs (-want +got):\n%s", diff)
	}
	for i := range b.Len() {
		if m := lockstep.AppendMessage(nil, b.Record(i), lockstep.MessageOptions{Database: `a"b`, Late: true}); !json.Valid(m) {
			t.Errorf("change %d: not JSON: %s", i, m)
		}
	}
}

func TestTransformedRowHidesTheOldValues(t *testing.T) {
	t.Parallel()
	b, err := lockstep.ParseBatch(sealSample(t))
	if err != nil {
		t.Fatal(err)
	}
	m := lockstep.AppendMessage(nil, b.Record(1), lockstep.MessageOptions{Row: []byte(`"masked"`)})
	if !strings.HasPrefix(string(m), `{"record":"masked","changes":null,`) {
		t.Errorf("got %s", m)
	}
}

func TestIdempotencyKeysAreDistinctWithinOneTransaction(t *testing.T) {
	t.Parallel()
	b, err := lockstep.ParseBatch(sealSample(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range b.Len() {
		seen[string(lockstep.AppendIdempotencyKey(nil, b.Record(i)))] = true
	}
	if len(seen) != b.Len() {
		t.Errorf("%d keys for %d changes", len(seen), b.Len())
	}
}

func TestKeyHashTellsPartsApart(t *testing.T) {
	t.Parallel()
	hash := func(parts ...string) uint64 {
		h := lockstep.KeyHash(orders)
		for _, p := range parts {
			h = lockstep.KeyHashPart(h, []byte(p))
		}
		return h
	}
	if hash("a", "bc") == hash("ab", "c") || hash("") == lockstep.KeyHashNull(lockstep.KeyHash(orders)) {
		t.Error("different keys have one hash")
	}
	if got := hash("7"); got != hash("7") || got == lockstep.KeyHash(&lockstep.Table{Schema: "public", Name: "items"}) {
		t.Error("the hash is not a function of table and key")
	}
}

func TestRetryableAsksOnlyTheKind(t *testing.T) {
	t.Parallel()
	for _, err := range []error{lockstep.ErrInvalid, lockstep.ErrFenced, lockstep.ErrConflict} {
		if lockstep.Retryable(err) {
			t.Errorf("%v is retryable", err)
		}
	}
	// The errors of the network say of themselves that they are not temporary.
	if err := fmt.Errorf("write: %w", &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}); !lockstep.Retryable(err) {
		t.Errorf("%v is not retryable", err)
	}
	if !lockstep.Retryable(errors.New("connection reset")) || lockstep.Retryable(nil) {
		t.Error("an unknown error must be retryable, no error not")
	}
	if e := (&lockstep.RetentionError{Asked: 3, First: 10}); e.Missed() != 7 || !strings.Contains(e.Error(), "seq 10") {
		t.Errorf("got %v, missed %d", e, e.Missed())
	}
}

func TestLSNReadsAsPostgresWritesIt(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0/16B3748", "1A/0", "FFFFFFFF/FFFFFFFF"} {
		l, err := lockstep.ParseLSN(s)
		if err != nil || l.String() != s {
			t.Errorf("%s: got %s, error %v", s, l, err)
		}
	}
	if _, err := lockstep.ParseLSN("x"); err == nil {
		t.Error("x is a position")
	}
}

func FuzzParseBatch(f *testing.F) {
	f.Add(sealSample(f))
	f.Add(sealAddressed(f))
	f.Add([]byte("LSB\x01"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		b, err := lockstep.ParseBatch(data)
		if err != nil {
			return
		}
		for i := range b.Len() {
			lockstep.AppendMessage(nil, b.Record(i), lockstep.MessageOptions{})
		}
	})
}

func FuzzAppendJSONString(f *testing.F) {
	f.Add("a\"b\\c\n\x00\u2028é\xff😀")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(lockstep.AppendJSONString(nil, s), &got); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); len(strings.Split(s, "\uFFFD")) == 1 && strings.ReplaceAll(got, "\uFFFD", "") != strings.ReplaceAll(want, "\uFFFD", "") {
			t.Fatalf("%q came back as %q", s, got)
		}
	})
}

func BenchmarkAppendMessage(b *testing.B) {
	batch, err := lockstep.ParseBatch(sealSample(b))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	start := time.Now()
	for b.Loop() {
		buf = lockstep.AppendMessage(buf[:0], batch.Record(1), lockstep.MessageOptions{Database: "app", ConsumerID: "c1", ConsumerName: "orders"})
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "messages/s")
}
