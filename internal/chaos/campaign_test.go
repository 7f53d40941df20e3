package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/client"
	"lockstep/internal/pgdb/cluster"
)

const (
	lease      = 2 * time.Second // ack_wait of the consumers
	inFlight   = 5000            // max_in_flight
	backlog    = 40_000          // changes that writers may be ahead of the workers
	writers    = 4
	rowsEach   = 300 // per writer and table
	recovery   = 2 * time.Minute
	tailFrom   = "beginning"
	definition = `{start: beginning, tables: [ledger.*], ack_wait: 2s, max_in_flight: 5000, max_attempts: 0, backoff: {first: 10ms, max: 100ms}`
)

// campaign is one run.
type campaign struct {
	t        *testing.T
	dir      string
	seed     uint64
	changes  int // to be committed at least
	events   []accident
	postgres *cluster.Cluster
	url      string // of the database, past the network
	through  string // through it
	net      *forwarder
	disk     *disk
	clock    string
	binary   string // empty: the usual one
	node     *node
	ledger   *ledger
	audits   []*audit
	crews    []*crew
	working  context.Context
	thirds   int
	cuts     int

	happened map[kind]int
	kills    int
	progress atomic.Int64 // accidents that are over
	closing  atomic.Bool  // all of them
	tail     atomic.Uint64

	mu     sync.Mutex
	faults []string
}

// newCampaign brings everything up: Postgres with fsync, the network, the node.
func newCampaign(t *testing.T, seed uint64, changes int, events []accident) *campaign {
	t.Helper()
	c := &campaign{t: t, dir: workDir(t), seed: seed, changes: changes, events: events, ledger: newLedger(), happened: map[kind]int{}}
	c.clock = filepath.Join(c.dir, "clock")
	var err error
	c.postgres, err = cluster.Start(t.Context(), cluster.Config{
		Dir: filepath.Join(c.dir, "postgres"),
		Settings: map[string]string{
			"fsync": "on", "synchronous_commit": "on", "wal_sender_timeout": "15s", "checkpoint_timeout": "30s", "max_wal_size": "512MB",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.postgres.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := c.postgres.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	c.url = c.postgres.URL("app")
	execute(t, c.url, tablesSQL)
	postgres := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.postgres.Port()))
	c.net = newForwarder(t, postgres)
	c.through = strings.Replace(c.postgres.TCPURL("app"), postgres, c.net.address(), 1)
	return c
}

// begin starts the node on its disk, and the audits.
func (c *campaign) begin() {
	c.t.Helper()
	data := ""
	if c.disk != nil {
		data = filepath.Join(c.disk.dir, "data")
	}
	c.node = newNode(c.t, filepath.Join(c.dir, "node"), setup{
		data: data, url: c.through, clock: c.clock, binary: c.binary,
		consumers: "  - " + definition + ", name: every}\n  - " + definition + `, name: even, filter: "record.id % 2 == 0"}` + "\n",
	})
	for _, name := range []string{"every", "even"} {
		c.audits = append(c.audits, newAudit(name, lease, c.node.life.Load))
	}
	if err := errors.Join(c.node.launch(), c.node.ready(c.t.Context(), recovery)); err != nil {
		c.t.Fatal(err)
	}
}

// run is the campaign: work under fire, then peace, then the reckoning.
func (c *campaign) run() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	c.working = ctx
	for i, a := range c.audits {
		crew := &crew{api: c.node.api, audit: a, size: 4, random: rand.New(rand.NewPCG(c.seed, uint64(2000+i)))}
		c.crews = append(c.crews, crew)
		crew.start(ctx)
		defer crew.stop()
	}
	var watching, writing errgroup.Group
	watching.Go(func() error { c.follow(ctx); return nil })
	watching.Go(func() error { c.report(ctx); return nil })
	for i := range writers {
		w := newWriter(i, rowsEach, c.url, c.seed, c.ledger, c.mayWrite)
		writing.Go(func() error { return w.run(ctx) })
	}
	began := time.Now()
	c.fire(ctx)
	c.closing.Store(true)
	c.check(writing.Wait())
	fired := time.Since(began)
	c.peace(ctx)
	for _, crew := range c.crews {
		crew.stop()
	}
	cancel()
	c.check(watching.Wait())
	c.reckon(fired)
}

// fire lets the accidents happen, one after the other, until one is not survived.
func (c *campaign) fire(ctx context.Context) {
	for i, a := range c.events {
		wait(ctx, a.after)
		if how := c.node.ended(); how != "" {
			c.fault("the node ended by itself: %s", how)
		}
		if c.broken() {
			c.t.Logf("accident %d of %d was not survived", i, len(c.events))
			return
		}
		fmt.Fprintf(c.node.output, "---- accident %d: %s\n", i+1, a)
		c.happened[a.kind]++
		if a.kind == killNode || a.inner {
			c.kills++
		}
		if err := c.happen(ctx, a); err != nil {
			c.fault("%s: %v", a, err)
		}
		c.progress.Add(1)
	}
}

// mayWrite holds writers to the pace of the accidents and of the workers.
func (c *campaign) mayWrite(ctx context.Context) bool {
	for ctx.Err() == nil && !c.broken() {
		written := c.ledger.total()
		if c.closing.Load() && written >= c.changes {
			return false
		}
		planned := backlog + int(float64(c.changes)*float64(c.progress.Load())/float64(max(len(c.events), 1)))
		done := c.audits[0].processed()
		if (c.closing.Load() || written < planned) && written-done < backlog {
			return true
		}
		wait(ctx, 5*time.Millisecond)
	}
	return false
}

// peace waits until everything that was committed is processed and settled.
func (c *campaign) peace(ctx context.Context) {
	if c.broken() {
		return
	}
	c.check(c.node.ready(ctx, recovery))
	for i, a := range c.audits {
		keep := c.keeps(i)
		_, want := c.ledger.selected(keep)
		last, since := -1, time.Now()
		for {
			steps, open := a.processed(), a.open()
			if steps >= want && open == 0 || c.broken() {
				break
			}
			if steps-open != last {
				last, since = steps-open, time.Now()
			}
			if time.Since(since) > recovery {
				c.fault("consumer %s: %d of %d changes came, %d of them are open, and nothing goes on for %s", a.consumer, steps, want, open, recovery)
				break
			}
			wait(ctx, 20*time.Millisecond)
		}
	}
	want := uint64(c.ledger.total())
	c.check(eventually(ctx, recovery, "the tail to see everything", func() error {
		if at := c.tail.Load(); at < want {
			return fmt.Errorf("it saw %d of %d", at, want)
		}
		return nil
	}))
	for _, a := range c.audits {
		c.check(eventually(ctx, recovery, "the consumer to have nothing left", func() error {
			got, err := c.node.api.Consumer(ctx, a.consumer)
			if err == nil && (got.Stats.Pending != 0 || got.Stats.InFlight != 0 || got.Stats.Dead != 0) {
				return fmt.Errorf("consumer %s: %+v", a.consumer, got.Stats)
			}
			return err
		}))
	}
}

func (c *campaign) keeps(audit int) func(string) bool {
	if audit == 0 {
		return func(string) bool { return true }
	}
	return even
}

// follow is a tail over all of it, from the first change.
func (c *campaign) follow(ctx context.Context) {
	for ctx.Err() == nil {
		o := client.TailOptions{From: tailFrom}
		if at := c.tail.Load(); at > 0 {
			o.LastID = strconv.FormatUint(at, 10)
		}
		for e, err := range c.node.api.Tail(ctx, "app", o) {
			if err != nil {
				wait(ctx, 50*time.Millisecond)
				break
			}
			seq, err := strconv.ParseUint(e.ID, 10, 64)
			if want := c.tail.Load() + 1; err != nil || seq != want {
				c.fault("the tail saw change %s after %d", e.ID, want-1)
			}
			c.tail.Store(seq)
		}
	}
}

// report says every ten seconds how it goes.
func (c *campaign) report(ctx context.Context) {
	for ctx.Err() == nil {
		wait(ctx, 10*time.Second)
		done := c.audits[0].processed()
		c.t.Logf("%d of %d accidents, %d changes committed, %d processed", c.progress.Load(), len(c.events), c.ledger.total(), done)
	}
}

func (c *campaign) check(err error) {
	if err != nil {
		c.fault("%v", err)
	}
}

func (c *campaign) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < 20 {
		c.faults = append(c.faults, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// broken reports whether anything has gone wrong.
func (c *campaign) broken() bool {
	c.mu.Lock()
	n := len(c.faults)
	c.mu.Unlock()
	for _, a := range c.audits {
		n += len(a.problems())
	}
	return n > 0
}

// seedOf returns the seed of this run: LOCKSTEP_CHAOS_SEED, or a new one.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("LOCKSTEP_CHAOS_SEED")
	if text == "" {
		return rand.Uint64N(1_000_000)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("LOCKSTEP_CHAOS_SEED: %v", err)
	}
	return seed
}

// TestCampaign is short unless LOCKSTEP_CHAOS is set: then LOCKSTEP_CHAOS_KILLS and
// LOCKSTEP_CHAOS_CHANGES say how long it takes.
func TestCampaign(t *testing.T) {
	t.Parallel()
	seed, kills, changes := uint64(1), 5, 20_000
	if os.Getenv("LOCKSTEP_CHAOS") != "" {
		seed, kills, changes = seedOf(t), number(t, "LOCKSTEP_CHAOS_KILLS", 250), number(t, "LOCKSTEP_CHAOS_CHANGES", 1_000_000)
	}
	dir := workDir(t)
	disk, noDisk := smallDisk(t, filepath.Join(dir, "disk"), 384+changes/1500)
	binary, noClock := "", "not in the short form: building the node for it takes a minute"
	if os.Getenv("LOCKSTEP_CHAOS") != "" {
		binary, noClock = clockBinary(t, dir)
	}
	without := map[kind]string{fillDisk: noDisk, jumpClock: noClock}
	for kind, reason := range without {
		if reason != "" {
			t.Logf("without %q: %s", kind, reason)
		}
	}
	c := newCampaign(t, seed, changes, schedule(seed, kills, without))
	c.disk, c.binary = disk, binary
	c.begin()
	c.run()
}
