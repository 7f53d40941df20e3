package torture_test

import (
	"fmt"
	"strings"
	"testing"

	"lockstep/internal/pgdb/pgtest"
)

// A deferrable key may stand twice in the middle of a statement. Two rows that change
// their keys with each other must both be there at the end.
func TestX06KeysSwappedUnderADeferrableKey(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)", "ALTER TABLE a REPLICA IDENTITY FULL")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 'x'), (2, 'y')", "UPDATE a SET id = 3 - id", "UPDATE a SET v = 'z' WHERE id = 2",
		"INSERT INTO a VALUES (3, 'w')", "UPDATE a SET id = id % 3 + 1", "DELETE FROM a WHERE id = 1")
	n.check(terms{})
}

// A key cannot stand twice in the middle of anything when it is not deferrable: keys
// that move in a chain still come apart in order.
func TestX07KeysMovedInAChain(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY, v text)"},
		in: []string{
			"INSERT INTO a VALUES (3, 'z'), (2, 'y'), (1, 'x')", "UPDATE a SET id = id + 1",
			"BEGIN; UPDATE a SET id = 0 WHERE id = 2; UPDATE a SET id = 2 WHERE id = 3; UPDATE a SET id = 3 WHERE id = 0; COMMIT",
		},
		out: []string{
			`insert a[3] {"id":3,"v":"z"}`, `insert a[2] {"id":2,"v":"y"}`, `insert a[1] {"id":1,"v":"x"}`,
			`delete a[3] {"id":3} key only`, `insert a[4] {"id":4,"v":"z"}`, `delete a[2] {"id":2} key only`, `insert a[3] {"id":3,"v":"y"}`, `delete a[1] {"id":1} key only`, `insert a[2] {"id":2,"v":"x"}`,
			`delete a[2] {"id":2} key only`, `insert a[0] {"id":0,"v":"x"}`, `delete a[3] {"id":3} key only`, `insert a[2] {"id":2,"v":"y"}`, `delete a[0] {"id":0} key only`, `insert a[3] {"id":3,"v":"x"}`,
		},
	}.run(t)
}

func TestX08TableMadeFilledAndRenamedInOneTransaction(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.start()
	n.exec(
		"BEGIN; CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1); ALTER TABLE a RENAME TO b; INSERT INTO b VALUES (2); ALTER TABLE b ADD COLUMN v text; UPDATE b SET v = 'x'; COMMIT",
		"BEGIN; CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1); DROP TABLE gone; COMMIT",
		"BEGIN; CREATE TABLE never (id int PRIMARY KEY); INSERT INTO never VALUES (1); ROLLBACK",
		"INSERT INTO b VALUES (3, 'y')")
	n.check(terms{renamed: map[string]string{"public.a": "public.b"}, insertsOnly: []string{"gone"}})
	n.expect(`insert a[1] {"id":1}`, `insert b[2] {"id":2}`, `update b[1] {"id":1,"v":"x"} was ?`, `update b[2] {"id":2,"v":"x"} was ?`, `insert gone[1] {"id":1}`, `insert b[3] {"id":3,"v":"y"}`)
}

// Dropping a table is no event in Postgres: a table of the same name that comes
// later has keys, columns and types of its own.
func TestX09TableDroppedAndMadeAnew(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 'x')", "DELETE FROM a", "DROP TABLE a", "CREATE TABLE a (v int, id text PRIMARY KEY)", "INSERT INTO a VALUES (7, 'k')", "UPDATE a SET v = 8")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1,"v":"x"}`, `delete a[1] {"id":1} key only`, `insert a[k] {"v":7,"id":"k"}`, `update a[k] {"v":8,"id":"k"} was ?`)
}

func TestX10IdentityChangedUnderway(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v int)")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 1)", "UPDATE a SET v = 2", "ALTER TABLE a REPLICA IDENTITY FULL", "UPDATE a SET v = 3", "UPDATE a SET id = 2",
		"ALTER TABLE a REPLICA IDENTITY DEFAULT", "UPDATE a SET v = 4")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1,"v":1}`, `update a[1] {"id":1,"v":2} was ?`, `update a[1] {"id":1,"v":3} was {"v":2}`,
		`delete a[1] {"id":1,"v":3}`, `insert a[2] {"id":2,"v":3}`, `update a[2] {"id":2,"v":4} was ?`)
}

// The key is dropped and made again while the application writes on: no write fails.
func TestX11PrimaryKeyDroppedUnderway(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v int)")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 1)", "UPDATE a SET v = 2", "ALTER TABLE a DROP CONSTRAINT a_pkey", "INSERT INTO a VALUES (2, 2)",
		"UPDATE a SET v = 3 WHERE id = 2", "DELETE FROM a WHERE id = 2", "ALTER TABLE a ADD PRIMARY KEY (id)", "INSERT INTO a VALUES (3, 3)", "UPDATE a SET v = 4 WHERE id = 3")
	n.check(terms{insertsOnly: []string{"a"}})
	lines := strings.Join(n.lines(), "\n")
	for _, want := range []string{`update a[1] {"id":1,"v":2} was ?`, `{"id":2,"v":2}`, `insert a[3] {"id":3,"v":3}`, `update a[3] {"id":3,"v":4} was ?`} {
		if !strings.Contains(lines, want) {
			t.Errorf("%s is missing in\n%s", want, lines)
		}
	}
}

// A prepared transaction outlives sessions, and Lockstep's restarts: its changes come
// when it is committed.
func TestX12PreparedTransactions(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"max_prepared_transactions": "5"})
	n := newNode(t, c.URL("postgres"))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)")
	n.start()
	n.exec("BEGIN; INSERT INTO a VALUES (1); PREPARE TRANSACTION 'kept'", "BEGIN; INSERT INTO a VALUES (2); PREPARE TRANSACTION 'dropped'", "INSERT INTO a VALUES (3)")
	n.fence()
	n.kill()
	n.start()
	n.exec("ROLLBACK PREPARED 'dropped'", "COMMIT PREPARED 'kept'", "INSERT INTO a VALUES (4)")
	n.check(terms{})
	n.expect(`insert a[3] {"id":3}`, `insert a[1] {"id":1}`, `insert a[4] {"id":4}`)
}

// What rows look like when they reach the table is what counts, whoever made them so.
func TestX13RowsThatOthersTouch(t *testing.T) {
	t.Parallel()
	s := scenario{
		before: []string{
			"CREATE TABLE a (id int PRIMARY KEY, v text, n int DEFAULT 7)", "CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)",
			"CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := upper(NEW.v); INSERT INTO log (what) VALUES (TG_OP); RETURN NEW; END $$",
			"CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION touch()",
			"CREATE RULE keep AS ON DELETE TO log DO INSTEAD NOTHING",
		},
		in: []string{
			"INSERT INTO a VALUES (1, 'x')", "UPDATE a SET v = 'y'", "DELETE FROM log",
			"BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO a VALUES (2, 'low'); COMMIT",
			"WITH moved AS (DELETE FROM a WHERE id = 1 RETURNING *) INSERT INTO a SELECT id + 2, v, n FROM moved",
		},
		out: []string{
			`insert log[1] {"id":1,"what":"INSERT"}`, `insert a[1] {"id":1,"v":"X","n":7}`, `insert log[2] {"id":2,"what":"UPDATE"}`, `update a[1] {"id":1,"v":"Y","n":7} was ?`,
			`insert a[2] {"id":2,"v":"low","n":7}`, `delete a[1] {"id":1} key only`, `insert log[3] {"id":3,"what":"INSERT"}`, `insert a[3] {"id":3,"v":"Y","n":7}`,
		},
	}
	s.run(t)
}

func TestX14TruncateOfManyTables(t *testing.T) {
	t.Parallel()
	const many = 200
	n := newNode(t, pgtest.Database(t))
	names := make([]string, many)
	var ddl, fill strings.Builder
	for i := range names {
		names[i] = fmt.Sprintf("t%d", i)
		fmt.Fprintf(&ddl, "CREATE TABLE t%d (id int PRIMARY KEY);", i)
		fmt.Fprintf(&fill, "INSERT INTO t%d VALUES (1);", i)
	}
	n.exec(ddl.String())
	n.start()
	n.exec(fill.String(), "TRUNCATE "+strings.Join(names, ", "), fill.String())
	n.check(terms{})
	if got := len(n.lines()); got != 3*many {
		t.Errorf("%d changes, want %d", got, 3*many)
	}
}
