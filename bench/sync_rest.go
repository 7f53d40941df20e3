package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/client"
)

const (
	// A sweep is due a day after the last one: that time is set back, as if the day had
	// passed. Nothing is due when nothing is set back.
	aged   = `UPDATE lockstep.sync_state SET cursors = jsonb_set(cursors, '{backfill,ended}', '"2020-01-01T00:00:00Z"') - 'sweep' WHERE collection = 'customer'`
	unaged = `UPDATE lockstep.sync_state SET cursors = cursors || '{}' WHERE collection = 'customer'`
	swept  = `SELECT count(*) FROM lockstep.sync_state WHERE collection = 'customer' AND cursors ? 'sweep'`
	// settling is how long what a node tells of itself may take to be written.
	settling = 3 * time.Second
)

// atRest measures how much WAL is written when what has not changed is looked at again.
func (f *filling) atRest(ctx context.Context, n *node) ([]Figure, error) {
	// What Postgres does once after so many new rows is done before.
	if _, err := f.db.Exec(ctx, `VACUUM (FREEZE, ANALYZE)`); err != nil {
		return nil, err
	}
	if err := f.upkeep(ctx, "off"); err != nil {
		return nil, err
	}
	// What the node writes once, it writes before.
	if _, err := f.written(ctx, n, unaged, func(context.Context) error { return nil }); err != nil {
		return nil, err
	}
	var swept, idle, floor []float64
	for round := range f.fewer() {
		f.say("sync: at rest, round %d", round+1)
		sweep := func(ctx context.Context) error { return f.sweep(ctx, n) }
		start := time.Now()
		b, err := f.written(ctx, n, aged, sweep)
		if err != nil {
			return nil, err
		}
		took := time.Since(start)
		var rests [2]float64
		for i := range rests {
			wait := func(ctx context.Context) error { return pause(ctx, took-settling) }
			if rests[i], err = f.written(ctx, n, unaged, wait); err != nil {
				return nil, err
			}
		}
		idle = append(idle, rests[0], rests[1])
		swept, floor = append(swept, b-(rests[0]+rests[1])/2), append(floor, rests[1]-rests[0])
	}
	f.say("sync: at rest, read again and verified")
	reread, err := f.written(ctx, n, unaged, func(ctx context.Context) error { return f.reread(ctx, n) })
	if err != nil {
		return nil, err
	}
	verified, err := f.written(ctx, n, unaged, func(ctx context.Context) error { return f.verify(ctx, n) })
	if err != nil {
		return nil, err
	}
	if err := f.upkeep(ctx, "on"); err != nil {
		return nil, err
	}
	const of = "at rest, nothing has changed"
	return []Figure{
		figure(of, "WAL of the node alone, for as long as a sweep takes", "B", idle),
		figure(of, "WAL of a sweep, less that", "B", swept).beside(floor).below(float64(f.Backlog)/100, "0: less than a hundredth of a byte per customer"),
		figure(of, "WAL of reading all again (resync)", "B", []float64{reread}),
		figure(of, "WAL of a verification", "B", []float64{verified}),
	}, nil
}

// upkeep says whether Postgres vacuums by itself, and writes an image of each page that
// is touched first after a checkpoint: both would hide what a sweep writes.
func (f *filling) upkeep(ctx context.Context, state string) error {
	for _, sql := range []string{
		`ALTER SYSTEM SET autovacuum = ` + state, `ALTER SYSTEM SET full_page_writes = ` + state, `SELECT pg_reload_conf()`, `CHECKPOINT`,
	} {
		if _, err := f.db.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// written is how many bytes of WAL are written while the node does something, with
// nothing else under way in it. It fails when a row of the mirror is written.
func (f *filling) written(ctx context.Context, n *node, prepare string, do func(context.Context) error) (float64, error) {
	if _, err := n.api.PauseSync(ctx, acme); err != nil {
		return 0, err
	}
	if err := n.becomes(ctx, client.SyncPaused); err != nil {
		return 0, err
	}
	if _, err := f.db.Exec(ctx, prepare); err != nil {
		return 0, err
	}
	if err := f.account.forget(ctx); err != nil {
		return 0, err
	}
	rows, err := f.rows(ctx)
	if err != nil {
		return 0, err
	}
	from, err := f.position(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := n.api.ResumeSync(ctx, acme); err != nil {
		return 0, err
	}
	if err := n.becomes(ctx, client.SyncPolling); err != nil {
		return 0, err
	}
	if err := do(ctx); err != nil {
		return 0, err
	}
	if err := pause(ctx, settling); err != nil {
		return 0, err
	}
	to, err := f.position(ctx)
	if err != nil {
		return 0, err
	}
	now, err := f.rows(ctx)
	if err == nil && now != rows {
		err = errors.New("rows of the mirror were written although nothing has changed")
	}
	return to - from, err
}

func (n *node) becomes(ctx context.Context, state string) error {
	return n.until(ctx, time.Minute, "the sync was not "+state, func() (bool, error) {
		s, err := n.api.Sync(ctx, acme)
		return s.State == state, err
	})
}

// position is where the WAL ends.
func (f *filling) position(ctx context.Context) (at float64, err error) {
	err = f.db.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8`).Scan(&at)
	return at, err
}

// rows is another text when a row of the mirror has been written.
func (f *filling) rows(ctx context.Context) (versions string, err error) {
	err = f.db.QueryRow(ctx, `SELECT format('%s rows %s', count(*), sum(hashtextextended(ctid::text || xmin::text, 0)::numeric)) FROM `+mirrored).Scan(&versions)
	return versions, err
}

// sweep waits until a sweep is done, and checks that all customers were listed.
func (f *filling) sweep(ctx context.Context, n *node) error {
	err := n.untilEach(ctx, seldom, time.Hour, "there was no sweep", func() (bool, error) {
		var done int
		err := f.db.QueryRow(ctx, swept).Scan(&done)
		return done == 1, err
	})
	if err != nil {
		return err
	}
	return f.all(ctx)
}

// all checks that as many pages were given out as all customers are.
func (f *filling) all(ctx context.Context) error {
	pages, _, err := f.account.listed(ctx)
	if want := f.Backlog / customerPage; err == nil && pages < want {
		err = fmt.Errorf("%d pages of customers were asked for, expected %d", pages, want)
	}
	return err
}

// reread has everything read again, and waits for it and for the sweep behind it.
func (f *filling) reread(ctx context.Context, n *node) error {
	if _, err := n.api.ResyncSync(ctx, acme); err != nil {
		return err
	}
	const done = `SELECT count(*) FROM lockstep.sync_state
		WHERE collection = 'customer' AND NOT cursors ? 'again' AND cursors->'backfill' ? 'done' AND NOT cursors->'backfill' ? 'sweep'`
	err := n.untilEach(ctx, seldom, time.Hour, "the mirror was not read again", func() (bool, error) {
		var count int
		err := f.db.QueryRow(ctx, done).Scan(&count)
		return count == 1, err
	})
	if err != nil {
		return err
	}
	return f.all(ctx)
}

func (f *filling) verify(ctx context.Context, n *node) error {
	v, err := n.api.VerifySync(ctx, acme, client.VerifyOptions{})
	if err == nil && (!v.Equal || v.Checked != uint64(f.Backlog)) {
		err = fmt.Errorf("verify: %d customers were compared, expected %d, equal %v", v.Checked, f.Backlog, v.Equal)
	}
	return err
}

// pause lets a time pass.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
