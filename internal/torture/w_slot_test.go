package torture_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/pgdb/pgtest"
)

func TestW07SlotMadeAnewBehindOurBack(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	n.exec("INSERT INTO a VALUES (1), (2)")
	n.fence()
	n.kill()
	n.exec("SELECT pg_drop_replication_slot('"+n.slot+"')", "INSERT INTO a VALUES (3)", "DELETE FROM a WHERE id = 1",
		"SELECT pg_create_logical_replication_slot('"+n.slot+"', 'pgoutput')")
	n.start()
	n.says("slot_moved")
	n.exec("INSERT INTO a VALUES (4)")
	n.check(terms{gaps: true})
	n.expect(`insert a[1] {"id":1}`, `insert a[2] {"id":2}`, `gap start slot_moved`, `insert a[4] {"id":4}`)
	n.repair(t)
}

// slotLoser is a cluster that takes a slot's WAL away soon, and capture of it whose
// disk hangs.
func slotLoser(t *testing.T) *spine {
	t.Helper()
	c := pgtest.Cluster(t, map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "1GB"})
	url := c.URL("postgres")
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE SCHEMA unwatched", "CREATE TABLE unwatched.noise (v text)")
	s := newSpine(t, url)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)")
	pgtest.Eventually(t, 10*time.Second, "the rows", func() bool { return s.log.Last().Seq == 2 })
	s.log.shut()
	return s
}

// The log is held up, so that the slot keeps WAL until Postgres takes it away.
func TestW08SlotInvalidatedByPostgres(t *testing.T) {
	t.Parallel()
	s := slotLoser(t)
	pgtest.Exec(t, s.url, "INSERT INTO a VALUES (3)", "DELETE FROM a WHERE id = 1")
	alarmed := false
	for i := 0; i < 60 && s.slot("wal_status") != "lost"; i++ {
		pgtest.Exec(t, s.url, "INSERT INTO unwatched.noise SELECT repeat('x', 1000) FROM generate_series(1, 2000)", "SELECT pg_switch_wal()")
		if s.slot("wal_status") == "unreserved" && !alarmed {
			alarmed = true
			pgtest.Eventually(t, 10*time.Second, "capture sees the alarm and warns", func() bool {
				return s.Status().Slot.WALStatus == "unreserved" && strings.Contains(s.Status().Warning, "max_slot_wal_keep_size")
			})
			pgtest.Exec(t, s.url, "CHECKPOINT")
		}
	}
	if !alarmed {
		t.Error("there was no alarm before the loss")
	}
	pgtest.Exec(t, s.url, "INSERT INTO a VALUES (4)")
	s.log.open()
	pgtest.Eventually(t, 30*time.Second, "capture begins anew", func() bool { return s.Status().Gap == "slot_lost" && s.Status().Connected })
	pgtest.Exec(t, s.url, "INSERT INTO a VALUES (5)")
	got := s.check(terms{gaps: true})
	n := len(got)
	if want := `insert a[5] {"id":5,"v":null}`; n < 4 || line(got[n-1]) != want || line(got[n-2]) != "gap start slot_lost" {
		t.Errorf("the last of %d changes are not the gap and %s", n, want)
	}
}

func TestW08SlotLostWhileTheNodeIsDown(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "64MB"})
	n := newNode(t, c.URL("postgres"), `, tables: ["-unwatched.*"]`)
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE SCHEMA unwatched", "CREATE TABLE unwatched.noise (v text)")
	n.start()
	n.exec("INSERT INTO a VALUES (1), (2), (3)")
	n.fence()
	n.kill()
	n.exec("UPDATE a SET v = 'changed' WHERE id = 1", "DELETE FROM a WHERE id = 2", "INSERT INTO a VALUES (4)")
	pgtest.Eventually(t, time.Minute, "Postgres takes the WAL away", func() bool {
		n.exec("INSERT INTO unwatched.noise SELECT repeat('x', 1000) FROM generate_series(1, 20000)", "SELECT pg_switch_wal()", "CHECKPOINT")
		return n.one("SELECT wal_status FROM pg_replication_slots") == "lost"
	})
	n.start()
	n.says("slot_lost")
	n.exec("INSERT INTO a VALUES (5)")
	n.check(terms{gaps: true})
	n.expect(`insert a[1] {"id":1,"v":null}`, `insert a[2] {"id":2,"v":null}`, `insert a[3] {"id":3,"v":null}`, `gap start slot_lost`, `insert a[5] {"id":5,"v":null}`)
	n.repair(t)
}

// Postgres ends the walsender before it takes the slot's WAL away, and its
// checkpointer waits for that. A walsender that is stuck in sending cannot end, unless
// its client reads on, or goes.
func TestX01HungDiskOfOursDoesNotHangCheckpointsOfPostgres(t *testing.T) {
	t.Parallel()
	s := slotLoser(t)
	pgtest.Exec(t, s.url, "INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(10, 40000) i")
	pgtest.Eventually(t, 20*time.Second, "the walsender is stuck in sending", func() bool {
		return pgtest.Query(t, s.url, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'WalSenderWriteData'")[0][0] == "1"
	})
	var longest time.Duration
	for i := 0; i < 60 && s.Status().Gap == ""; i++ {
		pgtest.Exec(t, s.url, "INSERT INTO unwatched.noise SELECT repeat('x', 1000) FROM generate_series(1, 2000)", "SELECT pg_switch_wal()")
		began := time.Now()
		pgtest.Exec(t, s.url, "SET statement_timeout = '40s'; CHECKPOINT")
		longest = max(longest, time.Since(began))
	}
	if longest > 20*time.Second {
		t.Errorf("a checkpoint took %s", longest)
	}
	if got := s.Status().Gap; got != "slot_lost" {
		t.Errorf("the gap is %q, want slot_lost: Postgres took the slot's WAL away", got)
	}
	s.log.open()
	pgtest.Eventually(t, 30*time.Second, "capture goes on", func() bool { return s.Status().Connected })
	pgtest.Exec(t, s.url, "INSERT INTO a VALUES (5)")
	got := s.check(terms{gaps: true})
	if n := len(got); n < 4 || line(got[n-1]) != `insert a[5] {"id":5,"v":null}` || line(got[n-2]) != "gap start slot_lost" {
		t.Errorf("the last of %d changes are not the gap and what came after it", n)
	}
}

func TestW09SecondNodeOnTheSlot(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	second := newNode(t, n.url)
	second.launch()
	pid := n.one("SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1::text", n.slot)
	pgtest.Eventually(t, 20*time.Second, "the second node says for whom it waits", func() bool {
		d := second.database()
		return d.Status != "ok" && strings.Contains(d.Reason, pid)
	})
	n.exec("INSERT INTO a VALUES (1)")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`)
	if now := n.one("SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1::text", n.slot); now != pid {
		t.Errorf("the walsender was %s and is %s: it was ended by a stranger", pid, now)
	}
}

// Both sides are told of the cut here. One that neither side is told of takes 25
// seconds to notice: internal/capture/wal has that case with a shorter patience.
func TestW09CutConnectionsOfOurOwn(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	proxy := newProxy(t, url)
	n := newNode(t, url)
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.configure(proxy.url(t, url))
	n.start()
	for i := range 5 {
		n.exec(fmt.Sprintf("INSERT INTO a SELECT i, repeat('x', 500) FROM generate_series(%d, %d) i", i*1000, i*1000+999))
		at := n.database().LastSeq
		pgtest.Eventually(t, 20*time.Second, "something more to come", func() bool { return n.database().LastSeq > at || at == uint64(i+1)*1000 })
		proxy.cut()
	}
	n.check(terms{})
}

// A copy of the data directory that is started as a standby and promoted is one
// that lacks what the primary wrote last: an asynchronous failover. With the slot in
// it, it is one of Postgres 17 and later; without, of all others.
func TestW10PromotedStandby(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, drop string }{
		{"with the slot, as Postgres 17 and later can", ""},
		{"without the slot", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			primary := pgtest.Cluster(t, nil)
			n := newNode(t, primary.URL("postgres"))
			n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
			n.start()
			n.exec("INSERT INTO a VALUES (1, 'both'), (2, 'both')")
			n.fence()
			n.kill()
			standby := copyOf(t, primary)
			n.start()
			n.exec("INSERT INTO a VALUES (3, 'primary only')", "UPDATE a SET v = 'primary only' WHERE id = 1", "DELETE FROM a WHERE id = 2")
			n.fence()
			n.kill()
			standby.promote(t, c.drop)
			n.url = standby.URL("postgres")
			n.exec("INSERT INTO a VALUES (4, 'before we came')")
			n.configure(n.url)
			n.start()
			n.says("failover")
			n.exec("INSERT INTO a VALUES (5, 'after')")
			n.fences += 10 // the standby lacks some, too
			n.check(terms{gaps: true})
			lines := n.lines()[5:]
			want := []string{`insert a[5] {"id":5,"v":"after"}`}
			if c.drop == "" { // a slot's place is that of its last checkpoint, or later
				want = []string{`insert a[4] {"id":4,"v":"before we came"}`, want[0]}
			}
			if lines[0] != "gap start failover" || !cmp.Equal(lines[len(lines)-len(want):], want) {
				t.Errorf("after the failover came\n%s", strings.Join(lines, "\n"))
			}
			n.repair(t)
		})
	}
}

func TestW10ForeignClusterIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.start()
	n.kill()
	other := pgtest.Cluster(t, nil)
	n.configure(other.URL("postgres"))
	if err := n.refusal(); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "another Postgres cluster") {
		t.Error("the node ended with", err)
	}
	if slots := pgtest.Query(t, other.URL("postgres"), "SELECT slot_name FROM pg_replication_slots"); len(slots) > 0 {
		t.Error("it made slots there:", slots)
	}
}

// stopped is a copy of a cluster that was not started yet.
type stopped struct {
	dir string
	*cluster.Cluster
}

// copyOf copies a cluster at a moment, and lets it run on.
func copyOf(t *testing.T, c *cluster.Cluster) *stopped {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Kill(); err != nil { // as a base backup: it recovers by its WAL
		t.Fatal(err)
	}
	dir := c.Dir() + "-standby" // where Postgres' user may pass
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(c.Dir(), "data"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"password"} {
		_ = exec.CommandContext(ctx, "cp", "-a", filepath.Join(c.Dir(), name), dir).Run() // where there is one
	}
	if err := c.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	return &stopped{dir: dir}
}

// promote starts the copy as a standby and promotes it.
func (s *stopped) promote(t *testing.T, after string) {
	t.Helper()
	signal := filepath.Join(s.dir, "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "--reference", filepath.Dir(signal), signal).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The log's file and the pid of the original must not be taken for its own.
	_ = os.Remove(filepath.Join(s.dir, "data", "postmaster.pid"))
	var err error
	s.Cluster, err = cluster.Start(t.Context(), cluster.Config{Dir: s.dir, Settings: map[string]string{"fsync": "off", "hot_standby": "on", "max_connections": "200"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once: what is in it is thrown away
		_ = s.Stop(ctx)
	})
	pgtest.Exec(t, s.URL("postgres"), "SELECT pg_promote()")
	if after != "" {
		pgtest.Exec(t, s.URL("postgres"), after)
	}
}

func TestW11ShutdownOfPostgresIsNotHeldUp(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	n := newNode(t, c.URL("postgres"))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.start()
	n.exec("INSERT INTO a SELECT i, repeat('x', 300) FROM generate_series(1, 20000) i")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	if err := c.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a fast shutdown and a start took %s", took)
	}
	n.ready()
	n.exec("INSERT INTO a VALUES (0, 'after')")
	n.check(terms{})
}

func TestW12PublicationMadeAnew(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	n.exec("INSERT INTO a VALUES (1), (2)")
	n.fence()
	n.exec("BEGIN; DROP PUBLICATION lockstep_app; DELETE FROM a WHERE id = 1; COMMIT")
	n.untilGap()
	n.ready()
	n.says("publication_rebuilt")
	n.exec("INSERT INTO a VALUES (3)")
	n.check(terms{gaps: true})
	n.repair(t)
}

func TestW12PublicationEmptied(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	n.exec("INSERT INTO a VALUES (1), (2)")
	n.fence()
	// What is deleted while the table is out is seen by nobody.
	n.exec("BEGIN; ALTER PUBLICATION lockstep_app DROP TABLE a; DELETE FROM a WHERE id = 1; COMMIT")
	n.untilGap()
	n.exec("INSERT INTO a VALUES (3)")
	n.check(terms{gaps: true})
	n.repair(t)
}

// Tables that are made by a query hold rows before any publication can know them.
func TestW13TableWithRowsJoins(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.start()
	n.exec("BEGIN; CREATE TABLE a AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 1000) i; ALTER TABLE a ADD PRIMARY KEY (id); COMMIT")
	pgtest.Eventually(t, 20*time.Second, "the table is published in full", func() bool {
		return n.one("SELECT count(*) FROM pg_publication_tables WHERE pubname = 'lockstep_app' AND tablename = 'a'") == "1"
	})
	n.exec("UPDATE a SET v = 'w' WHERE id <= 10", "DELETE FROM a WHERE id > 990", "INSERT INTO a VALUES (2000, 'x')")
	n.check(terms{})
	if got := len(n.lines()); got < 1021 {
		t.Errorf("%d changes, want at least the rows and what came after", got)
	}
}

// A table whose rows would hold its writers up for long joins without them, and
// says so.
func TestW13TableTooLargeToJoin(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.start()
	n.exec("BEGIN; CREATE TABLE a AS SELECT i AS id, repeat('v', 110000) AS v FROM generate_series(1, 330) i; ALTER TABLE a ADD PRIMARY KEY (id); COMMIT")
	n.untilGap()
	n.says("rows_missing")
	n.exec("UPDATE a SET v = 'w' WHERE id <= 10", "DELETE FROM a WHERE id > 320")
	n.check(terms{gaps: true})
	n.repair(t)
}

// untilGap reads until a gap begins.
func (n *node) untilGap() {
	n.t.Helper()
	n.until("a gap", isGapStart)
}
