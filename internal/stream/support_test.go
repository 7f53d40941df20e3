package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"lockstep"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(appenderDir); dir != "" {
		appendUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var orders = &lockstep.Table{OID: 16400, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}

// openServer opens an embedded server that is closed with the test.
func openServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Dir == "" && cfg.URL == "" {
		cfg.Dir = t.TempDir()
	}
	if testing.Verbose() && cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

func closeServer(t testing.TB, s *Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func openLog(t testing.TB, s *Server) *Log {
	t.Helper()
	l, err := s.Log(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// natsServer is an external NATS with JetStream; restart stops and starts it on the
// same port and directory.
func natsServer(t testing.TB) (url string, restart func()) {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, SyncAlways: true}
	start := func() *server.Server {
		ns, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		ns.Start()
		if !ns.ReadyForConnections(20 * time.Second) {
			t.Fatal("NATS does not start")
		}
		return ns
	}
	ns := start()
	url = ns.ClientURL()
	if _, err := fmt.Sscanf(url[strings.LastIndex(url, ":")+1:], "%d", &opts.Port); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	}
	t.Cleanup(func() { stop() })
	return url, func() {
		stop()
		ns = start()
	}
}

// batchOf writes n changes of size bytes each, which commit one second apart from
// commit on.
func batchOf(n, size int, commit time.Time) *lockstep.BatchWriter {
	w := &lockstep.BatchWriter{}
	w.Reset(make([]byte, 0, n*(size+64)+256))
	for i := range n {
		w.Begin(lockstep.Tx{CommitLSN: 100, CommitTime: commit.Add(time.Duration(i) * time.Second).UnixMicro(), XID: 7})
		row := `{"v":"` + strings.Repeat("x", max(size-8, 0)) + `"}`
		buf := append(w.Open(), row...)
		w.Close(buf, lockstep.RecordHead{Action: lockstep.Insert, Table: w.Table(orders), KeyHash: uint64(i), RecordLen: len(row)})
	}
	return w
}

func small(n int) *lockstep.BatchWriter { return batchOf(n, 20, time.Unix(1_790_000_000, 0)) }

func markAt(lsn lockstep.LSN) lockstep.Mark {
	return lockstep.Mark{SystemID: 73, Timeline: 1, CommitLSN: lsn, Ordinal: 3, EndLSN: lsn + 8, Complete: true}
}

// append1 appends a batch and waits until it is durable.
func append1(t testing.TB, l *Log, w *lockstep.BatchWriter, mark lockstep.Mark) {
	t.Helper()
	if err := tryAppend(t.Context(), l, w, mark); err != nil {
		t.Fatal(err)
	}
}

func tryAppend(ctx context.Context, l *Log, w *lockstep.BatchWriter, mark lockstep.Mark) error {
	done := make(chan error, 1)
	if err := l.Append(ctx, w, mark, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func appendMany(t testing.TB, l *Log, batches, changes int) {
	t.Helper()
	done := make(chan error, batches)
	for i := range batches {
		if err := l.Append(t.Context(), small(changes), markAt(lockstep.LSN(i)), func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range batches {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// readTo reads all changes from seq from to seq last and checks that they are dense.
func readTo(t testing.TB, l *Log, from, last uint64) {
	t.Helper()
	r := l.Reader(from)
	defer r.Close()
	for next := from; next <= last; {
		b, err := r.Next(timed(t))
		if err != nil {
			t.Fatalf("read from %d: %v", next, err)
		}
		if b.First > next || b.Mark.Seq < next {
			t.Fatalf("got changes %d to %d, want %d", b.First, b.Mark.Seq, next)
		}
		next = b.Mark.Seq + 1
	}
}

func timed(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func wantError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want one that wraps %v", got, want)
	}
}
