package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// audit is what the workers have seen of rows whose version grows by one with each
// committed transaction.
type audit struct {
	mu      sync.Mutex
	version map[string]int      // row → highest version processed
	acked   map[uint64]string   // seq → row, for acks that were answered with success
	seqOf   map[string][]uint64 // row → seq of each of its versions
	faults  []string
	repeats int
}

func newAudit() *audit {
	return &audit{version: map[string]int{}, acked: map[uint64]string{}, seqOf: map[string][]uint64{}}
}

// process applies one delivery: each row's versions come one after the other, an
// acked change never again.
func (a *audit) process(d client.Delivery) {
	var row struct{ Version int }
	if err := json.Unmarshal(d.Record, &row); err != nil {
		a.fault("%s: %v", d.Record, err)
		return
	}
	key := d.Metadata.RecordPKs[0]
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.acked[d.Metadata.Seq]; ok {
		a.faultLocked("row %s: change %d came again after its ack", key, d.Metadata.Seq)
	}
	switch have := a.version[key]; {
	case row.Version == have+1:
		a.version[key] = row.Version
		a.seqOf[key] = append(a.seqOf[key], d.Metadata.Seq)
	case row.Version >= 1 && row.Version <= have && a.seqOf[key][row.Version-1] == d.Metadata.Seq:
		a.repeats++ // processed before a kill, and the ack never came about
	default:
		a.faultLocked("row %s: version %d (change %d) came after version %d", key, row.Version, d.Metadata.Seq, have)
	}
}

func (a *audit) fault(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faultLocked(format, args...)
}

func (a *audit) faultLocked(format string, args ...any) {
	if len(a.faults) < 10 {
		a.faults = append(a.faults, fmt.Sprintf(format, args...))
	}
}

// settled records an ack that was answered with success.
func (a *audit) settled(deliveries []client.Delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range deliveries {
		a.acked[d.Metadata.Seq] = d.Metadata.RecordPKs[0]
	}
}

// work takes, processes and acks through kills until ctx ends.
func (a *audit) work(ctx context.Context, api *client.Client, consumer string) {
	for ctx.Err() == nil {
		got, err := api.Next(ctx, consumer, 1+rand.IntN(50), time.Second)
		if err != nil {
			// The node is away; the next call finds out when it is back.
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		if len(got.Deliveries) == 0 {
			continue
		}
		if rand.IntN(20) == 0 {
			_ = api.Nack(ctx, consumer, client.Nack{Delay: 10 * time.Millisecond}, got.Deliveries[0].Token) // may be lost with a kill
			continue
		}
		tokens := make([]string, len(got.Deliveries))
		for i, d := range got.Deliveries {
			a.process(d)
			tokens[i] = d.Token
		}
		if api.Ack(ctx, consumer, tokens...) == nil {
			a.settled(got.Deliveries)
		}
	}
}

// write commits new versions of its rows until ctx ends, and returns what it
// committed.
func write(ctx context.Context, t *testing.T, url string, first, rows int) map[string]int {
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	committed := map[string]int{}
	for ctx.Err() == nil {
		// Several rows in one transaction, so that transactions are cut, too.
		changed := map[int]bool{}
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			for range 1 + rand.IntN(30) {
				id := first + rand.IntN(rows)
				if changed[id] {
					continue
				}
				changed[id] = true
				_, err := tx.Exec(t.Context(), `INSERT INTO audited VALUES ($1, 1, repeat('x', $2)) ON CONFLICT (id) DO UPDATE SET version = audited.version + 1`, id, rand.IntN(300))
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
			return nil
		}
		for id := range changed {
			committed[strconv.Itoa(id)]++
		}
	}
	return committed
}

// TestKilledNodeLosesNothingAndRepeatsNoAck kills a node at random moments under
// load. LOCKSTEP_KILLS says how often (default 5).
func TestKilledNodeLosesNothingAndRepeatsNoAck(t *testing.T) {
	t.Parallel()
	kills := 5
	if text := os.Getenv("LOCKSTEP_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE audited (id int PRIMARY KEY, version int NOT NULL, pad text)`)
	n := newNode(t, url, "  - {name: audit, tables: [public.audited], start: beginning, ack_wait: 2s}\n")
	n.start()

	a := newAudit()
	writing, stopWriting := context.WithCancel(t.Context())
	working, stopWorking := context.WithCancel(t.Context())
	defer stopWorking()
	defer stopWriting()
	var writers, workers errgroup.Group
	var mu sync.Mutex
	committed := map[string]int{}
	for w := range 3 {
		writers.Go(func() error {
			mine := write(writing, t, url, w*1000, 200)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(committed, mine)
			return nil
		})
		workers.Go(func() error { a.work(working, n.api, "audit"); return nil })
	}
	for range kills {
		timer := time.NewTimer(300*time.Millisecond + rand.N(1200*time.Millisecond))
		<-timer.C
		n.kill()
		n.launch()
	}
	pgtest.Eventually(t, 60*time.Second, "the node to be back", func() bool { return n.api.Ready(t.Context()) == nil })
	stopWriting()
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 120*time.Second, "every committed version to be processed", func() bool { return a.reached(committed) || len(a.problems()) > 0 })
	stopWorking()
	if err := workers.Wait(); err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
		t.Fatal(err)
	}
	for _, f := range a.problems() {
		t.Error(f)
	}
	total := 0
	for _, v := range committed {
		total += v
	}
	t.Logf("%d kills, %d changes of %d rows, %d handed out again after a kill, a nack or a lease", kills, total, len(committed), a.repeats)
}

func (a *audit) reached(want map[string]int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for row, version := range want {
		if a.version[row] < version {
			return false
		}
	}
	return true
}

func (a *audit) problems() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.faults...)
}
