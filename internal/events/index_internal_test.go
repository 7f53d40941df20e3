package events

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"lockstep"
)

// arrayLog is a log of batches in memory that does not grow.
type arrayLog struct {
	batches []*lockstep.Batch
	first   uint64
	reads   int
}

func (l *arrayLog) First() uint64 { return l.first }
func (l *arrayLog) Last() lockstep.Mark {
	return l.batches[len(l.batches)-1].Mark
}

func (l *arrayLog) ReadFrom(seq uint64) Reader { return &arrayReader{l, seq} }

type arrayReader struct {
	log  *arrayLog
	next uint64
}

func (r *arrayReader) Close() {}

func (r *arrayReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	if r.next < r.log.first {
		return nil, &lockstep.RetentionError{Asked: r.next, First: r.log.first}
	}
	for low, high := 0, len(r.log.batches); low < high; {
		middle := (low + high) / 2
		b := r.log.batches[middle]
		switch {
		case b.Mark.Seq < r.next:
			low = middle + 1
		case b.First > r.next:
			high = middle
		default:
			r.log.reads++
			r.next = b.Mark.Seq + 1
			return b, nil
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// filled makes a log of batches of so many changes; ids[i] is the id of the event with
// seq i+1, empty: a change of another table.
func filled(t testing.TB, ids []string, size int) *arrayLog {
	t.Helper()
	l := &arrayLog{first: 1}
	own, foreign := &lockstep.Table{OID: 1, Schema: "public", Name: "events"}, &lockstep.Table{OID: 2, Schema: "public", Name: "x"}
	for at := 0; at < len(ids); at += size {
		var w lockstep.BatchWriter
		w.Reset(nil)
		w.Begin(lockstep.Tx{})
		for _, id := range ids[at:min(at+size, len(ids))] {
			table, row := own, fmt.Sprintf(`{"id":%s,"type":"a","subscriber":"s","payload":1}`, id)
			if id == "" {
				table, row = foreign, `{"id":7}`
			}
			w.Close(append(w.Open(), row...), lockstep.RecordHead{Action: lockstep.Insert, Table: w.Table(table), RecordLen: len(row)})
		}
		data, err := w.Seal(uint64(at)+1, lockstep.Mark{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := lockstep.ParseBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		l.batches = append(l.batches, b)
	}
	return l
}

func indexOf(l Log, limits Limits) *index {
	s := New(Config{Log: func(string) (Log, error) { return l, nil }, Limits: limits})
	return newFeed(s, "app", Table{"public", "events"}, l).index
}

// disorder makes ids that grow as those of a sequence do, with transactions of every
// length, and other changes between.
func disorder(n int) []string {
	ids := make([]string, 0, 2*n)
	var late []string
	for id := 1; id <= n; id++ {
		switch {
		case rand.IntN(50) == 0:
			late = append(late, fmt.Sprint(id))
		case rand.IntN(10) != 0: // the others were rolled back
			ids = append(ids, fmt.Sprint(id))
		}
		if len(late) > 0 && rand.IntN(100) == 0 {
			ids, late = append(ids, late...), nil
		}
		if rand.IntN(2) == 0 {
			ids = append(ids, "")
		}
	}
	return append(ids, late...)
}

func TestEveryIDIsFoundAndNoOther(t *testing.T) {
	t.Parallel()
	uuids := make([]string, 2000)
	for i := range uuids {
		uuids[i] = fmt.Sprintf(`"%08x-0000-4000-8000-000000000000"`, rand.Uint32())
	}
	texts := make([]string, 2000)
	for i := range texts {
		texts[i] = fmt.Sprintf(`"%d"`, i+1) // int8: string
	}
	backwards := make([]string, 2000)
	for i := range backwards {
		backwards[i] = fmt.Sprint(2000 - i)
	}
	for name, ids := range map[string][]string{"a sequence": disorder(3000), "uuids": uuids, "numbers as text": texts, "backwards": backwards} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := filled(t, ids, 7)
			for _, limits := range []Limits{{Stretch: 8, Stretches: 16, Stride: 64}, {Stretch: 4, Stride: 16}, {}} {
				x := indexOf(l, limits)
				for range 200 {
					at := rand.IntN(len(ids))
					if ids[at] == "" {
						continue
					}
					id := strings.Trim(ids[at], `"`)
					if seq, found, err := x.find(t.Context(), id); err != nil || !found || seq != uint64(at)+1 {
						t.Fatalf("id %s: %d, %v, %v; it is at %d", id, seq, found, err, at+1)
					}
				}
				for _, id := range []string{"0", "-1", "99999999", "x", "3x", "1.0"} {
					if seq, found, err := x.find(t.Context(), id); err != nil || found {
						t.Errorf("id %s: %d, %v, %v; there is none", id, seq, found, err)
					}
				}
				if n := len(x.stretches); n > x.feed.server.config.Limits.Stretches {
					t.Errorf("%d stretches are kept", n)
				}
			}
		})
	}
}

func TestWhatRetentionRemovedIsNotFound(t *testing.T) {
	t.Parallel()
	ids := disorder(3000)
	l := filled(t, ids, 5)
	x := indexOf(l, Limits{Stretch: 8, Stride: 64})
	if _, found, _ := x.find(t.Context(), "nothing"); found {
		t.Error("nothing is found")
	}
	l.first = 2001
	for at, id := range ids {
		if id == "" || at%17 != 0 {
			continue
		}
		if _, found, err := x.find(t.Context(), id); err != nil || found != (at >= 2000) {
			t.Fatalf("the id at %d: %v, %v; the log begins at 2001", at+1, found, err)
		}
	}
	if len(x.stretches) > 0 && x.stretches[0].last < 2001 {
		t.Error("stretches that were removed are kept")
	}
}

// Whatever is read for it, and from wherever, the index has no holes.
func TestTheIndexHasNoHoles(t *testing.T) {
	t.Parallel()
	for range 30 {
		ids := disorder(300)
		l := filled(t, ids, 10)
		whole := l.batches
		x := indexOf(l, Limits{Stretch: 4, Stride: 16, Stretches: 32})
		for n := range whole {
			l.batches = whole[:n+1]
			b := whole[n]
			middle := b.First + rand.Uint64N(uint64(b.Len())) // of a batch, as a place may lie
			switch rand.IntN(5) {
			case 0: // a reader that begins there
				x.note(b, appendRows(nil, b, x.feed.table, middle), middle)
			case 1:
				x.note(b, appendRows(nil, b, x.feed.table, b.First), b.First)
			case 2:
				_ = x.before(t.Context(), middle)
			case 3:
				if _, _, err := x.find(t.Context(), "nothing"); err != nil {
					t.Fatal(err)
				}
			}
		}
		for at, id := range ids {
			if id == "" {
				continue
			}
			if seq, found, err := x.find(t.Context(), id); err != nil || !found || seq != uint64(at)+1 {
				t.Fatalf("id %s: %d, %v, %v; it is at %d", id, seq, found, err, at+1)
			}
			want := ""
			for i := at; i >= 0 && want == ""; i-- {
				want = ids[i]
			}
			if got := x.before(t.Context(), uint64(at)+2); string(got) != want && got != nil {
				t.Fatalf("before %d is id %s, want %s", at+2, got, want)
			}
		}
	}
}

// An id of long ago is found without reading everything behind it.
func TestAnOldIDIsGuessed(t *testing.T) {
	t.Parallel()
	ids := disorder(50_000)
	l := filled(t, ids, 100)
	x := indexOf(l, Limits{Stride: 250, Stretch: 100})
	at := len(ids) / 10
	for ids[at] == "" {
		at++
	}
	seq, found, err := x.find(t.Context(), ids[at])
	if err != nil || !found || seq != uint64(at)+1 {
		t.Fatalf("%d, %v, %v; it is at %d", seq, found, err, at+1)
	}
	if l.reads > len(l.batches)/10 {
		t.Errorf("%d of %d batches were read", l.reads, len(l.batches))
	}
}

// lines reads a stream as a client does: blocks of fields.
func lines(t *testing.T, stream []byte) (blocks []map[string]string) {
	t.Helper()
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(stream))
	if !strings.HasSuffix(text, "\n\n") {
		t.Fatalf("the stream ends within an event: %q", stream)
	}
	for block := range strings.SplitSeq(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		fields := map[string]string{}
		for line := range strings.SplitSeq(block, "\n") {
			name, value, ok := strings.Cut(line, ":")
			if _, twice := fields[name]; twice || !ok {
				t.Fatalf("line %q in %q", line, block)
			}
			fields[name] = strings.TrimPrefix(value, " ")
		}
		blocks = append(blocks, fields)
	}
	return blocks
}

// Whatever stands in a row, it is one event, and what comes back is what was sent.
func FuzzEvents(f *testing.F) {
	f.Add("1", "made", "toto", `{"a": 1}`)
	f.Add("a\nid: 2", "x\ndata: 1\n\n", "\x00", "[1,\n2]")
	f.Add("\r", "\r\n", "é\"\\", "null")
	f.Add(" 1", "", "", `"\u2028"`)
	f.Fuzz(func(t *testing.T, id, kind, subscriber, payload string) {
		if !json.Valid([]byte(payload)) {
			return
		}
		row := append([]byte(`{"id": `), lockstep.AppendJSONString(nil, id)...)
		row = append(lockstep.AppendJSONString(append(row, `,"type":`...), kind), `,"x":{"id":[1,"]"]},"subscriber":`...)
		row = append(append(append(lockstep.AppendJSONString(row, subscriber), `, "payload" :`...), payload...), '}')
		var w lockstep.BatchWriter
		w.Reset(nil)
		w.Begin(lockstep.Tx{})
		w.Close(append(w.Open(), row...), lockstep.RecordHead{Action: lockstep.Insert, Table: w.Table(&lockstep.Table{OID: 1, Schema: "s", Name: "e"}), RecordLen: len(row)})
		data, err := w.Seal(1, lockstep.Mark{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := lockstep.ParseBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		rows := appendRows(nil, b, Table{"s", "e"}, 0)
		if len(rows) != 1 || rows[0].lacks != "" {
			t.Fatalf("%s: %+v", row, rows)
		}
		var want struct{ ID, Subscriber string }
		if err := json.Unmarshal(row, &want); err != nil {
			t.Fatal(err)
		}
		if string(rows[0].id) != want.ID || string(rows[0].subscriber) != want.Subscriber {
			t.Fatalf("%s: id %q, subscriber %q", row, rows[0].id, rows[0].subscriber)
		}
		blocks := lines(t, appendEvent(nil, &rows[0]))
		if len(blocks) != 1 {
			t.Fatalf("%s: %d events", row, len(blocks))
		}
		got, ok := blocks[0]["id"]
		if ok != tellable(rows[0].id) || ok && got != want.ID {
			t.Errorf("%s: id %q", row, got)
		}
		if !sameJSON(blocks[0]["data"], payload) {
			t.Errorf("%s: data %q", row, blocks[0]["data"])
		}
		lines(t, appendGap(nil, gap{reason: "x", asked: []byte(id), seq: 1}, rows[0].id))
	})
}

func sameJSON(a, b string) bool {
	var one, two bytes.Buffer
	return json.Compact(&one, []byte(a)) == nil && json.Compact(&two, []byte(b)) == nil && one.String() == two.String()
}

// A row that cannot be read is no event, and no fault of ours.
func FuzzRow(f *testing.F) {
	f.Add([]byte(`{"id":1,"type":"a","subscriber":"s","payload":{}}`))
	f.Add([]byte(`{"id":`))
	f.Add([]byte(`{"id"}`))
	f.Add([]byte(`{"id":1,,"x":"\`))
	f.Fuzz(func(t *testing.T, object []byte) {
		each(object, func(name, value []byte) bool {
			_ = textOf(value)
			return len(name) < 100
		})
	})
}

func TestTablesAreNamedAsInSQL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Table{
		"events": {"public", "events"}, "shop.events": {"shop", "events"}, `"we.ird"."Ta""ble"`: {"we.ird", `Ta"ble`}, `shop."x"`: {"shop", "x"},
	} {
		if got, err := ParseTable(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a.b.c", `"a`, `"a"b`, `a"b`, `""`} {
		if got, err := ParseTable(text); err == nil {
			t.Errorf("%s: %v, want an error", text, got)
		}
	}
}
