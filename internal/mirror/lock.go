package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/obs"
)

const (
	// lockPoll is how often a waiting engine asks for the sync's lock. It asks again
	// and again instead of waiting in Postgres, where a waiting statement would hold
	// back vacuum for as long as the other engine lives.
	lockPoll = 500 * time.Millisecond
	// rejoin bounds how long a broken session is waited for that still has the lock.
	rejoin = 10 * time.Second
	// lockPatience is how long a page waits for a lock that somebody else has, before that
	// is told, and others get their turn.
	lockPatience = 5 * time.Second
)

// writer is the one session that writes. It holds the sync's lock: where the session
// ends, its transaction and its lock end together.
type writer struct {
	conn   *pgx.Conn
	fence  int64
	marked bool // it has the origin of syncs
}

func (m *Mirror) lockKey() int64 {
	sum := sha256.Sum256(append([]byte("lockstep sync "), m.id[:]...))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// Lock waits until no other engine works on the sync, for as long as ctx lasts, and
// takes it over: what the one before has not committed by then never will be. It
// keeps a connection of its own, and a goroutine that fills new columns and tries
// parked records again. release ends both and lets the next engine in; it may be
// called again.
//
// Errors: [lockstep.ErrNotFound] when the sync was removed.
//
// After [lockstep.ErrFenced] from any method another engine has taken the sync over:
// release, and Lock again.
func (m *Mirror) Lock(ctx context.Context) (release func(), err error) {
	w, err := m.await(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.begin(ctx, w); err != nil {
		_ = w.conn.Close(context.WithoutCancel(ctx)) // the error is what counts
		return nil, err
	}
	tending, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.tend(tending)
	}()
	return sync.OnceFunc(func() { //nolint:contextcheck // the writer must be closed although the caller's context has ended
		stop()
		<-done
		m.turn <- struct{}{}
		defer m.leave()
		if m.writer != nil && m.writer.fence == w.fence {
			m.closeWriter()
			m.writer = nil
		}
	}), nil
}

// await connects and asks for the lock until it has it.
func (m *Mirror) await(ctx context.Context) (*writer, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for waiting := false; ; waiting = true {
		held, err := m.tryLock(ctx, conn)
		if err != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
			return nil, err
		}
		if held {
			return &writer{conn: conn}, nil
		}
		if !waiting {
			m.log.InfoContext(ctx, "another engine works on this sync: waiting for it to end", obs.KeySync, m.config.Name)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = conn.Close(context.WithoutCancel(ctx))
			return nil, fmt.Errorf("wait for the lock of sync %q: %w", m.config.Name, context.Cause(ctx))
		}
	}
}

func (m *Mirror) tryLock(ctx context.Context, conn *pgx.Conn) (held bool, err error) {
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1::bigint)", m.lockKey()).Scan(&held); err != nil {
		return false, fmt.Errorf("take the lock of sync %q: %w", m.config.Name, passing(err))
	}
	return held, nil
}

// connect makes the session that writes. It knows only statements of ours, each of
// which finds its rows by a key: what the planner thinks of a table that was empty
// a minute ago must not make it read all of it. The keepalives end the session, and
// with it the lock, soon after the machine at this end is gone.
func (m *Mirror) connect(ctx context.Context) (*pgx.Conn, error) {
	config := m.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "lockstep sync " + m.config.Name
	maps.Copy(config.RuntimeParams, map[string]string{
		"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off", "plan_cache_mode": "force_generic_plan",
		"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
		"lock_timeout": strconv.FormatInt(lockPatience.Milliseconds(), 10), "statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "timezone": "UTC",
	})
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		// The driver's message names the user and the host, not the password.
		return nil, fmt.Errorf("sync %q: connect to its database: %w", m.config.Name, passing(err))
	}
	return conn, nil
}

// begin takes over: whatever the engine before still tries fails from now on.
func (m *Mirror) begin(ctx context.Context, w *writer) error {
	const bump = `
		UPDATE lockstep.sync
		SET fence = fence + 1, holder = $2::text, locked_at = now()
		WHERE id = $1::uuid
		RETURNING fence`
	host, _ := os.Hostname() // for people only
	holder := fmt.Sprintf("%s/%d", host, os.Getpid())
	err := w.conn.QueryRow(ctx, bump, m.id, holder).Scan(&w.fence)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("sync %q was removed: %w", m.config.Name, lockstep.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("take sync %q over: %w", m.config.Name, passing(err))
	}
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	w.marked = m.adoptOrigin(ctx, w.conn)
	m.writer = w
	m.recent = recent{}
	if err := m.load(ctx); err != nil {
		m.writer = nil
		return err
	}
	return nil
}

func (m *Mirror) closeWriter() {
	ctx, cancel := context.WithTimeout(context.Background(), rejoin) // the end of the session must not depend on the caller's patience
	defer cancel()
	_ = m.writer.conn.Close(ctx) // a broken session has ended by itself
}

// session returns the writing session, within the turn. One that broke is made anew,
// if nobody has taken the sync over meanwhile.
func (m *Mirror) session(ctx context.Context) (*pgx.Conn, error) {
	if m.writer == nil {
		return nil, fmt.Errorf("sync %q: its lock is not held: %w", m.config.Name, lockstep.ErrFenced)
	}
	if !m.writer.conn.IsClosed() {
		return m.writer.conn, nil
	}
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.rejoin(ctx, conn); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	m.writer.marked = m.adoptOrigin(ctx, conn)
	m.writer.conn = conn
	// Nobody knows whether the transaction that was under way has committed.
	return conn, m.load(ctx)
}

// rejoin takes the lock again, when the server has noticed the end of the session
// that had it.
func (m *Mirror) rejoin(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, rejoin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		held, err := m.tryLock(ctx, conn)
		if err != nil {
			return err
		}
		if held {
			return m.checkFence(ctx, conn)
		}
		if err := m.checkFence(ctx, conn); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("sync %q: its lock is still held by a session that broke: %w", m.config.Name, errors.Join(lockstep.ErrUnavailable, context.Cause(ctx)))
		}
	}
}

const fenceQuery = `
	SELECT fence
	FROM lockstep.sync
	WHERE id = $1::uuid`

func (m *Mirror) checkFence(ctx context.Context, conn *pgx.Conn) error {
	var fence int64
	err := conn.QueryRow(ctx, fenceQuery, m.id).Scan(&fence)
	return m.fenced(fence, err)
}

// within runs f in a transaction of the writing session, if it still may write.
func (m *Mirror) within(ctx context.Context, conn *pgx.Conn, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := m.checkFence(ctx, conn); err != nil {
			return err
		}
		if err := f(tx); err != nil || !m.writer.marked {
			return err
		}
		_, err := tx.Exec(ctx, stampQuery)
		return err
	})
}

// fenced judges what the fence query has returned.
func (m *Mirror) fenced(fence int64, err error) error {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("sync %q was removed: %w", m.config.Name, lockstep.ErrFenced)
	case err != nil:
		return fmt.Errorf("check the fence of sync %q: %w", m.config.Name, passing(err))
	case fence != m.writer.fence:
		return fmt.Errorf("sync %q: another engine has taken it over: %w", m.config.Name, lockstep.ErrFenced)
	}
	return nil
}
