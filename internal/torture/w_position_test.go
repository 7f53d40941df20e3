package torture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/stream"
)

func TestW01RowsOfOneCopyHaveTheirOwnPositions(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	s := newSession(t, n.url)
	if _, err := s.conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n2\n3\n"), "COPY a FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	n.exec("INSERT INTO a VALUES (4), (5), (6)")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`, `insert a[2] {"id":2}`, `insert a[3] {"id":3}`, `insert a[4] {"id":4}`, `insert a[5] {"id":5}`, `insert a[6] {"id":6}`)
	// A reader that was cut off after any of them goes on with the next.
	all := n.bySeq()
	for _, c := range all[:len(all)-1] {
		if next := n.tailAfter(c.Metadata.Seq); next.Metadata.Seq != c.Metadata.Seq+1 {
			t.Errorf("after change %d came %d", c.Metadata.Seq, next.Metadata.Seq)
		}
	}
}

func TestW02CommitOrderIsNotTheOrderOfLSNs(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	long := newSession(t, n.url)
	long.exec("BEGIN", "INSERT INTO a VALUES (1)")
	n.exec("INSERT INTO a VALUES (2)")
	n.fence()
	// A node that starts here has row 2 in its stream, whose LSN is above that of row 1.
	n.kill()
	n.start()
	long.exec("INSERT INTO a VALUES (11)", "COMMIT")
	n.check(terms{})
	n.expect(`insert a[2] {"id":2}`, `insert a[1] {"id":1}`, `insert a[11] {"id":11}`)
}

// What is on disk at the kill is read from the disk itself, before the node comes
// back.
func TestW03KillInTheMiddleOfATransaction(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.process = true
	n.exec("CREATE TABLE a (id int PRIMARY KEY, pad text)")
	n.start()
	const rows, attempts = 10_000, 5
	midway := 0
	for round := range attempts {
		first := round * rows
		stop := uint64(round*rows) + 1 + rand.Uint64N(rows/2)
		n.exec(fmt.Sprintf("INSERT INTO a SELECT i, repeat('x', 1500) FROM generate_series(%d, %d) i", first+1, first+rows))
		pgtest.Eventually(t, 30*time.Second, "some of it to be in the stream", func() bool { return n.database().LastSeq >= stop })
		n.kill()
		before := idsOnDisk(t, n)
		n.start()
		pgtest.Eventually(t, 30*time.Second, "the rest", func() bool { return n.database().LastSeq == uint64(first+rows) })
		after := n.sse(uint64(first + rows))
		for i, id := range before {
			if after[i].Metadata.IdempotencyKey != id {
				t.Fatalf("change %d was %s before the kill and is %s", i+1, id, after[i].Metadata.IdempotencyKey)
			}
		}
		if len(before) > first && len(before) < first+rows {
			midway++
			t.Logf("killed with %d of %d rows on disk", len(before)-first, rows)
		}
		if midway == 2 {
			break
		}
	}
	if midway == 0 {
		t.Errorf("in %d kills none met a transaction that was partly on disk", attempts)
	}
	n.check(terms{})
}

// idsOnDisk reads the ids of all changes from the stream of a node that is dead.
func idsOnDisk(t testing.TB, n *node) []string {
	t.Helper()
	server, err := stream.Open(t.Context(), stream.Config{Dir: filepath.Join(n.dir, "stream")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	log, err := server.Log(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	reader := log.Reader(1)
	defer reader.Close()
	for last := log.Last().Seq; uint64(len(ids)) < last; {
		b, err := reader.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			ids = append(ids, string(lockstep.AppendIdempotencyKey(nil, b.Record(i))))
		}
	}
	return ids
}

// A slot that stands before what the stream has is what a crash leaves between the
// stream's fsync and the answer to Postgres.
func TestW04LostConfirmationIsSkippedByPosition(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	n.exec("INSERT INTO a VALUES (0)")
	n.fence()
	n.kill()
	copySlot := func(from, to string) {
		n.exec(fmt.Sprintf("SELECT pg_copy_logical_replication_slot('%s', '%s')", from, to))
	}
	copySlot(n.slot, n.slot+"_before")
	n.start()
	n.exec("INSERT INTO a VALUES (1)", "BEGIN; INSERT INTO a VALUES (2); UPDATE a SET id = 3 WHERE id = 1; COMMIT")
	n.fence()
	n.kill()
	n.exec(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", n.slot))
	copySlot(n.slot+"_before", n.slot)
	n.exec("INSERT INTO a VALUES (4)")
	n.start()
	n.check(terms{})
	n.expect(`insert a[0] {"id":0}`, `insert a[1] {"id":1}`, `insert a[2] {"id":2}`, `delete a[1] {"id":1} key only`, `insert a[3] {"id":3}`, `insert a[4] {"id":4}`)
}

func lsn(t testing.TB, text string) lockstep.LSN {
	t.Helper()
	l, err := lockstep.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestW05KeepalivesDoNotConfirmWhatIsNotOnDisk(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE SCHEMA unwatched", "CREATE UNLOGGED TABLE unwatched.noise (v int)")
	alterDatabase(t, url, "wal_sender_timeout = '1s'") // capture answers three times as often
	s := newSpine(t, url)
	s.log.shut()
	for i := range 50 {
		// Rows for us, and WAL that brings keepalives, in turn.
		pgtest.Exec(t, url, fmt.Sprintf("INSERT INTO a VALUES (%d)", i), "SELECT pg_logical_emit_message(true, 'other', '')")
	}
	answers := map[string]bool{}
	pgtest.Eventually(t, 20*time.Second, "several answers to Postgres", func() bool {
		durable := s.log.Last().EndLSN
		if got := lsn(t, s.slot("confirmed_flush_lsn")); got > durable {
			t.Fatalf("confirmed %s, on disk %s", got, durable)
		}
		answers[pgtest.Query(t, url, "SELECT reply_time FROM pg_stat_replication WHERE pid = $1::int", s.slot("active_pid"))[0][0]] = true
		return len(answers) > 4
	})
	s.log.open()
	if got := s.check(terms{}); len(got) != 50 {
		t.Errorf("%d changes, want 50", len(got))
	}
}

func TestW06BackPressureDoesNotCostTheConnection(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	alterDatabase(t, url, "wal_sender_timeout = '1s'")
	s := newSpine(t, url)
	pid := s.slot("active_pid")
	s.log.shut()
	pgtest.Exec(t, url, "INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")
	// The scaled-down form of twice the usual five seconds and more.
	pressed := time.Now()
	pgtest.Eventually(t, 20*time.Second, "twice wal_sender_timeout to be over", func() bool { return time.Since(pressed) > 2200*time.Millisecond })
	s.log.open()
	if got := s.check(terms{}); len(got) != 5000 {
		t.Errorf("%d changes, want 5000", len(got))
	}
	if now := s.slot("active_pid"); now != pid {
		t.Errorf("the walsender was %s and is %s: the connection was lost", pid, now)
	}
}

// tailAfter returns the first change that a tail gets after a seq.
func (n *node) tailAfter(seq uint64) client.Change {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	return n.firstOf(ctx, fmt.Sprint(seq))
}
