package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/client"
)

// outage is a run in which a webhook's endpoint is away: connections are refused, then
// it declines, then it answers too slowly. Another one is there all the time.
type outage struct {
	*campaign
	lasts      time.Duration
	rate       int // changes a second that writers commit, about
	away, well *endpoint

	started time.Time
	resting atomic.Bool // nothing more is written

	seen   []string // what the consumer says of its destination, by manner
	back   time.Time
	behind int           // changes that waited when the endpoint was up again
	first  time.Duration // from then to the first change
	all    time.Duration // from then until it has what the other has
}

// The phases of a run, by which times are told apart.
const (
	before    = "before"
	meanwhile = "meanwhile"
	restart   = "restart"
	after     = "after"
)

const webhooksYAML = `  - {name: away, kind: webhook, start: beginning, tables: [ledger.*], max_in_flight: 5000, max_attempts: 10, webhook: {url: "http://%s/hook", allow_private: true, timeout: 2s}}
  - {name: well, kind: webhook, start: beginning, tables: [ledger.*], max_in_flight: 5000, batch: {size: 50}, webhook: {url: "http://%s/hook", allow_private: true, timeout: 15s}}
`

// TestOutage lets an endpoint be away for LOCKSTEP_CHAOS_OUTAGE seconds, under
// LOCKSTEP_CHAOS_RATE changes a second; 5 s unless LOCKSTEP_CHAOS is set, else 300 s.
func TestOutage(t *testing.T) {
	t.Parallel()
	seed, seconds := uint64(1), 5
	if os.Getenv("LOCKSTEP_CHAOS") != "" {
		seed, seconds = seedOf(t), number(t, "LOCKSTEP_CHAOS_OUTAGE", 300)
	}
	o := &outage{
		campaign: newCampaign(t, seed, 0, nil), lasts: time.Duration(seconds) * time.Second, rate: number(t, "LOCKSTEP_CHAOS_RATE", 300),
		away: newEndpoint(t, "away"), well: newEndpoint(t, "well"),
	}
	o.node = newNode(t, filepath.Join(o.dir, "node"), setup{url: o.through, consumers: fmt.Sprintf(webhooksYAML, o.away.address, o.well.address)})
	if err := errors.Join(o.node.launch(), o.node.ready(t.Context(), recovery)); err != nil {
		t.Fatal(err)
	}
	o.run()
}

func (o *outage) run() {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.t.Context())
	defer cancel()
	o.started = time.Now()
	var writing errgroup.Group
	for i := range writers {
		w := newWriter(i, rowsEach, o.url, o.seed, o.ledger, o.mayWrite)
		writing.Go(func() error { return w.run(ctx) })
	}
	o.enter(before)
	wait(ctx, max(o.lasts/5, 2*time.Second))
	o.check(o.level(ctx, o.away))
	o.check(o.level(ctx, o.well))
	for i, m := range []manner{refuses, declines, drips} {
		if o.broken() {
			break
		}
		o.check(o.suffer(ctx, m, i != 1)) // killed in the first and in the last third
	}
	o.check(o.recover(ctx))
	o.resting.Store(true)
	o.check(writing.Wait())
	o.check(o.settled(ctx))
	o.reckonOutage()
}

// mayWrite holds writers to the rate.
func (o *outage) mayWrite(ctx context.Context) bool {
	for ctx.Err() == nil && !o.resting.Load() {
		if o.ledger.total() < int(time.Since(o.started).Seconds()*float64(o.rate)) {
			return true
		}
		wait(ctx, 5*time.Millisecond)
	}
	return false
}

func (o *outage) enter(phase string) {
	o.away.enter(phase)
	o.well.enter(phase)
}

// suffer is a third of the outage. It is not over before the consumer says what is
// wrong with its destination, nor before the other one has everything.
func (o *outage) suffer(ctx context.Context, m manner, killed bool) error {
	o.enter(meanwhile)
	if err := o.away.behave(m); err != nil {
		return err
	}
	over := time.Now().Add(o.lasts / 3)
	wait(ctx, o.lasts/6)
	if killed {
		o.enter(restart)
		o.kills++
		o.node.kill()
		if err := errors.Join(o.node.launch(), o.node.ready(ctx, recovery), o.level(ctx, o.well)); err != nil {
			return err
		}
		o.enter(meanwhile)
	}
	wait(ctx, time.Until(over))
	words := map[manner]string{refuses: "connection refused", declines: "503", drips: "no complete answer"}[m]
	err := eventually(ctx, recovery, fmt.Sprintf("the consumer to say %q of its destination", words), func() error {
		c, err := o.node.api.Consumer(ctx, "away")
		if err != nil {
			return err
		}
		if d := c.Destination; d == nil || d.State == "ok" || !strings.Contains(d.Reason, words) {
			return fmt.Errorf("it says %+v", d)
		}
		o.seen = append(o.seen, fmt.Sprintf("%s: %s, %s (%s: %s)", m, c.Destination.State, c.Destination.Reason, c.Health.Status, c.Health.Reason))
		return nil
	})
	if m != refuses && o.away.asked(m) == 0 {
		err = errors.Join(err, fmt.Errorf("nothing was sent while the endpoint %s", m))
	}
	return errors.Join(err, o.level(ctx, o.well))
}

// level waits until an endpoint has everything that is committed by now.
func (o *outage) level(ctx context.Context, e *endpoint) error {
	want := o.ledger.total()
	last, since := -1, time.Now()
	for ctx.Err() == nil {
		got := e.processed()
		if got >= want {
			return nil
		}
		if how := o.node.ended(); how != "" {
			return fmt.Errorf("the node ended by itself: %s", how)
		}
		if got != last {
			last, since = got, time.Now()
		}
		if time.Since(since) > recovery {
			return fmt.Errorf("endpoint %s has %d of %d changes, and nothing goes on for %s", e.name, got, want, recovery)
		}
		wait(ctx, 10*time.Millisecond)
	}
	return ctx.Err()
}

// recover opens the endpoint and waits until it has caught up, while writers go on.
func (o *outage) recover(ctx context.Context) error {
	if o.broken() {
		return nil
	}
	o.behind = o.ledger.total() - o.away.processed()
	if err := o.away.behave(takes); err != nil {
		return err
	}
	o.back = time.Now()
	o.enter(after)
	err := o.level(ctx, o.away)
	o.all = time.Since(o.back)
	o.away.mu.Lock()
	o.first = o.away.heard.Sub(o.back)
	o.away.mu.Unlock()
	wait(ctx, o.lasts/10)
	return err
}

// settled waits until everything that was committed is processed, and acked.
func (o *outage) settled(ctx context.Context) error {
	if o.broken() {
		return nil
	}
	for _, e := range []*endpoint{o.away, o.well} {
		if err := o.level(ctx, e); err != nil {
			return err
		}
		err := eventually(ctx, recovery, "the consumer to have nothing left", func() error {
			c, err := o.node.api.Consumer(ctx, e.name)
			if err == nil && c.Stats != (client.Stats{
				LastSeq: c.Stats.LastSeq, FloorSeq: c.Stats.LastSeq, Delivered: c.Stats.Delivered, Redelivered: c.Stats.Redelivered,
				Acked: c.Stats.Acked, Nacked: c.Stats.Nacked, Expired: c.Stats.Expired, Rate: c.Stats.Rate,
			}) {
				return fmt.Errorf("consumer %s: %+v", e.name, c.Stats)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reckonOutage compares what was processed with what was committed, and tells.
func (o *outage) reckonOutage() {
	o.t.Helper()
	o.check(o.node.stop())
	committed, _ := o.ledger.selected(func(string) bool { return true })
	for _, e := range []*endpoint{o.away, o.well} {
		if !o.broken() {
			o.check(e.compare(committed))
		}
		o.faults = append(o.faults, e.faults...)
	}
	// One that is not there holds nobody else up, but for the time of a restart.
	if p50 := o.well.quantile(meanwhile, .5); p50 > time.Second {
		o.fault("half of the changes took more than %s to the endpoint that was there", p50)
	}
	for _, f := range o.faults {
		o.t.Error(f)
	}
	o.t.Log(o.result())
	if len(o.faults) > 0 {
		o.t.Logf("the same writes again: LOCKSTEP_CHAOS_SEED=%d", o.seed)
	}
}

func (o *outage) result() string {
	var b strings.Builder
	ms := time.Millisecond
	fmt.Fprintf(&b, "seed %d: an endpoint was away for %s under %d changes/s; %d kills of the node meanwhile\n", o.seed, o.lasts, o.rate, o.kills)
	fmt.Fprintf(&b, "%d changes in %d transactions were committed\n", o.ledger.changes, o.ledger.commits)
	for _, line := range o.seen {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	fmt.Fprintf(&b, "away: %d requests were declined, %d got an answer too slow; when it was up again %d changes waited, the first came after %s, the last after %s (%.0f/s)\n",
		o.away.asked(declines), o.away.asked(drips), o.behind, o.first.Round(ms), o.all.Round(ms), float64(o.behind)/o.all.Seconds())
	for _, e := range []*endpoint{o.away, o.well} {
		fmt.Fprintf(&b, "%s: %d changes were processed once, in order per row; %d came again with their id\n", e.name, e.processed(), e.again)
	}
	for _, phase := range []string{before, meanwhile, restart, after} {
		fmt.Fprintf(&b, "well, %s: commit to endpoint p50 %s, p99 %s, max %s\n", phase, o.well.quantile(phase, .5).Round(ms), o.well.quantile(phase, .99).Round(ms), o.well.quantile(phase, 1).Round(ms))
	}
	fmt.Fprintf(&b, "largest resident memory of a node: %d MB", o.node.most>>20)
	return b.String()
}

// TestEndpointNoticesEachBrokenPromise holds the endpoint to its own rules.
func TestEndpointNoticesEachBrokenPromise(t *testing.T) {
	t.Parallel()
	body := func(seq uint64, version int) string {
		write := uint64(version) * 100
		return fmt.Sprintf(`{"record":{"id":7,"version":%d,"write":%d,"body":%q},"changes":null,"action":"update","metadata":{"table_name":"plain","record_pks":["7"],"seq":%d,"idempotency_key":"k%d"}}`,
			version, write, bodyOf(write), seq, seq)
	}
	take := func(e *endpoint, seqs ...int) {
		for _, n := range seqs {
			e.process(fmt.Sprintf("k%d", n), []byte(body(uint64(n), n)), time.Now())
		}
	}
	committed := map[string][]uint64{"plain/7": {100, 200}}
	for name, c := range map[string]struct {
		do   func(*endpoint)
		want string // empty: nothing
	}{
		"in order":       {func(e *endpoint) { take(e, 1, 2) }, ""},
		"one again":      {func(e *endpoint) { take(e, 1, 2, 1, 2, 2) }, ""},
		"several":        {func(e *endpoint) { e.process("x", []byte(`{"data":[`+body(1, 1)+","+body(2, 2)+`]}`), time.Now()) }, ""},
		"one left out":   {func(e *endpoint) { take(e, 2) }, "version 2 came after version 0"},
		"out of order":   {func(e *endpoint) { take(e, 2, 1) }, "it came after change 2"},
		"one missing":    {func(e *endpoint) { take(e, 1) }, "2 changes were committed, 1 were processed"},
		"another id":     {func(e *endpoint) { e.process("k9", []byte(body(1, 1)), time.Now()); take(e, 2) }, "its idempotency key"},
		"nothing at all": {func(e *endpoint) { e.process("", []byte(`{"data":7}`), time.Now()); take(e, 1, 2) }, "no JSON"},
		"a gap": {func(e *endpoint) {
			e.process("g", []byte(`{"record":null,"action":"gap","metadata":{"seq":1,"idempotency_key":"g"}}`), time.Now())
			take(e, 1, 2)
		}, "none was provoked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := recorder("any")
			c.do(e)
			got := strings.Join(e.faults, "\n")
			if err := e.compare(committed); err != nil {
				got += err.Error()
			}
			if c.want == "" && (got != "" || e.processed() != 2) || !strings.Contains(got, c.want) {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}
