// Package pgtest gives tests a real Postgres: one private cluster per test binary,
// started when the first test asks for it, and a database of its own per test.
//
// # Guarantees
//
//  1. Tests that use [Database] may run in parallel.
//  2. Nothing is left behind: databases and their replication slots go with the
//     test, the cluster and its directory with the test binary, also when the
//     binary dies (the directory then goes when the next one starts a cluster).
//  3. wal_level is logical; there is room for 50 slots. fsync is off: a test of
//     what a power cut loses needs other means.
//
// A package that uses it declares
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/cluster"
)

// prefix names the clusters' directories below the temporary directory.
const prefix = "lockstep-pgtest-"

// wait bounds each step of a harness function.
const wait = time.Minute

// shared is the test binary's cluster: a test binary has one by nature, and the
// tests of a package have no other place to meet.
var shared struct {
	sync.Mutex
	cluster *cluster.Cluster
	err     error // the start was tried and gave this
	names   atomic.Int64
}

// Main runs the tests of a package, stops the shared cluster, and exits.
func Main(m *testing.M) { os.Exit(Suite{m}.Run()) }

// Suite runs tests as [Main] does, but returns: goleak.VerifyTestMain(pgtest.Suite{m})
// looks for leaked goroutines when the cluster's own are gone.
type Suite struct{ M *testing.M }

// Run runs the tests, stops the shared cluster and returns the exit code.
func (s Suite) Run() int {
	code := s.M.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		return nil
	}
	dir := shared.cluster.Dir()
	// At once: what is in it is thrown away.
	err := errors.Join(shared.cluster.Kill(), shared.cluster.Stop(context.Background()), os.RemoveAll(dir))
	shared.cluster = nil
	return err
}

// Database returns the URL of a new, empty database in the shared cluster. At the
// end of the test its sessions are ended and its slots and itself dropped.
func Database(t testing.TB) string {
	t.Helper()
	c := sharedCluster(t)
	name := fmt.Sprintf("t%d", shared.names.Add(1))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := c.CreateDatabase(ctx, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(t, c, name) })
	return c.URL(name)
}

func sharedCluster(t testing.TB) *cluster.Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		sweep()
		shared.cluster, shared.err = start(nil)
	}
	if shared.err != nil {
		t.Fatal("start the tests' Postgres:", shared.err)
	}
	return shared.cluster
}

// Cluster returns a cluster of the test's own, for restarts, crashes and settings.
// It is removed at the end of the test.
func Cluster(t testing.TB, settings map[string]string) *cluster.Cluster {
	t.Helper()
	c, err := start(settings)
	if err != nil {
		t.Fatal("start a Postgres for this test:", err)
	}
	t.Cleanup(func() {
		// At once: a clean stop would wait for walsenders whose clients are gone.
		if err := errors.Join(c.Stop(ended()), os.RemoveAll(c.Dir())); err != nil {
			t.Error("remove the test's Postgres:", err)
		}
	})
	return c
}

// ended returns a context that is over: Stop then does not wait for a clean end.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func start(settings map[string]string) (*cluster.Cluster, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	// Open to Postgres' user, which it is under root: then the socket lies in it too.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	all := map[string]string{
		"fsync":                   "off",
		"full_page_writes":        "off",
		"autovacuum":              "off", // its transactions would show up between the test's
		"max_connections":         "200",
		"shared_buffers":          "32MB",
		"log_error_verbosity":     "default",
		"log_min_error_statement": "error",
	}
	maps.Copy(all, settings)
	// No context of a test: the shared cluster outlives the test that started it.
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Dir: dir, Settings: all})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// sweep removes what test binaries that died have left: directories that nobody
// holds the lock of, older than any start takes.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")) // errs on a bad pattern only
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < 10*time.Minute {
			continue
		}
		if abandoned(filepath.Join(dir, "lock")) {
			_ = os.RemoveAll(dir) // another user's directory stays
		}
	}
}

func abandoned(lock string) bool {
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// drop removes a database with the slots that keep it.
func drop(t testing.TB, c *cluster.Cluster, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait) // the test's own is over
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		t.Error("drop the test's database:", err)
		return
	}
	defer conn.Close(ctx)
	if err := dropSlots(ctx, conn, name); err != nil {
		t.Error("drop the slots of the test's database:", err)
		return
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE "+pgdb.QuoteIdent(name)+" WITH (FORCE)"); err != nil {
		t.Error("drop the test's database:", err)
	}
}

// dropSlots ends the walsenders of the database until every slot can be dropped.
func dropSlots(ctx context.Context, conn *pgx.Conn, database string) error {
	const end = `
		SELECT pg_terminate_backend(active_pid)
		FROM pg_replication_slots
		WHERE database = $1::text AND active`
	const remove = `
		SELECT pg_drop_replication_slot(slot_name)
		FROM pg_replication_slots
		WHERE database = $1::text AND NOT active`
	const left = `
		SELECT count(*)
		FROM pg_replication_slots
		WHERE database = $1::text`
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := conn.Exec(ctx, end, database)
		if err == nil {
			_, err = conn.Exec(ctx, remove, database) // may meet a slot that became active: next round
		}
		var n int
		if scan := conn.QueryRow(ctx, left, database).Scan(&n); scan != nil {
			return scan
		}
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d slots do not go: %w", n, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// Exec runs statements one after the other, each in a transaction of its own, over
// one connection, and fails the test at the first error. A string may hold several
// statements; they then share one transaction.
func Exec(t testing.TB, url string, sql ...string) {
	t.Helper()
	ctx, conn, end := connect(t, url)
	defer end()
	for _, s := range sql {
		if _, err := conn.Exec(ctx, s).ReadAll(); err != nil {
			t.Fatalf("%s\n%v", shorten(s), err)
		}
	}
}

// Query returns the rows of a query in Postgres' text form, NULL as "NULL". The
// arguments are passed as text and take the types that the query gives them.
func Query(t testing.TB, url, sql string, args ...any) [][]string {
	t.Helper()
	ctx, conn, end := connect(t, url)
	defer end()
	values := make([][]byte, len(args))
	for i, a := range args {
		if a != nil {
			values[i] = fmt.Append(nil, a)
		}
	}
	result := conn.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if result.Err != nil {
		t.Fatalf("%s\n%v", shorten(sql), result.Err)
	}
	rows := make([][]string, len(result.Rows))
	for i, row := range result.Rows {
		rows[i] = make([]string, len(row))
		for j, v := range row {
			rows[i][j] = string(v)
			if v == nil {
				rows[i][j] = "NULL"
			}
		}
	}
	return rows
}

// connect makes a connection for one harness function, which calls end. It works in
// a test's cleanup too, where the test's context is over.
func connect(t testing.TB, url string) (ctx context.Context, conn *pgconn.PgConn, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), wait)
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return ctx, conn, func() {
		_ = conn.Close(ctx) // it may have been cut by the test
		cancel()
	}
}

func shorten(sql string) string {
	sql = strings.TrimSpace(sql)
	if len(sql) > 500 {
		return sql[:500] + " …"
	}
	return sql
}

// Eventually waits until cond holds, looking every 10 ms, and fails the test when
// it does not within the time. what names the condition in the failure.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			if cond() { // the machine may have stood still
				return
			}
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}
