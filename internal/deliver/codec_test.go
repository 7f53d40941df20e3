package deliver

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lockstep"
)

func sampleState() state {
	return state{
		node: 1 << 60, epoch: 7, minEpoch: 3, head: 1000, acked: 900, parked: 4,
		entries: []savedEntry{
			{seq: 5, key: 5, table: 77}, {seq: 9, key: 1 << 63, table: 78, attempts: 3, at: 1_790_000_000_000_000_000, flags: again | unchecked},
			{seq: 10, key: 4, table: 77, flags: isBarrier, blocked: true},
		},
		keys: []savedScope{{1, 2, 3, 4}}, tables: []savedScope{{5, 5, 6, 7}}, parkedKeys: []savedParked{{8, 9, 10}}, fresh: []savedFresh{{11, 12}},
		end: 1001, endLSN: 1 << 40, clock: 1_789_999_999_000_000_000,
		gaps: []savedGap{{13, 14, 15, byDamage}}, spent: []uint64{16}, winners: []winner{{seq: 17, epoch: 6, delivery: 18}}, epochs: []epochHead{{epoch: 6, head: 500, open: []uint64{3, 499}, keys: []savedScope{{1, 2, 3, 4}}}, {epoch: 7, head: 900, tables: []savedScope{{5, 5, 6, 7}}}},
	}
}

func options() cmp.Option {
	return cmp.Exporter(func(reflect.Type) bool { return true })
}

func TestStateComesBackAsItWasSaved(t *testing.T) {
	t.Parallel()
	for _, s := range []state{sampleState(), {}} {
		got, err := parseState(s.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got, options()); diff != "" {
			t.Errorf("state differs (-want +got):\n%s", diff)
		}
	}
}

// A wall clock that was set back while the node was down must not hold a key until the
// old clock's time; one that went on changes nothing.
func TestWaitIsNoLongerThanWhatWasLeftOfItWhateverTheClockSays(t *testing.T) {
	t.Parallel()
	const noon = int64(1_790_000_000_000_000_000)
	hour, minute := int64(time.Hour), int64(time.Minute)
	p := policy{ackWait: time.Hour, maxInFlight: 10, backoff: Backoff{First: 10 * time.Minute, Max: 10 * time.Minute}}
	for name, c := range map[string]struct{ down, wait int64 }{
		"the clock went on":         {down: 4 * minute, wait: 6 * minute},
		"the wait is long over":     {down: hour, wait: 0},
		"the clock was set back":    {down: -5 * hour, wait: 10 * minute},
		"the clock was set to 1970": {down: 1 - noon, wait: 10 * minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWindow(p, 1, rand.Float64)
			w.insert(1, w.keyFor(7, w.tableFor(8)), 0)
			w.place(0)
			h := w.take(noon, 1, "")
			if v := w.nack(h[0].token(w.epoch), NackOptions{}, map[uint64]uint64{}); v != applied {
				t.Fatalf("nack: verdict %v", v)
			}
			var s state
			w.snapshot(&s)
			s, err := parseState(s.append(nil))
			if err != nil {
				t.Fatal(err)
			}
			now := noon + c.down
			restored := restore(s, p, now, rand.Float64)
			restored.expire(now)
			if wait := max(restored.wake()-now, 0); wait != c.wait {
				t.Errorf("waits %v, want %v", time.Duration(wait), time.Duration(c.wait))
			}
		})
	}
}

// Two kills, and between them somebody else settles what a worker had in hand: however
// much that was, the worker's late ack is refused, and the other's repeated one is not.
func TestLateAcksOfAnEarlierProcessAreStaleHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	const n = 5000
	p := policy{ackWait: time.Hour, maxInFlight: 2 * n}
	w := newWindow(p, 1, rand.Float64)
	read := func() {
		for seq := w.head; seq <= n; seq++ {
			w.insert(seq, w.keyFor(seq, w.tableFor(8)), 0)
			w.place(w.keyOf[seq])
		}
		w.head = n + 1
	}
	kill := func() {
		var s state
		w.saved(0, w.snapshot(&s))
		s, err := parseState(s.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		w = restore(s, p, 0, rand.Float64)
	}
	hold := func() (tokens []token) {
		read()
		for _, h := range w.take(0, n, "") {
			tokens = append(tokens, h.token(w.epoch))
		}
		return tokens
	}
	ack := func(when string, tokens []token, want ...verdict) {
		t.Helper()
		for _, tok := range tokens {
			if v := w.ack(tok); !slices.Contains(want, v) {
				t.Fatalf("%s: ack of change %d: verdict %d, want one of %d", when, tok.seq, v, want)
			}
		}
	}
	var settledFirst, lost []token
	for i, tok := range hold() {
		if i%2 == 0 {
			lost = append(lost, tok)
		} else {
			settledFirst = append(settledFirst, tok)
		}
	}
	ack("before the kill", settledFirst, applied)
	kill()
	again := hold()
	if len(again) != len(lost) {
		t.Fatalf("%d changes come again, want %d", len(again), len(lost))
	}
	ack("after the kill", again, applied)
	kill()
	ack("of the process before the last", lost, stale)
	ack("repeated", again, settled)
	ack("repeated, of the process before the last", settledFirst, settled)
}

func TestStateOfAnOlderVersionIsRead(t *testing.T) {
	t.Parallel()
	want := sampleState()
	now := want.append(nil)
	since := len(appendLeftOpen(binary.AppendUvarint(nil, uint64(want.clock/1e6)), want.epochs))
	older := withChecksum(append([]byte{2}, now[1:len(now)-4-since]...))
	want.clock, want.epochs = 0, []epochHead{{epoch: 6, head: 500}, {epoch: 7, head: 900}}
	got, err := parseState(older)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, options()); diff != "" {
		t.Errorf("state differs (-want +got):\n%s", diff)
	}
}

func TestStateNoticesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	sample := sampleState()
	data := sample.append(nil)
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			if _, err := parseState(data); !errors.Is(err, lockstep.ErrCorrupt) {
				t.Fatalf("bit %d of byte %d flipped: got error %v, want ErrCorrupt", bit, i, err)
			}
			data[i] ^= 1 << bit
		}
	}
	for n := range data {
		if _, err := parseState(data[:n]); !errors.Is(err, lockstep.ErrCorrupt) {
			t.Fatalf("cut after %d bytes: got error %v, want ErrCorrupt", n, err)
		}
	}
}

func FuzzParseState(f *testing.F) {
	sample := sampleState()
	f.Add(sample.append(nil)[:len(sample.append(nil))-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		// The checksum is made right, so that what is behind it is tried.
		s, err := parseState(withChecksum(body))
		if err != nil {
			return
		}
		again, err := parseState(s.append(nil))
		if err != nil {
			t.Fatalf("what was parsed cannot be saved: %v", err)
		}
		if diff := cmp.Diff(s, again, options()); diff != "" {
			t.Fatalf("state differs (-want +got):\n%s", diff)
		}
		w := restore(s, policy{ackWait: time.Second, maxInFlight: 10, onExhausted: Park, maxAttempts: 2}, 1, rand.Float64)
		w.take(2, 10, "")
		w.beginRefill()
		w.refilled(w.head)
		w.snapshot(&s)
	})
}

func TestTokenComesBackAndIsBoundToItsConsumer(t *testing.T) {
	t.Parallel()
	secret := []byte("0123456789abcdef")
	one, other, elsewhere := newSigner(secret, "one"), newSigner(secret, "other"), newSigner([]byte("fedcba9876543210"), "one")
	rapid.Check(t, func(t *rapid.T) {
		want := token{
			epoch: rapid.Uint32().Draw(t, "epoch"), slot: rapid.Int32().Draw(t, "slot"), seq: rapid.Uint64().Draw(t, "seq"),
			delivery: rapid.Uint64().Draw(t, "delivery"), key: rapid.Uint64().Draw(t, "key"), table: rapid.Uint32().Draw(t, "table"),
		}
		text := string(one.append(nil, want))
		if len(text) != tokenText {
			t.Fatalf("%d characters, want %d", len(text), tokenText)
		}
		got, ours, err := one.parse(text)
		if err != nil || !ours || got != want {
			t.Fatalf("got %+v, %v, error %v; want %+v", got, ours, err, want)
		}
		for _, s := range []*signer{other, elsewhere} {
			if _, ours, err := s.parse(text); ours || err != nil {
				t.Fatalf("taken for its own: %v, error %v", ours, err)
			}
		}
	})
}

func FuzzParseToken(f *testing.F) {
	s := newSigner([]byte("0123456789abcdef"), "one")
	f.Add(string(s.append(nil, token{epoch: 1, slot: -1, seq: 2, delivery: 3, key: 4, table: 5})))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		tok, ours, err := s.parse(text)
		if err != nil || !ours {
			return
		}
		if string(s.append(nil, tok)) != text {
			t.Fatalf("%q is a second text of one token", text)
		}
		newWindow(policy{}, 1, rand.Float64).ack(tok)
	})
}

func TestColumnsOfARowAreFoundWhateverItHolds(t *testing.T) {
	t.Parallel()
	m := &matcher{columns: [][]byte{[]byte(`"tenant"`)}}
	same := m.columnsHash([]byte(`{"tenant":"x"}`))
	for _, row := range []string{
		`{"id":1,"tenant":"x"}`, `{"a":"\"tenant\":\"y\"","tenant":"x"}`, `{"n":{"tenant":"y","l":[1,{"tenant":2}]},"tenant":"x","z":null}`,
	} {
		if m.columnsHash([]byte(row)) != same {
			t.Errorf("%s: another tenant", row)
		}
	}
	none := m.columnsHash(nil)
	for _, row := range []string{`{}`, `{"tenant":null}`, `{"id":1}`} {
		if m.columnsHash([]byte(row)) != none {
			t.Errorf("%s: not null", row)
		}
	}
	if none == same || m.columnsHash([]byte(`{"tenant":"null"}`)) == none {
		t.Error("null is a value")
	}
}

func FuzzColumnsHash(f *testing.F) {
	m := &matcher{columns: [][]byte{[]byte(`"a"`), []byte(`"b"`)}}
	f.Add([]byte(`{"a":1,"b":[{"c":"\\"}]}`))
	f.Fuzz(func(_ *testing.T, row []byte) { m.columnsHash(row) })
}
