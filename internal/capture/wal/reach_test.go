package wal

import (
	"errors"
	"testing"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// Also where nothing is committed, and nothing of what is committed is captured:
// Postgres alone would say so after ten seconds.
func TestReachReturnsWhenWhatWasCommittedIsInTheLog(t *testing.T) {
	t.Parallel()
	r, _ := interleaving(t, simpleTable(1))
	pgtest.Exec(t, r.url, "CREATE TABLE ignored (id int)")
	for n := range uint64(3) {
		pgtest.Exec(t, r.url, "INSERT INTO ignored VALUES (1)")
		seq, err := r.Reach(t.Context())
		ok(t, err)
		equal(t, seq, n)
		equal(t, r.log.mark().Seq, n) // durable
		pgtest.Exec(t, r.url, "UPDATE a SET v = v || 'x'")
		seq, err = r.Reach(t.Context())
		ok(t, err)
		equal(t, seq, n+1)
		equal(t, r.log.mark().Seq, n+1)
	}
}

func TestReachSaysThatCaptureDoesNotStream(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Database: "app", URL: "postgres://127.0.0.1:1/x", Slot: "s", Publication: "p", Log: newMemoryLog(t), JoinSecret: "secret"})
	ok(t, err)
	if _, err := c.Reach(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}
