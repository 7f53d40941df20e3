package torture_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/stream"
)

// spine is the product's capture and stream without the engine around them, for
// faults between the two.
type spine struct {
	t   testing.TB
	url string
	*wal.Capture
	log *valve
}

const joinSecret = "s3cret"

// newSpine starts capture of url, but for the schema unwatched, and waits until it
// streams.
func newSpine(t testing.TB, url string) *spine {
	t.Helper()
	pgtest.Exec(t, url, "CREATE TABLE IF NOT EXISTS public."+fenceTable+" (n bigint PRIMARY KEY)")
	server, err := stream.Open(t.Context(), stream.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	log, err := server.Log(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgdb.Open(t.Context(), url, "torture")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	tables := []string{"-unwatched.*"}
	patterns, err := pattern.Parse(tables)
	if err != nil {
		t.Fatal(err)
	}
	reconciler, err := publish.New(publish.Config{Pool: pool, Database: "app", Publication: "p", Patterns: patterns, Slot: slotOf(url), JoinSecret: joinSecret})
	if err != nil {
		t.Fatal(err)
	}
	s := &spine{t: t, url: url, log: newValve(log)}
	config := wal.Config{
		Database: "app", URL: url, Slot: slotOf(url), Publication: "p", Tables: tables, Log: s.log, JoinSecret: joinSecret,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Publish: func(ctx context.Context) error {
			_, _, err := reconciler.Ensure(ctx)
			return err
		},
	}
	if s.Capture, err = wal.New(config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("capture:", err)
		}
	})
	pgtest.Eventually(t, 30*time.Second, "capture streams", func() bool { return s.Status().Connected })
	return s
}

// check is the oracle, on what the stream holds.
func (s *spine) check(given terms) []client.Change {
	s.t.Helper()
	pgtest.Exec(s.t, s.url, "INSERT INTO public."+fenceTable+" VALUES (1)")
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	reader := s.log.Reader(1)
	defer reader.Close()
	var all []client.Change
	for {
		b, err := reader.Next(ctx)
		if err != nil {
			s.t.Fatalf("after %d changes: %v; capture: %+v", len(all), err, s.Status())
		}
		for i := range b.Len() {
			c, err := client.ParseChange(lockstep.AppendMessage(nil, b.Record(i), lockstep.MessageOptions{Database: "app"}))
			if err != nil {
				s.t.Fatal(err)
			}
			all = append(all, c)
		}
		if len(all) > 0 && all[len(all)-1].Metadata.TableName == fenceTable {
			judge(s.t, s.url, all, given)
			return all[:len(all)-1]
		}
	}
}

// slot returns a column of pg_replication_slots, or nothing while there is no slot.
func (s *spine) slot(column string) string {
	s.t.Helper()
	rows := pgtest.Query(s.t, s.url, "SELECT "+column+" FROM pg_replication_slots WHERE slot_name = $1::text", slotOf(s.url))
	if len(rows) == 0 {
		return ""
	}
	return rows[0][0]
}

// valve lets capture's batches through to the stream, or not: a disk that hangs.
type valve struct {
	*stream.Log
	mu     sync.Mutex
	opened chan struct{} // closed while the valve is open
}

func newValve(log *stream.Log) *valve {
	v := &valve{Log: log, opened: make(chan struct{})}
	close(v.opened)
	return v
}

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.opened = make(chan struct{})
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.opened)
}

// Append waits while the valve is shut.
func (v *valve) Append(ctx context.Context, w *lockstep.BatchWriter, mark lockstep.Mark, done func(error)) error {
	v.mu.Lock()
	opened := v.opened
	v.mu.Unlock()
	select {
	case <-opened:
		return v.Log.Append(ctx, w, mark, done)
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), lockstep.ErrUnavailable)
	}
}
