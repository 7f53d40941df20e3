package torture_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// complains waits until the node says why it is not ready, with the remedy.
func (n *node) complains(text string) {
	n.t.Helper()
	pgtest.Eventually(n.t, 20*time.Second, "the node says "+text, func() bool {
		status, body := n.call(http.MethodGet, "/readyz", "")
		return status == http.StatusServiceUnavailable && strings.Contains(body, text)
	})
}

// roleNode is a node that captures a database as a role of its own, by password.
func roleNode(t *testing.T) *node {
	t.Helper()
	c := pgtest.Cluster(t, nil)
	if err := c.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, c.URL("app"))
	n.exec("CREATE ROLE capturer LOGIN REPLICATION PASSWORD 'first'", "CREATE TABLE a (id int PRIMARY KEY)", "ALTER TABLE a OWNER TO capturer",
		"ALTER TABLE "+fenceTable+" OWNER TO capturer", "GRANT CREATE ON DATABASE app TO capturer")
	u, err := url.Parse(c.TCPURL("app"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("capturer", "first")
	n.configure(u.String())
	return n.start()
}

const cutCapturer = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'capturer'"

func TestE01RoleLosesReplicationOrItsPassword(t *testing.T) {
	t.Parallel()
	n := roleNode(t)
	n.exec("INSERT INTO a VALUES (1)", "ALTER ROLE capturer NOREPLICATION", cutCapturer, "INSERT INTO a VALUES (2)")
	n.complains("ALTER ROLE")
	n.exec("ALTER ROLE capturer REPLICATION")
	n.ready()
	n.exec("ALTER ROLE capturer PASSWORD 'second'", cutCapturer, "INSERT INTO a VALUES (3)")
	n.complains("password")
	n.exec("ALTER ROLE capturer PASSWORD 'first'")
	n.ready()
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`, `insert a[2] {"id":2}`, `insert a[3] {"id":3}`)
}

// refusePooled answers replication as a pooler does.
func refusePooled(client net.Conn, first []byte) bool {
	if !bytes.Contains(first, []byte("replication\x00")) {
		return false
	}
	refusal, _ := (&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: replication"}).Encode(nil)
	_, _ = client.Write(refusal)
	return true
}

func TestE02PoolerInFrontOfPostgres(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	p := newProxy(t, n.url)
	p.refuse = refusePooled
	n.configure(p.url(t, n.url))
	n.launch()
	n.complains("pooler")
}

func TestE03NoSlotIsFree(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"max_replication_slots": "1"})
	n := newNode(t, c.URL("postgres"))
	n.exec("SELECT pg_create_physical_replication_slot('taken')", "CREATE TABLE a (id int PRIMARY KEY)")
	n.launch()
	n.complains("raise max_replication_slots")
	n.exec("SELECT pg_drop_replication_slot('taken')")
	n.ready()
	n.exec("INSERT INTO a VALUES (1)")
	n.check(terms{})
}

func TestE04WALLevelIsTooLow(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"wal_level": "replica"})
	n := newNode(t, c.URL("postgres"))
	n.launch()
	n.complains("wal_level = logical")
}

// One database that cannot be captured does not keep the others.
func TestE05OneDatabaseIsAway(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t), "}\n  - {name: away, url: \"postgres://nobody@127.0.0.1:1/none\", slot: away")
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.launch()
	n.complains("127.0.0.1")
	pgtest.Eventually(t, 20*time.Second, "the other one is captured", func() bool { return n.database().Connected })
	n.exec("INSERT INTO a VALUES (1)")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`)
}

func TestE06DiskOfTheNodeIsFull(t *testing.T) {
	t.Parallel()
	if !longRun() {
		t.Skip("runs for half a minute: with LOCKSTEP_LONG=1; engine has a smaller one, TestFullDiskIsToldAndLosesNothing")
	}
	if os.Getuid() != 0 {
		t.Skip("a file system of a size of one's own needs root")
	}
	n := newNode(t, pgtest.Database(t))
	n.process = true
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", n.dir, "tmpfs", 0, "size=60m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		n.kill()
		if err := syscall.Unmount(n.dir, 0); err != nil {
			t.Error(err)
		}
	})
	n.exec("CREATE TABLE a (id int PRIMARY KEY, pad text)")
	n.start()
	n.exec("INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 70000) i")
	n.complains("disk")
	durable := n.database()
	if confirmed := n.one("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1::text", n.slot); durable.LastSeq < 70000 && lsn(t, confirmed) >= lsn(t, n.one("SELECT pg_current_wal_lsn()")) {
		t.Errorf("confirmed up to %s with %d of 70000 rows on disk", confirmed, durable.LastSeq)
	}
	if err := syscall.Mount("tmpfs", n.dir, "tmpfs", syscall.MS_REMOUNT, "size=600m"); err != nil {
		t.Fatal(err)
	}
	n.ready()
	n.check(terms{})
}

// The scaled-down form of 100,000 tables, which LOCKSTEP_LONG=1 makes.
func TestE07CatalogWithManyTables(t *testing.T) {
	t.Parallel()
	many := 500
	if longRun() {
		many = 100_000
	}
	n := newNode(t, pgtest.Database(t))
	s := newSession(t, n.url)
	for from := 0; from < many; from += 500 {
		s.exec(fmt.Sprintf("DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE TYPE e%%s AS ENUM (''a''); CREATE TABLE t%%s (id int PRIMARY KEY, e e%%1$s)', i, i); END LOOP; END $$", from, from+499))
	}
	began := time.Now()
	n.start()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the start took %s with %d tables", took, many)
	}
	n.exec("INSERT INTO t0 VALUES (1, 'a')", fmt.Sprintf("INSERT INTO t%d VALUES (1, 'a')", many-1))
	n.fence()
	n.expect(`insert t0[1] {"id":1,"e":"a"}`, fmt.Sprintf(`insert t%d[1] {"id":1,"e":"a"}`, many-1))
}

func TestE08PostgresCrashesUnderLoad(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	n := newNode(t, c.URL("postgres"))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.start()
	for i := range 3 {
		n.exec(fmt.Sprintf("INSERT INTO a SELECT i, repeat('x', 500) FROM generate_series(%d, %d) i", i*5000, i*5000+4999), "UPDATE a SET v = 'y' WHERE id % 100 = 0")
		crash := c.Kill
		if i == 1 {
			crash = c.KillHard
		}
		if err := crash(); err != nil {
			t.Fatal(err)
		}
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.ready()
	n.check(terms{})
}

func TestE09SecondNodeOnTheDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t)).start()
	if err := n.refusal(); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the second node ended with %v, want a conflict that names the process", err)
	}
	n.exec("CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)")
	n.check(terms{})
}

// A walsender that is ended by somebody, again and again, costs nothing but time.
func TestE10WalsenderIsEnded(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.start()
	for i := range 6 {
		n.exec(fmt.Sprintf("INSERT INTO a SELECT i, repeat('x', 500) FROM generate_series(%d, %d) i", i*2000, i*2000+1999),
			"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND slot_name = '"+n.slot+"'")
	}
	n.check(terms{})
}
