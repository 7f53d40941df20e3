package wal

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/pgdb/pgtest"
)

// standby is a physical copy of a cluster that follows it until it is promoted.
type standby struct {
	t    *testing.T
	bin  string
	dir  string
	user *syscall.Credential // as which Postgres runs
	url  string
}

// newStandby makes a standby of the cluster with pg_basebackup and starts it.
func newStandby(t *testing.T, c *cluster.Cluster) *standby {
	t.Helper()
	if _, err := os.Stat(filepath.Join(c.Bin(), "pg_basebackup")); err != nil {
		t.Skip("this build of Postgres has no pg_basebackup to make a standby with:", err)
	}
	home, err := os.MkdirTemp("", "lockstep-standby-") //nolint:usetesting // the parent of t.TempDir is closed to Postgres' user
	ok(t, err)
	t.Cleanup(func() { ok(t, os.RemoveAll(home)) })
	ok(t, os.Chmod(home, 0o711))
	s := &standby{t: t, bin: c.Bin(), dir: filepath.Join(home, "data")}
	own := filepath.Join(home, "sockets")
	for _, dir := range []string{s.dir, own} {
		ok(t, os.Mkdir(dir, 0o700))
	}
	if info, err := os.Stat(c.SocketDir()); err == nil && os.Getuid() == 0 {
		owner := info.Sys().(*syscall.Stat_t)
		s.user = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
		for _, dir := range []string{s.dir, own} {
			ok(t, os.Chown(dir, int(owner.Uid), int(owner.Gid)))
		}
	}
	primary, err := url.Parse(c.URL("postgres"))
	ok(t, err)
	s.run("pg_basebackup", "-D", s.dir, "-R", "-X", "stream", "-c", "fast", "-h", c.SocketDir(), "-p", fmt.Sprint(c.Port()), "-U", primary.User.Username())
	// The port only names the socket: another directory, no other port needed.
	options := fmt.Sprintf("-c listen_addresses='' -c unix_socket_directories='%s' -c port=%d", own, c.Port())
	// The primary's, which are not in its files: a standby may have no less of them.
	for _, row := range pgtest.Query(t, c.URL("postgres"), "SELECT name, setting FROM pg_settings WHERE name IN ('max_connections', 'max_wal_senders', 'max_replication_slots', 'max_worker_processes', 'max_prepared_transactions', 'wal_level', 'fsync')") {
		options += fmt.Sprintf(" -c %s=%s", row[0], row[1])
	}
	s.run("pg_ctl", "-D", s.dir, "-w", "-l", filepath.Join(s.dir, "log"), "-o", options, "start")
	t.Cleanup(func() { s.run("pg_ctl", "-D", s.dir, "-m", "immediate", "-w", "stop") })
	there := *primary
	query := there.Query()
	query.Set("host", own)
	there.RawQuery = query.Encode()
	s.url = there.String()
	return s
}

func (s *standby) run(program string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	cmd.Dir = "/"
	// Its output goes to a file: the server that pg_ctl starts would hold a pipe open.
	out, err := os.Create(filepath.Join(s.t.TempDir(), program))
	ok(s.t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		s.t.Fatalf("%s: %v\n%s", program, err, text)
	}
}

// caughtUp waits until the standby has replayed what the primary has written.
func (s *standby) caughtUp(primary string) {
	s.t.Helper()
	here := lsnOf(s.t, pgtest.Query(s.t, primary, "SELECT pg_current_wal_lsn()")[0][0])
	pgtest.Eventually(s.t, 30*time.Second, "the standby follows", func() bool {
		return lsnOf(s.t, pgtest.Query(s.t, s.url, "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')")[0][0]) >= here
	})
}

// W10: a standby takes over that does not have the slot, and neither what the primary
// wrote last, which the log has.
func TestPromotedStandbyIsAGapAndCaptureGoesOn(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"wal_keep_size": "64MB"})
	primary := c.URL("postgres")
	pgtest.Exec(t, primary, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, primary, "a")
	s := newStandby(t, c)
	log := newMemoryLog(t)
	book := &gapBook{log: log}
	config := func(c *Config, _ *tuning) { c.Slot, c.Gap = "s", book.note }
	r := begin(t, primary, log, config)
	pgtest.Exec(t, primary, "INSERT INTO a VALUES (1)")
	r.caughtUp()
	s.caughtUp(primary)
	pgtest.Exec(t, s.url, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	pgtest.Eventually(t, 30*time.Second, "the standby is cut off", func() bool {
		return pgtest.Query(t, primary, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'walreceiver'")[0][0] == "0"
	})
	pgtest.Exec(t, primary, "INSERT INTO a SELECT generate_series(2, 2000)")
	r.caughtUp()
	ahead := log.mark()
	r.stop()
	ok(t, c.Kill())
	s.run("pg_ctl", "-D", s.dir, "-w", "promote")
	pgtest.Eventually(t, 30*time.Second, "the standby takes writes", func() bool {
		return pgtest.Query(t, s.url, "SELECT pg_is_in_recovery()")[0][0] == "f"
	})
	r = begin(t, s.url, log, config)
	equal(t, r.Status().Gap, "failover")
	pgtest.Exec(t, s.url, "INSERT INTO a VALUES (5000)", "DELETE FROM a WHERE id = 5000")
	r.caughtUp()
	equal(t, book.all(), []string{"failover from true"})
	equal(t, gapMarks(t, log), []string{"start failover ."})
	rows := log.rows(t)
	equal(t, rows[len(rows)-3:], []string{"gap ", `insert {"id":5000}`, `delete {"id":5000}`})
	equal(t, log.mark().Timeline, ahead.Timeline+1)
	if got := log.mark().CommitLSN; got >= ahead.CommitLSN {
		t.Errorf("the new primary is at %s, no less than the %s that the log was at: the test says nothing", got, ahead.CommitLSN)
	}
	equal(t, log.mark().SystemID, ahead.SystemID)

	// Rows lie between the changes of the new primary too.
	reader := newPageReader(t, s.url, "a")
	_, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) { return reader.read(ctx, "") })
	ok(t, err)
	r.stop()
	r = begin(t, s.url, log, config)
	r.caughtUp()
	equal(t, len(gapMarks(t, log)), 1)

}
