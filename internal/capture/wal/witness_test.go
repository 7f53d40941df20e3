package wal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// memoryWitness outlives the log.
type memoryWitness struct {
	mu    sync.Mutex
	saved []Witnessed
	fails int // saves that fail first
}

func (w *memoryWitness) Load(context.Context) (Witnessed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.saved) == 0 {
		return Witnessed{}, lockstep.ErrNotFound
	}
	return w.saved[len(w.saved)-1], nil
}

func (w *memoryWitness) Save(_ context.Context, now Witnessed) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails > 0 {
		w.fails--
		return errors.New("no place to write to")
	}
	w.saved = append(w.saved, now)
	return nil
}

// The stream's directory is gone, and all that was confirmed with it. The slot alone
// would go on as if nothing had been.
func TestLostLogIsAGap(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	witness := &memoryWitness{fails: 2}
	log := newMemoryLog(t)
	book := &gapBook{log: log}
	config := func(c *Config, _ *tuning) { c.Witness, c.Gap = witness, book.note }
	r := begin(t, url, log, config)
	equal(t, len(witness.saved), 1)
	created := witness.saved[0].CreatedLSN
	equal(t, witness.saved[0].Slot, r.config.Slot)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":1}`}) // a first start is no gap
	r.stop()

	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	log = newMemoryLog(t)
	book.log, book.fails = log, 1
	r = begin(t, url, log, config)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (3)")
	r.caughtUp()
	equal(t, gapOf(t, log), []string{"stream_lost", `{"id":2}`, `{"id":3}`})
	equal(t, book.all(), []string{"stream_lost from true"})
	r.stop()
	r = begin(t, url, log, config) // told once
	r.caughtUp()
	equal(t, len(log.rows(t)), 3)
	r.stop()

	// The slot went too.
	pgtest.Exec(t, url, "SELECT pg_drop_replication_slot('"+r.config.Slot+"')")
	log = newMemoryLog(t)
	book.log = log
	r = begin(t, url, log, config)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (4)")
	r.caughtUp()
	equal(t, gapOf(t, log), []string{"stream_lost", `{"id":4}`})
	equal(t, len(witness.saved), 1)
	equal(t, witness.saved[0].CreatedLSN, created)
}

// What was read from the slot and never confirmed comes again: nothing is missing.
func TestLostLogOfASlotThatNeverMovedIsNoGap(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	witness := &memoryWitness{}
	log := newMemoryLog(t)
	log.stop() // the first mark never gets to the disk
	r := launch(t, url, log, func(c *Config, _ *tuning) { c.Witness = witness })
	pgtest.Eventually(t, 20*time.Second, "the slot is there, and somebody has seen it", func() bool {
		known, err := witness.Load(t.Context())
		return err == nil && known.CreatedLSN != 0
	})
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	r.stop()
	log = newMemoryLog(t)
	r = begin(t, url, log, func(c *Config, _ *tuning) { c.Witness = witness })
	r.caughtUp()
	equal(t, gapOf(t, log), []string{`{"id":1}`})
}

// Without a witness the server's statistics are all there is.
func TestEmptyLogWithoutAWitness(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	pgtest.Exec(t, url, "SELECT pg_create_logical_replication_slot('"+slotOf(url)+"', 'pgoutput')", "INSERT INTO a VALUES (1)")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	r.caughtUp()
	equal(t, gapOf(t, log), []string{`{"id":1}`}) // made by hand
	r.stop()
	pgtest.Eventually(t, 20*time.Second, "the server has counted what was read", func() bool {
		return pgtest.Query(t, url, "SELECT total_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = $1::text", r.config.Slot)[0][0] == "t"
	})
	log = newMemoryLog(t)
	r = begin(t, url, log)
	r.caughtUp()
	equal(t, gapOf(t, log), []string{"stream_lost"})
}

func TestWhatALostLogLacks(t *testing.T) {
	t.Parallel()
	here := &wire{systemID: 7, timeline: 1}
	known := Witnessed{SystemID: 7, Timeline: 1, Slot: "s", CreatedLSN: 100}
	const lost, lostSinceCreated = "stream_lost 0/0", "stream_lost 0/64"
	for _, c := range []struct {
		name  string
		known Witnessed
		slot  *slot
		want  string
	}{
		{"a first start", Witnessed{}, nil, " 0/0"},
		{"a slot made by hand", Witnessed{}, &slot{confirmed: 100}, " 0/0"},
		{"a slot that was read", Witnessed{}, &slot{confirmed: 100, decoded: true}, lost},
		{"as it was made", known, &slot{confirmed: 100}, " 0/0"},
		{"as it was made, and read without a confirmation", known, &slot{confirmed: 100, decoded: true}, " 0/0"},
		{"confirmed further", known, &slot{confirmed: 101}, lostSinceCreated},
		{"made anew before", known, &slot{confirmed: 99}, lostSinceCreated},
		{"without the slot", known, nil, lostSinceCreated},
		{"invalidated", known, &slot{confirmed: 100, walStatus: walLost}, lostSinceCreated},
		{"seen when it was in use", Witnessed{SystemID: 7, Timeline: 1, Slot: "s"}, &slot{confirmed: 100}, lost},
		{"promoted", Witnessed{SystemID: 7, Timeline: 2, Slot: "s", CreatedLSN: 100}, &slot{confirmed: 100}, lostSinceCreated},
		{"another slot", Witnessed{SystemID: 7, Timeline: 1, Slot: "t", CreatedLSN: 100}, &slot{confirmed: 100}, lostSinceCreated},
		{"another cluster", Witnessed{SystemID: 8, Timeline: 1, Slot: "s", CreatedLSN: 100}, &slot{confirmed: 100}, lost},
	} {
		g := c.known.lost(c.slot, here, "s")
		if got := fmt.Sprint(g.Reason, " ", g.From); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A log that was in use before there was a witness is seen from then on.
func TestLogInUseGetsAWitness(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	publishTables(t, url)
	log := newMemoryLog(t)
	begin(t, url, log).stop()
	witness := &memoryWitness{}
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.Witness = witness })
	mark := log.mark()
	equal(t, witness.saved, []Witnessed{{SystemID: mark.SystemID, Timeline: mark.Timeline, Slot: r.config.Slot}})
}
