package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/client"
)

// The names of the syncs, and of the consumers of what they mirror.
const (
	stripeSync, stripeConsumer = "stripe", "customers"
	githubSync, githubConsumer = "github", "pulls"
)

const (
	fewest  = 3                // edits of each owner, however short the demo is
	pastEnd = 50               // tries for them, after its end
	first   = time.Minute      // so long all may take to be read for the first time
	arrive  = 10 * time.Second // so long the last edits may take to the workers
	catchUp = 30 * time.Second // so long the mirror may take to be equal
)

// ErrMirrorDiffers says that an API and its mirror are not equal.
var ErrMirrorDiffers = errors.New("the mirror differs from the API")

// mirrors are the mirrored accounts, with a trail each.
type mirrors struct {
	api     *client.Client
	http    *http.Client
	screen  *screen
	callers []caller
	trails  []*trail
}

func newMirrors(api *client.Client, t Target, s *screen) *mirrors {
	m := &mirrors{api: api, http: &http.Client{Transport: &http.Transport{}}, screen: s}
	shopkeeper, maintainer := caller{t.Stripe, m.http}, caller{t.GitHub, m.http}
	m.callers = []caller{shopkeeper, maintainer}
	ofStripe, ofGitHub := newTrail(api, stripeSync, stripeConsumer), newTrail(api, githubSync, githubConsumer)
	ofStripe.owner, ofStripe.every = shop{shopkeeper}, 700*time.Millisecond
	ofGitHub.owner, ofGitHub.every = organization{maintainer}, 2500*time.Millisecond
	m.trails = []*trail{ofStripe, ofGitHub}
	for _, one := range m.trails {
		one.show = s.arrival
	}
	return m
}

func (m *mirrors) close() { m.http.CloseIdleConnections() }

// start starts the workers. They end with ctx.
func (m *mirrors) start(ctx context.Context, group *errgroup.Group) {
	for _, t := range m.trails {
		group.Go(func() error { return t.work(ctx) })
	}
}

// live has the owners edit until ctx ends. What they have begun they bring to an end.
func (m *mirrors) live(ctx context.Context) error {
	var group errgroup.Group
	for _, t := range m.trails {
		group.Go(func() error { return m.own(ctx, t) })
	}
	return group.Wait()
}

// own is the life of one owner.
func (m *mirrors) own(ctx context.Context, t *trail) error {
	rest := context.WithoutCancel(ctx)
	if err := m.backfilled(rest, t.sync); err != nil {
		return err
	}
	t.begin()
	made, n := 0, 0
	for ; ctx.Err() == nil; n++ {
		done, err := t.edit(rest, n)
		if err != nil {
			return err
		}
		made += done
		t.pause(ctx)
	}
	// A demo that ended early has something to show all the same.
	for last := n + pastEnd; made < fewest && n < last; n++ {
		done, err := t.edit(rest, n)
		if err != nil {
			return err
		}
		made += done
		t.pause(rest)
	}
	return nil
}

// backfilled waits until everything of a sync has been read once, and tells so.
func (m *mirrors) backfilled(ctx context.Context, name string) error {
	began := time.Now()
	var s client.Sync
	ctx, cancel := context.WithTimeout(ctx, first)
	defer cancel()
	err := poll(ctx, 100*time.Millisecond, func() (done bool, err error) {
		s, err = m.api.Sync(ctx, name)
		if err == nil && s.State == client.SyncBlocked {
			err = errors.New("it is blocked")
		}
		return s.BackfilledAt != nil, err
	})
	if err != nil {
		return fmt.Errorf("sync %s: reading everything for the first time: %w; it is %s %s", name, err, s.State, s.Reason)
	}
	var records uint64
	for _, c := range s.Collections {
		records += c.Records
	}
	m.screen.say(fmt.Sprintf("%s is mirrored: %d records of %d collections were read in %s; changes follow", name, records, len(s.Collections), round(time.Since(began))))
	return nil
}

// rest stops the accounts' lives and waits until the edits have arrived.
func (m *mirrors) rest(ctx context.Context) error {
	for _, c := range m.callers {
		if err := c.call(ctx, http.MethodPost, "/_sandbox/world", map[string]bool{"pause": true}, nil); err != nil {
			return fmt.Errorf("pause the account: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, arrive)
	defer cancel()
	err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
		open := 0
		for _, t := range m.trails {
			open += t.open()
		}
		return open == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // what overtook them in the account itself never comes; the comparison tells
	}
	return err
}

// verdict tells how the mirrors did, compares them with their APIs, and fails when
// they differ.
func (m *mirrors) verdict(ctx context.Context, out io.Writer) error {
	var equal []string
	for _, t := range m.trails {
		found, err := m.verify(ctx, t.sync)
		if err != nil {
			return err
		}
		s, err := m.api.Sync(ctx, t.sync)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, t.summary(s, found.Checked))
		if differ := found.MissingN + found.StaleN + found.ExtraN; differ > 0 || len(found.Unchecked) > 0 {
			return fmt.Errorf("%w: %s: %d records, %d collections could not be compared: %.1000s", ErrMirrorDiffers, t.sync, differ, len(found.Unchecked), found.Raw)
		}
		equal = append(equal, fmt.Sprintf("%d records of %s", found.Checked, t.sync))
	}
	fmt.Fprintf(out, "the mirror equals the API: %s compared\n", strings.Join(equal, " and "))
	return nil
}

// verify compares until API and mirror are equal or it has taken too long: what
// happened last may still be on its way.
func (m *mirrors) verify(ctx context.Context, name string) (client.Verification, error) {
	for deadline := time.Now().Add(catchUp); ; {
		found, err := m.api.VerifySync(ctx, name, client.VerifyOptions{})
		if err != nil || found.Equal && len(found.Unchecked) == 0 || time.Now().After(deadline) {
			return found, err
		}
	}
}

// summary tells how a sync did.
func (t *trail) summary(s client.Sync, records uint64) string {
	var written, requests, refusals uint64
	for _, c := range s.Collections {
		written += c.Changed + c.Deleted
	}
	for _, q := range s.Quotas {
		requests, refusals = max(requests, q.Requests), refusals+q.Refusals
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rowP50, rowP99 := t.toRow.percentiles()
	workP50, workP99 := t.toWork.percentiles()
	return fmt.Sprintf("%s: %d rows of %d collections, %d changes written, %d requests to the API, %d refused by its limits\n"+
		"  API to Postgres p50 %s, p99 %s (%d edits); Postgres to worker p50 %s, p99 %s",
		t.sync, records, len(s.Collections), written, requests, refusals, round(rowP50), round(rowP99), t.edits, round(workP50), round(workP99))
}
