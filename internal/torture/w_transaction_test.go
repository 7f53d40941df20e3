package torture_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// spilling makes Postgres spill every transaction of more than 64 kB.
const spilling = "logical_decoding_work_mem = '64kB'"

// longRun is set by LOCKSTEP_LONG=1: cases run at their full size.
func longRun() bool { return os.Getenv("LOCKSTEP_LONG") == "1" }

// The node is a process of its own, so that its memory is its own.
func TestW14TransactionLargerThanMemory(t *testing.T) {
	t.Parallel()
	rows := 200_000
	if longRun() {
		rows = 1_000_000
	}
	n := newNode(t, pgtest.Database(t))
	n.process = true
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.start()
	n.exec(fmt.Sprintf("INSERT INTO a SELECT i, repeat('x', 400) FROM generate_series(1, %d) i", rows))
	pgtest.Eventually(t, 5*time.Minute, "all rows to be in the stream", func() bool { return n.database().LastSeq == uint64(rows) })
	if peak := peakMemory(t, n.cmd.Process.Pid); peak > 256 {
		t.Errorf("the node used %d MB for a transaction of %d MB", peak, rows*450>>20)
	} else {
		t.Logf("%d rows in one transaction, the node used %d MB", rows, peak)
	}
	// Content by count and order: the replica of other cases would hold it all.
	next, position := 1, uint64(0)
	for event, err := range n.api.Tail(t.Context(), "app", client.TailOptions{From: "beginning"}) {
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.ParseChange(event.Data)
		if err != nil {
			t.Fatal(err)
		}
		m := c.Metadata
		if position == 0 {
			position = m.CommitLSN
		}
		if m.Seq != uint64(next) || m.CommitIdx != uint64(next-1) || m.CommitLSN != position || m.RecordPKs[0] != strconv.Itoa(next) {
			t.Fatalf("at %d came %.200s", next, line(c))
		}
		if next++; next > rows {
			break
		}
	}
}

// peakMemory returns the most resident memory that a process has had, in MB.
func peakMemory(t testing.TB, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("this system does not tell the peak of a process' memory:", err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}

// spilled prepares a node on a database whose transactions spill.
func spilled(t *testing.T) *node {
	t.Helper()
	n := newNode(t, pgtest.Database(t))
	alterDatabase(t, n.url, spilling)
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	return n.start()
}

// series is what an INSERT of generate_series makes.
func series(from, to int) []string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprintf(`insert a[%d] {"id":%d}`, i, i))
	}
	return all
}

func TestW15RolledBackSavepointInALargeTransaction(t *testing.T) {
	t.Parallel()
	n := spilled(t)
	n.exec(`BEGIN; INSERT INTO a SELECT generate_series(1, 10000); SAVEPOINT s; INSERT INTO a SELECT generate_series(10001, 20000);
		ROLLBACK TO s; INSERT INTO a SELECT generate_series(20001, 21000); COMMIT`)
	n.check(terms{})
	n.expect(append(series(1, 10000), series(20001, 21000)...)...)
}

func TestW16LargeTransactionRolledBack(t *testing.T) {
	t.Parallel()
	n := spilled(t)
	n.exec("BEGIN; INSERT INTO a SELECT generate_series(1, 20000); ROLLBACK", "INSERT INTO a VALUES (1)")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`)
	pgtest.Eventually(t, 20*time.Second, "no spill file to be left in the slot", func() bool {
		return n.one("SELECT count(*) FROM pg_ls_dir('pg_replslot/' || $1::text) f WHERE f LIKE 'xid%'", n.slot) == "0"
	})
}

func TestW17LargeTransactionsInterleaved(t *testing.T) {
	t.Parallel()
	n := spilled(t)
	one, two := newSession(t, n.url), newSession(t, n.url)
	one.exec("BEGIN")
	two.exec("BEGIN")
	for i := range 5 {
		one.exec(fmt.Sprintf("INSERT INTO a SELECT generate_series(%d, %d)", i*1000, i*1000+999))
		two.exec(fmt.Sprintf("INSERT INTO a SELECT generate_series(%d, %d)", 10000+i*1000, 10000+i*1000+999))
	}
	two.exec("COMMIT")
	one.exec("COMMIT")
	n.check(terms{})
	n.expect(append(series(10000, 14999), series(0, 4999)...)...)
}

func TestW18RolledBackSavepoint(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY)"},
		in:     []string{"BEGIN; INSERT INTO a VALUES (5); SAVEPOINT s; INSERT INTO a VALUES (6); ROLLBACK TO s; COMMIT"},
		out:    []string{`insert a[5] {"id":5}`},
	}.run(t)
}

// The scaled-down form of an hour: the transaction is as old as the case.
func TestW19OpenTransactionHoldsNothingUp(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	idle := newSession(t, n.url)
	idle.exec("BEGIN", "INSERT INTO a VALUES (1)")
	n.exec("INSERT INTO a VALUES (2)")
	n.fence()
	written := lsn(t, n.one("SELECT pg_current_wal_lsn()"))
	n.exec("SELECT pg_logical_emit_message(true, 'later', '')")
	pgtest.Eventually(t, 30*time.Second, "confirmed_flush_lsn goes on", func() bool {
		return lsn(t, n.one("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1::text", n.slot)) >= written
	})
	if longRun() { // it is told when it is older than a minute
		pgtest.Eventually(t, 2*time.Minute, "the node names the transaction", func() bool {
			return strings.Contains(n.database().Reason, fmt.Sprint("pid ", idle.conn.PgConn().PID()))
		})
	}
	idle.exec("COMMIT")
	n.check(terms{})
	n.expect(`insert a[2] {"id":2}`, `insert a[1] {"id":1}`)
}

// A slot is not made before the transactions that are open have ended: the start is
// not held up by it, and the culprit is named.
func TestW19OpenTransactionAtTheStartIsNamed(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	idle := newSession(t, n.url)
	idle.exec("BEGIN", "INSERT INTO a VALUES (1)")
	pid := fmt.Sprint(idle.conn.PgConn().PID())
	n.launch()
	if err := n.api.Ready(t.Context()); err == nil {
		t.Error("a node without a slot is ready")
	}
	pgtest.Eventually(t, 30*time.Second, "the node names the transaction", func() bool {
		d := n.database()
		return d.Status != "ok" && strings.Contains(d.Reason, "pid "+pid)
	})
	idle.exec("COMMIT")
	n.ready()
	n.exec("DELETE FROM a") // a row of before capture: not the stream's
	n.fence()
	n.expect(`delete a[1] {"id":1} key only`)
}

// Postgres fills a constant default into every row without writing one: what that
// means for rows of before is in no change, and is a gap.
func TestW20ColumnAddedInsideATransaction(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.start()
	n.exec("INSERT INTO a VALUES (0, 'w')", `BEGIN; INSERT INTO a VALUES (1, 'x'); ALTER TABLE a ADD COLUMN w int DEFAULT 5;
		INSERT INTO a VALUES (2, 'y', 6); UPDATE a SET v = 'z' WHERE id = 1; COMMIT`)
	n.untilGap()
	n.says("table_rewritten")
	n.check(terms{gaps: true})
	n.expect(`insert a[0] {"id":0,"v":"w"}`, `insert a[1] {"id":1,"v":"x"}`, `insert a[2] {"id":2,"v":"y","w":6}`, `update a[1] {"id":1,"v":"z","w":5} was ?`, `gap a start table_rewritten`)
	n.repair(t)
}

func TestW21LogicalMessagesAndAnnotations(t *testing.T) {
	t.Parallel()
	emit := func(transactional, prefix, content string) string {
		return "SELECT pg_logical_emit_message(" + transactional + ", '" + prefix + "', '" + content + "');"
	}
	scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY)"},
		in: []string{
			"BEGIN; INSERT INTO a VALUES (1);" + emit("true", "lockstep:annotations", ` {"by": "ann"} `) + "INSERT INTO a VALUES (2);" +
				emit("true", "sequin:transaction_annotations.set", `["b"]`) + "INSERT INTO a VALUES (3);" + emit("true", "lockstep:annotations", `{"not json`) + "INSERT INTO a VALUES (4); COMMIT",
			"INSERT INTO a VALUES (5)",
			"BEGIN;" + emit("false", "lockstep:annotations", "{}") + "INSERT INTO a VALUES (6); COMMIT",
			"BEGIN;" + emit("true", "lockstep:annotations", "1") + emit("false", "lockstep:annotations", "2") + "INSERT INTO a VALUES (66); ROLLBACK",
			"INSERT INTO a VALUES (7)",
		},
		out: []string{
			`insert a[1] {"id":1}`, `insert a[2] {"id":2} annotations {"by": "ann"}`, `insert a[3] {"id":3} annotations ["b"]`, `insert a[4] {"id":4} annotations ["b"]`,
			`insert a[5] {"id":5}`, `insert a[6] {"id":6}`, `insert a[7] {"id":7}`,
		},
	}.run(t)
}

// The rows of the tables that joins bring travel as messages too: nobody else may
// send them.
func TestX02ForgedMessagesAreNoRows(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	oid := n.one("SELECT 'a'::regclass::oid")
	for _, secret := range []string{"", "guessed", "lockstep"} {
		n.exec("BEGIN; SELECT pg_logical_emit_message(true, 'lockstep:table:" + secret + `', '{"oid":` + oid + `,"schema":"public","name":"a","key_kind":"primary_key","identity":"d",` +
			`"columns":[{"name":"id","type_oid":23,"key":true}],"key_columns":["id"],"rows":"follow"}'); SELECT pg_logical_emit_message(true, 'lockstep:row:` + secret + `', '(7)');
			SELECT pg_logical_emit_message(true, 'lockstep:gap:` + secret + `', ''); SELECT pg_logical_emit_message(true, 'lockstep:page:` + secret + `', ''); COMMIT`)
	}
	n.exec("INSERT INTO a VALUES (1)")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`)
	if status, _ := n.call(http.MethodGet, "/readyz", ""); status != http.StatusOK {
		t.Error("the node is not ready any more:", status)
	}
}
