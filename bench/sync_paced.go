package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	stripeRate    = 25 // requests per second: of a test account, and of an endpoint in live mode
	limitedTime   = 35 * time.Second
	stripeLatency = "200ms"
)

// withinLimits is how many customers are read within the limits: for half a minute.
func (o Options) withinLimits() int { return o.pick(30, 4) * stripeRate * customerPage }

// changes is how many changes are timed.
func (o Options) changes() int { return o.pick(240, 10) }

// way is one way of asking an account that has limits.
type way struct {
	of    string
	key   string
	delay string // of each answer
	// counts says whether a request is one of those that the rate is for.
	counts func(asked) bool
}

func ways() []way {
	all := func(asked) bool { return true }
	lists := func(a asked) bool { return a.Endpoint == listing }
	return []way{
		{"within limits, test mode: 25/s for the account", testKey, "", all},
		{"within limits, live mode: 25/s for the list", liveKey, "", lists},
		{"within limits, live mode, each page takes " + stripeLatency, liveKey, stripeLatency, lists},
	}
}

// syncPaced measures what happens within the limits of a real account.
func syncPaced(ctx context.Context, l *lab) (figures []Figure, err error) {
	a, err := l.account(ctx, l.withinLimits())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	for _, w := range ways() {
		var share, refused []float64
		for range l.fewer() {
			n.say("sync: %s", w.of)
			s, r, err := n.limited(ctx, a, w)
			if err != nil {
				return nil, err
			}
			share, refused = append(share, s), append(refused, r)
		}
		figures = append(figures, figure(w.of, "share of the allowed requests", "", share).atLeast(.95, "at least 0.95"),
			figure(w.of, "answers 429", "requests", refused).below(1, "0"))
	}
	changes, err := n.changed(ctx, a)
	return append(figures, changes...), err
}

// limited fills the mirror within the limits, or for as long as that is measured, and
// returns the share of the allowed requests and the count of those that were refused.
func (n *node) limited(ctx context.Context, a *account, w way) (share, refused float64, err error) {
	if w.delay != "" {
		if _, err := a.control(ctx, http.MethodPost, "faults", `{"kind":"delay","delay":"`+w.delay+`","path":"^/v1/customers$"}`); err != nil {
			return 0, 0, err
		}
		defer func() {
			_, failed := a.control(ctx, http.MethodDelete, "faults", "")
			err = errors.Join(err, failed)
		}()
	}
	if err := a.forget(ctx); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if _, err := n.api.CreateSync(ctx, n.mirror(a, w.key)); err != nil {
		return 0, 0, fmt.Errorf("make the sync: %w", err)
	}
	enough := time.Duration(n.pick(int(limitedTime), int(6*time.Second)))
	err = n.untilEach(ctx, seldom, 2*enough, "the mirror was not filled", func() (bool, error) {
		done, err := n.isBackfilled(ctx)
		return done || time.Since(start) > enough, err
	})
	if err != nil {
		return 0, 0, err
	}
	log, err := a.asked(ctx)
	if err != nil {
		return 0, 0, err
	}
	if share, refused, err = used(log, w.counts); err != nil {
		return 0, 0, err
	}
	return share, refused, n.unmirror(ctx)
}

// used returns how much of what was allowed between the beginning and the last page of
// the list was asked, and how much was refused.
func used(log []asked, counts func(asked) bool) (share, refused float64, err error) {
	var pages []time.Time
	for _, one := range log {
		if one.Endpoint == listing && one.Status == http.StatusOK {
			pages = append(pages, one.At)
		}
		if one.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if len(pages) == 0 {
		return 0, 0, errors.New("no page was asked for")
	}
	// The first second has the burst in it that limits allow after a rest.
	first, last := pages[0].Add(time.Second), pages[len(pages)-1]
	if !last.After(first) {
		return 0, 0, fmt.Errorf("%d pages were asked for: too few to say at what rate", len(pages))
	}
	n := 0.0
	for _, one := range log {
		if counts(one) && one.Status != http.StatusTooManyRequests && !one.At.Before(first) && one.At.Before(last) {
			n++
		}
	}
	return n / (last.Sub(first).Seconds() * stripeRate), refused, nil
}

// changed measures the time from a change in the account to its row.
func (n *node) changed(ctx context.Context, a *account) ([]Figure, error) {
	if _, err := n.api.CreateSync(ctx, n.mirror(a, liveKey)); err != nil {
		return nil, fmt.Errorf("make the sync: %w", err)
	}
	if err := n.backfilled(ctx); err != nil {
		return nil, err
	}
	quantiles := []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p99", .99}, {"max", 1}}
	runs := make([][]float64, len(quantiles))
	for round := range n.fewer() {
		n.say("sync: changes on their way, round %d", round+1)
		took, err := n.timed(ctx, a, n.changes())
		if err != nil {
			return nil, err
		}
		slices.Sort(took)
		for q := range quantiles {
			at := min(int(quantiles[q].at*float64(len(took))), len(took)-1)
			runs[q] = append(runs[q], float64(took[at].Microseconds())/1000)
		}
	}
	var figures []Figure
	for q, quantile := range quantiles {
		figures = append(figures, figure("change in the API to its row, polled each 500 ms", quantile.name, "ms", runs[q]))
	}
	return figures, nil
}

const telling = `
	CREATE OR REPLACE FUNCTION bench_tell() RETURNS trigger LANGUAGE plpgsql AS $do$ BEGIN
		IF NEW.metadata ? 'bench' THEN PERFORM pg_notify('bench', NEW.metadata->>'bench'); END IF;
		RETURN NULL;
	END $do$;
	DROP TRIGGER IF EXISTS bench_tell ON ` + mirrored + `;
	CREATE TRIGGER bench_tell AFTER INSERT OR UPDATE ON ` + mirrored + ` FOR EACH ROW EXECUTE FUNCTION bench_tell();
	LISTEN bench`

// timed makes that many changes, each of another customer, and returns how long each
// took.
func (n *node) timed(ctx context.Context, a *account, count int) ([]time.Duration, error) {
	conn, err := pgx.Connect(ctx, n.url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, telling); err != nil {
		return nil, fmt.Errorf("have the table tell of its rows: %w", err)
	}
	// Half of the changes are of customers that are there already.
	ids := make([]string, count)
	made := make([]time.Time, 0, count)
	seen := map[int]time.Time{}
	for i := 0; i < count; i += 2 {
		if ids[i], err = a.mark(ctx, "", i); err != nil {
			return nil, err
		}
		if err := pause(ctx, time.Second/20); err != nil { // within the limits
			return nil, err
		}
	}
	if err := heard(ctx, conn, seen, (count+1)/2); err != nil {
		return nil, err
	}
	clear(seen)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for i := range count {
			// Uneven, so that the polls do not lie at the same place before each.
			if err := pause(ctx, time.Duration(250+rand.IntN(500))*time.Millisecond); err != nil {
				return err
			}
			made = append(made, time.Now())
			if _, err := a.mark(ctx, ids[i], count+i); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error { return heard(ctx, conn, seen, count) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	took := make([]time.Duration, count)
	for i := range took {
		at, ok := seen[count+i]
		if !ok {
			return nil, fmt.Errorf("change %d was not seen", i)
		}
		took[i] = at.Sub(made[i])
	}
	return took, nil
}

// heard waits until so many numbers were told, and notes when each was for the first
// time.
func heard(ctx context.Context, conn *pgx.Conn, seen map[int]time.Time, count int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(count)*time.Second+patience, fmt.Errorf("%d changes were expected in the mirror within %s each", count, time.Second))
	defer cancel()
	for len(seen) < count {
		told, err := conn.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("wait for rows, %d of %d came: %w", len(seen), count, err)
		}
		number, err := strconv.Atoi(told.Payload)
		if err != nil {
			return fmt.Errorf("the notification %q: %w", told.Payload, err)
		}
		if _, again := seen[number]; !again {
			seen[number] = time.Now()
		}
	}
	return nil
}
