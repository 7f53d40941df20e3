package torture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"lockstep/internal/pgdb/pgtest"
)

// workload writes at random: every kind of table, savepoints, rollbacks, changed
// keys, values in and out of line.
type workload struct {
	*rand.Rand
	conn *pgx.Conn
	w    int // of several writers
}

func workloadTables() []string {
	return []string{
		"CREATE TABLE keyed (id int PRIMARY KEY, v int, body text)", "ALTER TABLE keyed ALTER body SET STORAGE EXTERNAL",
		"CREATE TABLE whole (id int PRIMARY KEY, v int, body text)", "ALTER TABLE whole ALTER body SET STORAGE EXTERNAL", "ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE keyless (id int, v int, body text)", "ALTER TABLE keyless REPLICA IDENTITY FULL",
		"CREATE TABLE parts (id int, v int, body text, PRIMARY KEY (v, id)) PARTITION BY LIST (v)",
		"CREATE TABLE parts0 PARTITION OF parts FOR VALUES IN (0, 2, 4)", "CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1, 3)",
		"CREATE TABLE indexed (id int NOT NULL, v int, body text)", "CREATE UNIQUE INDEX indexed_id ON indexed (id)", "ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_id",
	}
}

// step is one statement of the transaction that is open.
func (w *workload) step() string {
	table := []string{"keyed", "whole", "keyless", "parts", "indexed"}[w.IntN(5)]
	id := w.w*1000 + w.IntN(40)
	v, body := w.IntN(5), "repeat('"+string(rune('a'+w.IntN(26)))+"', "+strconv.Itoa([]int{0, 10, 3000}[w.IntN(3)])+")"
	switch w.IntN(20) {
	case 0, 1, 2, 3, 4, 5, 6:
		conflict := " ON CONFLICT DO NOTHING"
		if table == "keyless" {
			conflict = ""
		}
		return fmt.Sprintf("INSERT INTO %s VALUES (%d, %d, %s)%s", table, id, v, body, conflict)
	case 7, 8, 9:
		return fmt.Sprintf("UPDATE %s SET v = %d WHERE id = %d", table, v, id)
	case 10, 11:
		return fmt.Sprintf("UPDATE %s SET body = %s WHERE id = %d", table, body, id)
	case 12:
		return fmt.Sprintf("UPDATE %s SET id = id + 40 WHERE id = %d", table, id)
	case 13, 14:
		return fmt.Sprintf("DELETE FROM %s WHERE id IN (%d, %d)", table, id, id+40)
	case 15:
		return fmt.Sprintf("UPDATE %s SET v = v WHERE id = %d", table, id)
	case 16:
		return "SAVEPOINT s"
	case 17, 18:
		return "ROLLBACK TO s"
	}
	return fmt.Sprintf("INSERT INTO keyless SELECT %d, g, NULL FROM generate_series(1, %d) g", id, w.IntN(100))
}

// transaction runs some steps and commits, or not.
func (w *workload) transaction(ctx context.Context) error {
	statements := []string{"BEGIN", "SAVEPOINT s"}
	for range 1 + w.IntN(12) {
		statements = append(statements, w.step())
	}
	end := "COMMIT"
	if w.IntN(8) == 0 {
		end = "ROLLBACK"
	}
	if w.IntN(40) == 0 {
		statements = append(statements, "TRUNCATE "+[]string{"keyed", "whole, keyless", "parts", "indexed"}[w.IntN(4)])
	}
	for _, sql := range append(statements, end) {
		if err := w.exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// exec executes a statement; one that meets a key that is taken is undone, alone.
func (w *workload) exec(ctx context.Context, sql string) error {
	if strings.HasPrefix(sql, "INSERT") || strings.HasPrefix(sql, "UPDATE") {
		if _, err := w.conn.Exec(ctx, "SAVEPOINT e"); err != nil {
			return err
		}
	}
	_, err := w.conn.Exec(ctx, sql)
	if err != nil && strings.Contains(err.Error(), "duplicate key") {
		_, err = w.conn.Exec(ctx, "ROLLBACK TO e")
	}
	return err
}

// LOCKSTEP_SEED repeats a run's writes; when they meet the kills is up to chance.
func TestX15RandomWritesAcrossKills(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("LOCKSTEP_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	n := newNode(t, pgtest.Database(t))
	n.process = true
	alterDatabase(t, n.url, spilling)
	n.exec(workloadTables()...)
	n.start()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var writers errgroup.Group
	for i := range 3 {
		w := &workload{Rand: rand.New(rand.NewPCG(seed, uint64(i))), conn: newSession(t, n.url).conn, w: i}
		writers.Go(func() error {
			for range 250 {
				err := w.transaction(ctx)
				for err != nil && strings.Contains(err.Error(), "deadlock") { // a TRUNCATE met another writer
					if _, err = w.conn.Exec(ctx, "ROLLBACK"); err == nil {
						err = w.transaction(ctx)
					}
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 3 {
		at := n.database().LastSeq
		pgtest.Eventually(t, 20*time.Second, "something more to come", func() bool { return n.database().LastSeq > at+uint64(rand.IntN(200)) })
		n.kill()
		n.start()
	}
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	// A table that is truncated after a savepoint, or just before the node is killed, may
	// be taken for one of which a partition was.
	n.check(terms{alarm: "leaf_truncated"})
	t.Logf("%d changes", len(n.changes))
}
