package wal

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// alterations gathers what a capture tells of tables.
type alterations struct {
	mu  sync.Mutex
	all []Alteration // guarded by mu
}

func (a *alterations) take(one Alteration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, one)
}

func (a *alterations) config(c *Config, _ *tuning) { c.Altered = a.take }

func (a *alterations) texts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, one := range a.all {
		for _, c := range one.Columns {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s.%s %s %s: %s > %s", one.Schema, one.Name, c.Kind, c.Column, c.Before, c.After)))
		}
	}
	return out
}

func TestSchemaChangesAreToldOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v varchar(10), w int)", "INSERT INTO a VALUES (1, 'x', 1)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	var told alterations
	r := begin(t, url, log, told.config)
	insert := func(row string) { pgtest.Exec(t, url, "INSERT INTO a VALUES ("+row+")") }
	insert("2, 'x', 1")
	pgtest.Exec(t, url, "ALTER TABLE a ADD COLUMN n numeric(8,2)")
	began := time.Now()
	insert("3, 'x', 1, 1")
	pgtest.Exec(t, url, "ALTER TABLE a ALTER v TYPE varchar(20), DROP COLUMN w")
	insert("4, 'x', 1")
	// A new connection describes the table again; and an alteration while there was none shows.
	pid := walsender(t, r)
	pgtest.Exec(t, url, "SELECT pg_terminate_backend("+pid+")")
	pgtest.Exec(t, url, "ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (id, v)")
	insert("5, 'x', 1")
	pgtest.Exec(t, url, "ALTER TABLE a REPLICA IDENTITY FULL")
	insert("6, 'x', 1")
	r.caughtUp()
	pgtest.Eventually(t, 20*time.Second, "the last alteration is told", func() bool { return len(told.texts()) >= 5 })
	want := []string{
		"public.a column_added n:  > numeric(8,2)",
		"public.a type_changed v: character varying(10) > character varying(20)",
		"public.a column_dropped w: integer >",
		"public.a key_changed : id > id, v",
		"public.a identity_changed : default > full",
	}
	equal(t, told.texts(), want)
	if at := told.all[0].At; at.Before(began.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
		t.Errorf("the first one is of %s, but it was committed about %s", at, began)
	}
}

// A table has up to 1,600 columns: what is told of it is bounded, and says so.
func TestAnAlterationOfManyColumnsIsBounded(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	var told alterations
	r := begin(t, url, log, told.config)
	var columns []string
	for i := range 1500 {
		columns = append(columns, fmt.Sprintf("ADD COLUMN c%d int", i))
	}
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)", "ALTER TABLE a "+strings.Join(columns, ", "), "INSERT INTO a VALUES (2)")
	r.caughtUp()
	pgtest.Eventually(t, 20*time.Second, "the alteration is told", func() bool { return len(told.texts()) > 0 })
	one := told.all[0]
	equal(t, []int{len(told.all), len(one.Columns), one.More}, []int{1, 20, 1480})
	equal(t, one.Columns[0], ColumnChange{Kind: columnAdded, Column: "c0", After: "integer"})
}
