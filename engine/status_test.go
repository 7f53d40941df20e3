package engine_test

import (
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// When a database's last change was committed is known before the first one, after it,
// and after a kill.
func TestTheLastCommitIsTold(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY)`)
	n := newNode(t, url, "")
	n.slot("last_commit")
	n.start()
	if db, err := n.api.Database(t.Context(), "app"); err != nil || db.LastCommit != nil {
		t.Fatalf("before any change the last commit is of %v, error %v", db.LastCommit, err)
	}
	began := time.Now().Add(-time.Second)
	pgtest.Exec(t, url, `INSERT INTO orders VALUES (1)`)
	told := func() bool {
		db, err := n.api.Database(t.Context(), "app")
		return err == nil && db.LastCommit != nil && db.LastCommit.After(began) && db.LastCommit.Before(time.Now().Add(time.Second))
	}
	pgtest.Eventually(t, time.Minute, "the time of the change's commit", told)
	n.kill()
	n.launch()
	pgtest.Eventually(t, time.Minute, "the time after a kill", told)
}
