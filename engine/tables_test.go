package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// allTables reads the list page by page.
func (n *node) allTables(limit int) (all []client.Table, first client.Tables) {
	n.t.Helper()
	p := client.Page{Limit: limit}
	for {
		page, err := n.api.Tables(n.t.Context(), "app", p)
		if err != nil {
			n.t.Fatal(err)
		}
		if p.Cursor == "" {
			first = page
		} else if len(page.SchemaChanges) > 0 {
			n.t.Errorf("a later page has the schema changes, too")
		}
		if len(page.Data) > limit {
			n.t.Fatalf("a page of %d tables, at most %d were asked for", len(page.Data), limit)
		}
		all = append(all, page.Data...)
		if p.Cursor = page.Next; p.Cursor == "" {
			return all, first
		}
	}
}

func TestTablesAreListedWithWhatTheirChangesHold(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		`CREATE TABLE keyed (b int, a int, v text, PRIMARY KEY (a, b))`, `INSERT INTO keyed SELECT i, i, 'x' FROM generate_series(1, 1000) i`,
		`CREATE TABLE whole (v int)`, `ALTER TABLE whole REPLICA IDENTITY FULL`,
		`CREATE TABLE keyless (v int)`,
		`CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL UNIQUE)`, `ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key`,
		`CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM (0) TO (9000)`,
		`INSERT INTO parted SELECT generate_series(1, 500)`,
		`CREATE MATERIALIZED VIEW seen AS SELECT 1 AS x`,
		`CREATE TABLE "odd ""name"".x" (id int PRIMARY KEY)`, `ANALYZE`,
	)
	n := newNode(t, url, "  []\n")
	n.slot("tables_listed")
	n.start()
	short := func(t client.Table) string {
		return fmt.Sprintf("%s (%s): %s by %s [%s] of %s", t.Table, t.Kind, t.Published, t.KeyKind, strings.Join(t.KeyColumns, ","), t.ReplicaIdentity)
	}
	want := []string{
		`public.indexed (table): full by replica_identity [code] of index`,
		`public.keyed (table): full by primary_key [a,b] of default`,
		`public.keyless (table): inserts only by row [] of nothing`,
		`public.odd "name".x (table): full by primary_key [id] of default`,
		`public.parted (partitioned table): full by primary_key [id] of default`,
		`public.seen (materialized view): none by row [] of nothing`,
		`public.whole (table): full by row [] of full`,
	}
	var all []client.Table
	var first client.Tables
	pgtest.Eventually(t, 20*time.Second, "every table is published", func() bool {
		all, first = n.allTables(3)
		return len(all) == len(want) && all[1].Published == "full"
	})
	var got []string
	byName := map[string]client.Table{}
	for _, one := range all {
		got = append(got, short(one))
		byName[one.Name] = one
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages of 3 (-want +got):\n%s", diff)
	}
	if first.Total != len(want) {
		t.Errorf("the total is %d, want %d", first.Total, len(want))
	}
	for name, rows := range map[string]int64{"keyed": 1000, "parted": 500} {
		one := byName[name]
		if one.EstimatedRows == nil || *one.EstimatedRows != rows || one.SizeBytes == nil || *one.SizeBytes < 8192 {
			t.Errorf("%s: rows %v, bytes %v", name, one.EstimatedRows, one.SizeBytes)
		}
	}
	if one := byName["keyless"]; !strings.Contains(one.Reason, "no primary key") || !strings.Contains(one.Remedy, "REPLICA IDENTITY FULL") {
		t.Errorf("the table without a key: %+v", one)
	}
	if _, err := n.api.Tables(t.Context(), "app", client.Page{Cursor: "?"}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("a cursor of nobody's: %v", err)
	}
	if _, err := n.api.Tables(t.Context(), "other", client.Page{}); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("a database that is not there: %v", err)
	}
}

// Somebody alters a table for hours: the list is there nevertheless, with what VACUUM
// saw last.
func TestTablesAreListedWhileOneIsLocked(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE a (id int PRIMARY KEY)`, `INSERT INTO a SELECT generate_series(1, 1000)`, `VACUUM ANALYZE a`, `CREATE TABLE b (id int PRIMARY KEY)`)
	n := newNode(t, url, "  []\n")
	n.slot("tables_locked")
	n.start()
	pgtest.Eventually(t, 20*time.Second, "both tables are known", func() bool { all, _ := n.allTables(10); return len(all) == 2 })
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, statement := range []string{"BEGIN", "LOCK TABLE a IN ACCESS EXCLUSIVE MODE"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	all, first := n.allTables(10)
	if len(all) != 2 || first.Unmeasured != "" || all[0].SizeBytes == nil || *all[0].SizeBytes < 8192 || *all[0].EstimatedRows != 1000 {
		t.Errorf("while a is locked: %+v (%s)", all, first.Unmeasured)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the list took %s", took)
	}
}

func TestSchemaChangesAreShownWithTheTables(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE a (id int PRIMARY KEY)`)
	n := newNode(t, url, "  []\n")
	n.slot("tables_altered")
	n.start()
	pgtest.Exec(t, url, `INSERT INTO a VALUES (1)`)
	for i := range 105 {
		pgtest.Exec(t, url, fmt.Sprintf(`ALTER TABLE a ADD COLUMN c%d text`, i), fmt.Sprintf(`INSERT INTO a VALUES (%d)`, i+2))
	}
	var first client.Tables
	pgtest.Eventually(t, 30*time.Second, "the last change is shown", func() bool {
		_, first = n.allTables(10)
		return len(first.SchemaChanges) > 0 && first.SchemaChanges[0].Changes[0].Column == "c104"
	})
	if len(first.SchemaChanges) != 100 {
		t.Errorf("%d schema changes are kept, want 100", len(first.SchemaChanges))
	}
	oldest := first.SchemaChanges[99]
	want := client.SchemaChange{Table: "public.a", At: oldest.At, Changes: []client.ColumnChange{{Kind: "column_added", Column: "c5", After: "text"}}}
	if diff := cmp.Diff(want, oldest); diff != "" || time.Since(oldest.At) > 5*time.Minute {
		t.Errorf("the oldest (-want +got):\n%s", diff)
	}
}
