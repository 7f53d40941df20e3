package mirror

import (
	"context"
	"errors"
	"time"

	"lockstep"
	"lockstep/internal/obs"
	"lockstep/source"
)

const (
	// tendEvery is the pause between looks at what waits.
	tendEvery = time.Second
	// trimEvery is the pause between trimmings of the log.
	trimEvery = time.Hour
)

// tend does what no page waits for, as long as the lock is held: columns that a lock
// kept from being added, filling new columns, parked records, old lines of the log.
func (m *Mirror) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	var trimmed time.Time
	for {
		err := errors.Join(m.addPending(ctx), m.fill(ctx), m.retryParked(ctx))
		if time.Since(trimmed) > trimEvery {
			trimmed = time.Now()
			err = errors.Join(err, m.trim(ctx))
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, lockstep.ErrFenced) { // whoever applies pages hears of that
			m.log.WarnContext(ctx, "the upkeep of a mirror failed, and is tried again", obs.KeySync, m.config.Name, obs.KeyError, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fill fills new columns page by page, until there is nothing left.
func (m *Mirror) fill(ctx context.Context) error {
	for {
		if more, err := m.fillSome(ctx); err != nil || !more {
			return err
		}
	}
}

func (m *Mirror) addPending(ctx context.Context) error {
	var waiting []string
	if err := m.enter(ctx); err != nil {
		return err
	}
	m.tables.Range(func(collection, t any) bool {
		if len(t.(*table).pending) > 0 {
			waiting = append(waiting, collection.(string))
		}
		return true
	})
	m.leave()
	var failed []error
	for _, collection := range waiting {
		t, _ := m.table(collection)
		if err := m.addPendingOf(ctx, t.collection); err != nil && !isLockTimeout(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (m *Mirror) addPendingOf(ctx context.Context, c source.Collection) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	conn, err := m.session(ctx)
	if err != nil {
		return err
	}
	t, _ := m.table(c.Name)
	return m.shape(ctx, conn, t.collection, t.pending)
}

// trim removes what the log had to say a month ago.
func (m *Mirror) trim(ctx context.Context) error {
	const old = `
		DELETE FROM lockstep.sync_log
		WHERE sync_id = $1::uuid AND at < now() - interval '30 days'`
	_, err := m.pool.Exec(ctx, old, m.id)
	return err
}
