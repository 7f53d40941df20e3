package deliver_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lockstep"
	"lockstep/internal/deliver"
)

var errLost = errors.New("the disk lost it")

// damage changes what is stored of a consumer that was stopped.
func (s *memStates) damage(id string, change func(value []byte) []byte, lost error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[id] = change(s.values[id]); s.values[id] == nil {
		delete(s.values, id)
		delete(s.revisions, id)
	}
	if lost != nil {
		s.lostIDs[id] = lost
	}
}

// wantGap takes the gap that comes before everything else, and acks it.
func wantGap(t *testing.T, c *deliver.Consumer, contains ...string) {
	t.Helper()
	ds := next(t, c, 10)
	if len(ds) != 1 || ds[0].Record.Action() != lockstep.Gap {
		t.Fatalf("got %q, want a gap alone", show(ds))
	}
	text := string(c.AppendDelivery(nil, ds[0]))
	for _, part := range append(contains, `"reason":"damaged"`) {
		if !strings.Contains(text, part) {
			t.Errorf("the gap %s lacks %s", text, part)
		}
	}
	ack(t, c, ds[0])
}

func keysTo(n int) []row {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = strconv.Itoa(i + 1)
	}
	return ins(keys...)
}

func TestLostStateIsToldAndNothingIsLeftOut(t *testing.T) {
	t.Parallel()
	gone := func([]byte) []byte { return nil }
	for _, c := range []struct {
		name   string
		damage func(older []byte) func([]byte) []byte
		lost   error
	}{
		{"gone", func([]byte) func([]byte) []byte { return gone }, errLost},
		{"older", func(older []byte) func([]byte) []byte { return func([]byte) []byte { return older } }, errLost},
		{"not what was written", func([]byte) func([]byte) []byte {
			return func(v []byte) []byte { v[len(v)/2] ^= 1; return v }
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.log.append(t, keysTo(8)...)
			d := definition(func(d *deliver.Definition) { d.Start = "seq:1" })
			r.put(d)
			older, _, _ := r.states.Load(t.Context(), d.ID)
			consumer := r.restart(d) // another era begins
			ack(t, consumer, next(t, consumer, 3)...)
			left := next(t, consumer, 1)
			ack(t, consumer, next(t, consumer, 1)...) // 5, above the floor
			r.stop()
			r.states.damage(d.ID, c.damage(older), c.lost)
			consumer = r.restart(d)
			wantGap(t, consumer, `"missed":0`, `"next_seq":4`)
			ds := next(t, consumer, 10)
			want(t, "after the gap", ds, "4@4 5@5 6@6 7@7 8@8")
			wantStale(t, consumer, left...)
			ack(t, consumer, ds...)
			want(t, "after a restart", next(t, r.restart(d), 10), "")
		})
	}
}

func TestOlderStateOfTheSameEraIsUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, keysTo(8)...)
	d := definition(nil)
	c := r.put(d)
	ds := next(t, c, 6)
	ack(t, c, ds[1], ds[2], ds[4])
	older, _, _ := r.states.Load(t.Context(), d.ID)
	ack(t, c, ds[3])
	r.stop()
	r.states.damage(d.ID, func([]byte) []byte { return older }, errLost)
	c = r.restart(d)
	wantGap(t, c, `"missed":0`, `"next_seq":1`)
	want(t, "after the gap", next(t, c, 10), "1@1 4@4 6@6 7@7 8@8")
	wantStale(t, c, ds[0], ds[3])
}

func TestLostStateOfWhichNothingWasSettledBeginsWithTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	d := definition(nil)
	r.put(d)
	r.stop()
	r.states.damage(d.ID, func([]byte) []byte { return nil }, errLost)
	r.restart(d)
	c := r.restart(d) // the gap outlives a restart
	wantGap(t, c, `"next_seq":1`)
	want(t, "after the gap", next(t, c, 10), "a@1 b@2")
}

func TestStateOfANewerVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(nil)
	r.put(d)
	r.stop()
	r.states.damage(d.ID, func([]byte) []byte {
		newer := []byte{99, 1, 2, 3}
		return binary.LittleEndian.AppendUint32(newer, crc32.Checksum(newer, crc32.MakeTable(crc32.Castagnoli)))
	}, nil)
	r.start()
	_, err := r.broker.Put(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got error %v", err)
	}
}

func TestLogThatLostItsEndIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 4 {
		r.log.append(t, ins("a", "b")...) // one transaction each
	}
	d := definition(nil)
	c := r.put(d)
	ack(t, c, next(t, c, 1)...) // a@1 and, of the same key, whatever goes with it
	ack(t, c, next(t, c, 10)...)
	r.log.append(t, ins("c", "d")...)
	ds := next(t, c, 10)
	want(t, "the last", ds, "c@9 d@10")
	ack(t, c, ds[0])
	r.stop()
	r.log.cut(2) // of the batches; 4 changes are left
	c = r.restart(d)
	wantGap(t, c, `"missed":1`, `"next_seq":5`)
	want(t, "nothing is there yet", next(t, c, 10), "")
	wantStale(t, c, ds[1])
	r.log.append(t, ins("e")...)
	want(t, "what comes", await(t, c, 10), "e@5")
}

func TestConsumerBeyondTheEndOfAnotherLogSeesAllOfIt(t *testing.T) {
	t.Parallel()
	for _, changes := range []int{0, 2} { // what the new log holds already
		r := newRig(t)
		for range 4 {
			r.log.append(t, ins("a", "b")...)
		}
		d := definition(nil)
		c := r.put(d)
		ack(t, c, next(t, c, 7)...)
		r.stop()
		r.log.cut(0)
		r.log.position = 1000
		for range changes {
			r.log.append(t, ins("x")...)
		}
		c = r.restart(d)
		wantGap(t, c, `"missed":1`, `"next_seq":1`)
		for range 3 - changes {
			r.log.append(t, ins("x")...)
		}
		ds := await(t, c, 1)
		want(t, "of the new log", ds, "x@1")
		ack(t, c, ds...)
		want(t, "of the new log", next(t, r.restart(d), 10), "x@2 x@3")
	}
}

func TestPlaceAheadOfTheLogIsNoDamage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a")...)
	d := definition(func(d *deliver.Definition) { d.Start = "seq:3" })
	r.put(d)
	c := r.restart(d)
	want(t, "before its place", next(t, c, 10), "")
	r.log.append(t, ins("b", "c")...)
	want(t, "at its place", await(t, c, 10), "c@3")
}

func TestRealStreamTellsOfALostState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := definition(nil)
	r, err := openReal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := fillReal(t.Context(), r.log, 100, 10, 100); err != nil {
		t.Fatal(err)
	}
	stop := run(t, r.broker)
	c, err := r.broker.Put(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	ack(t, c, next(t, c, 40)...)
	stop()
	if err := r.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "jetstream", "$G", "streams", "KV_lockstep-state")); err != nil {
		t.Fatal(err)
	}
	for begun := range 2 {
		r, err = openReal(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		stop = run(t, r.broker)
		if c, err = r.broker.Put(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if begun == 0 {
			wantGap(t, c, `"next_seq":41`)
			ack(t, c, next(t, c, 10)...)
		} else if ds := next(t, c, 1); ds[0].Record.Seq() != 51 {
			t.Errorf("after the gap was acked, and ten changes: %s", show(ds))
		}
		stop()
		if err := r.server.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
