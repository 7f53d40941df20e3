package torture_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lockstep/internal/pgdb/pgtest"
)

// big is stored out of line in a column of storage EXTERNAL.
var big = strings.Repeat("0123456789", 1000)

// toasted is a table with such a column.
func toasted(identity string) []string {
	return []string{
		"CREATE TABLE a (id int PRIMARY KEY, n int, body text)", "ALTER TABLE a ALTER body SET STORAGE EXTERNAL",
		"ALTER TABLE a REPLICA IDENTITY " + identity,
	}
}

func TestW22UnchangedToastIsNamedAndAbsent(t *testing.T) {
	t.Parallel()
	scenario{
		before: toasted("DEFAULT"),
		in:     []string{"INSERT INTO a VALUES (1, 0, '" + big + "')", "UPDATE a SET n = 1", "UPDATE a SET body = NULL", "UPDATE a SET n = 2"},
		out: []string{
			`insert a[1] {"id":1,"n":0,"body":"` + big + `"}`, `update a[1] {"id":1,"n":1} was ? unchanged body`,
			`update a[1] {"id":1,"n":1,"body":null} was ?`, `update a[1] {"id":1,"n":2,"body":null} was ?`,
		},
	}.run(t)
}

func TestW23UnchangedToastIsFilledUnderFull(t *testing.T) {
	t.Parallel()
	scenario{
		before: toasted("FULL"),
		in:     []string{"INSERT INTO a VALUES (1, 0, '" + big + "')", "UPDATE a SET n = 1", "UPDATE a SET body = 'short'", "DELETE FROM a"},
		out: []string{
			`insert a[1] {"id":1,"n":0,"body":"` + big + `"}`, `update a[1] {"id":1,"n":1,"body":"` + big + `"} was {"n":0}`,
			`update a[1] {"id":1,"n":1,"body":"short"} was {"body":"` + big + `"}`, `delete a[1] {"id":1,"n":1,"body":"short"}`,
		},
	}.run(t)
}

func TestW24KeyChangeWithUnchangedToast(t *testing.T) {
	t.Parallel()
	scenario{
		before: toasted("DEFAULT"),
		in:     []string{"INSERT INTO a VALUES (1, 0, '" + big + "')", "UPDATE a SET id = 2", "UPDATE a SET id = 3, n = 3"},
		out: []string{
			`insert a[1] {"id":1,"n":0,"body":"` + big + `"}`, `delete a[1] {"id":1} key only`, `insert a[2] {"id":2,"n":0} unchanged body`,
			`delete a[2] {"id":2} key only`, `insert a[3] {"id":3,"n":3} unchanged body`,
		},
	}.run(t)
}

func TestW24KeyChangeUnderFull(t *testing.T) {
	t.Parallel()
	scenario{
		before: toasted("FULL"),
		in:     []string{"INSERT INTO a VALUES (1, 0, '" + big + "')", "UPDATE a SET id = 2"},
		out: []string{
			`insert a[1] {"id":1,"n":0,"body":"` + big + `"}`, `delete a[1] {"id":1,"n":0,"body":"` + big + `"}`, `insert a[2] {"id":2,"n":0,"body":"` + big + `"}`,
		},
	}.run(t)
}

func TestW25DeleteAndInsertOfOneKey(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY, v text)"},
		in: []string{
			"INSERT INTO a VALUES (1, 'x')", "BEGIN; DELETE FROM a; INSERT INTO a VALUES (1, 'y'); COMMIT",
			"BEGIN; UPDATE a SET id = 2; INSERT INTO a VALUES (1, 'z'); DELETE FROM a WHERE id = 2; COMMIT",
		},
		out: []string{
			`insert a[1] {"id":1,"v":"x"}`, `delete a[1] {"id":1} key only`, `insert a[1] {"id":1,"v":"y"}`,
			`delete a[1] {"id":1} key only`, `insert a[2] {"id":2,"v":"y"}`, `insert a[1] {"id":1,"v":"z"}`, `delete a[2] {"id":2} key only`,
		},
	}.run(t)
}

func TestW26IdentityIndexThatIsNotThePrimaryKey(t *testing.T) {
	t.Parallel()
	n := scenario{
		before: []string{
			"CREATE TABLE a (id int PRIMARY KEY, x int NOT NULL, y int NOT NULL, v text, CONSTRAINT u UNIQUE (y, x))",
			"ALTER TABLE a REPLICA IDENTITY USING INDEX u",
		},
		in: []string{"INSERT INTO a VALUES (1, 10, 20, 'v'), (5, 50, 50, 'w')", "UPDATE a SET id = 2 WHERE id = 1", "DELETE FROM a WHERE id = 2", "UPDATE a SET x = 51"},
		out: []string{
			`insert a[20,10] {"id":1,"x":10,"y":20,"v":"v"}`, `insert a[50,50] {"id":5,"x":50,"y":50,"v":"w"}`, `update a[20,10] {"id":2,"x":10,"y":20,"v":"v"} was ?`,
			`delete a[20,10] {"x":10,"y":20} key only`, `delete a[50,50] {"x":50,"y":50} key only`, `insert a[50,51] {"id":5,"x":51,"y":50,"v":"w"}`,
		},
	}.run(t)
	n.notes("public.a", "deletes carry no primary key")
}

// reasonOf returns what the node says of a table that is not captured in full.
func (n *node) reasonOf(table string) string {
	n.t.Helper()
	for _, s := range n.database().Tables {
		if s.Name == table {
			return s.Reason
		}
	}
	return ""
}

// warns checks what the node says of a table.
func (n *node) warns(table, text string) {
	n.t.Helper()
	if reason := n.reasonOf(table); !strings.Contains(reason, text) {
		n.t.Errorf("of %s the node says %q, want something with %q", table, reason, text)
	}
}

// notes checks what the node says of a table that is captured in full.
func (n *node) notes(table, text string) {
	n.t.Helper()
	d := n.database()
	for _, s := range d.Tables {
		if s.Name == table && strings.Contains(s.Note, text) && s.Reason == "" && d.Status == "ok" {
			return
		}
	}
	n.t.Errorf("of %s the node does not say %q, or not only for information: %s %q %+v", table, text, d.Status, d.Reason, d.Tables)
}

func TestW27TablesWithoutAnIdentity(t *testing.T) {
	t.Parallel()
	n := scenario{
		before: []string{
			"CREATE TABLE none (v int, w text)", "CREATE TABLE nothing (id int PRIMARY KEY)", "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
			"CREATE TABLE gone (id int NOT NULL)", "CREATE UNIQUE INDEX gone_id ON gone (id)", "ALTER TABLE gone REPLICA IDENTITY USING INDEX gone_id", "DROP INDEX gone_id",
		},
		in: []string{
			"INSERT INTO none VALUES (1, 'x'), (1, 'x')", "UPDATE none SET v = 3", "DELETE FROM none",
			"INSERT INTO nothing VALUES (1)", "UPDATE nothing SET id = 2", "DELETE FROM nothing",
			"INSERT INTO gone VALUES (1)", "UPDATE gone SET id = 2", "DELETE FROM gone", "INSERT INTO none VALUES (9, NULL)", "TRUNCATE none",
		},
		out: []string{
			`insert none {"v":1,"w":"x"}`, `insert none {"v":1,"w":"x"}`, `insert nothing[1] {"id":1}`, `insert gone {"id":1}`, `insert none {"v":9,"w":null}`, `truncate none`,
		},
		terms: terms{insertsOnly: []string{"nothing", "gone"}},
	}.run(t)
	for _, table := range []string{"none", "nothing", "gone"} {
		n.warns("public."+table, "Postgres would refuse its updates and deletes")
	}
	for _, s := range n.database().Tables {
		if !strings.Contains(s.Remedy, "ALTER TABLE") && s.Name != "public."+fenceTable {
			t.Errorf("%s: no remedy: %+v", s.Name, s)
		}
	}
}

func TestW28EqualRowsWithoutAKey(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{"CREATE TABLE a (v int)", "ALTER TABLE a REPLICA IDENTITY FULL"},
		in:     []string{"INSERT INTO a VALUES (1), (1), (1)", "DELETE FROM a WHERE ctid = (SELECT min(ctid) FROM a)", "UPDATE a SET v = 2 WHERE ctid = (SELECT min(ctid) FROM a)"},
		out:    []string{`insert a {"v":1}`, `insert a {"v":1}`, `insert a {"v":1}`, `delete a {"v":1}`, `update a {"v":2} was {"v":1}`},
	}.run(t)
}

func TestW29DeferrablePrimaryKey(t *testing.T) {
	t.Parallel()
	n := scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY DEFERRABLE)"},
		in:     []string{"INSERT INTO a VALUES (1)", "UPDATE a SET id = 2", "DELETE FROM a"},
		out:    []string{`insert a[1] {"id":1}`},
		terms:  terms{insertsOnly: []string{"a"}},
	}.run(t)
	n.warns("public.a", "the primary key is deferrable")
}

// Before Postgres 18 a stored generated column is not sent, and is absent; from 18 on
// it is published, because updates of a table with full identity would fail else.
func TestW29FullIdentityAndAGeneratedColumn(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	generated := func(value int) string {
		if (&node{t: t, url: url}).version() < 180000 {
			return ""
		}
		return fmt.Sprintf(`,"twice":%d`, value)
	}
	n := newNode(t, url)
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED)", "ALTER TABLE a REPLICA IDENTITY FULL")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 2)", "UPDATE a SET v = 3", "DELETE FROM a", "INSERT INTO a VALUES (4, 4)")
	n.check(terms{})
	was := ` was {"v":2` + generated(4) + `}`
	n.expect(`insert a[1] {"id":1,"v":2`+generated(4)+`}`, `update a[1] {"id":1,"v":3`+generated(6)+`}`+was, `delete a[1] {"id":1,"v":3`+generated(6)+`}`, `insert a[4] {"id":4,"v":4`+generated(8)+`}`)
}

func TestW30KeyInTheOrderOfItsIndex(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (b text, x int, a text, PRIMARY KEY (a, b) INCLUDE (x))")
	n.start()
	n.exec("INSERT INTO a VALUES ('B', 1, 'A'), ('A', 1, 'B')")
	n.fence()
	n.kill()
	n.start()
	n.exec("UPDATE a SET x = 2 WHERE a = 'A'", "DELETE FROM a WHERE a = 'A'")
	n.check(terms{})
	n.expect(`insert a[A,B] {"b":"B","x":1,"a":"A"}`, `insert a[B,A] {"b":"A","x":1,"a":"B"}`, `update a[A,B] {"b":"B","x":2,"a":"A"} was ?`, `delete a[A,B] {"b":"B","a":"A"} key only`)
}

// A publication with a column list is a person's own: Postgres 15 and later have them.
func TestW31ColumnListOfAPublication(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	if n.version() < 150000 {
		t.Skip("Postgres has column lists in publications from version 15 on")
	}
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text, secret text)",
		"CREATE PUBLICATION lockstep_app FOR TABLE a (id, v) WITH (publish_via_partition_root = true)")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 'x', 's')", "UPDATE a SET secret = 't'", "UPDATE a SET v = 'y'")
	n.check(terms{altered: []string{"a"}})
	n.expect(`insert a[1] {"id":1,"v":"x"}`, `update a[1] {"id":1,"v":"x"} was ?`, `update a[1] {"id":1,"v":"y"} was ?`)
	if n.reasonOf("public.a") != "" {
		t.Error("a person's own publication is none of our business:", n.reasonOf("public.a"))
	}
}

func TestW31CascadeAndInheritance(t *testing.T) {
	t.Parallel()
	n := scenario{
		before: []string{
			"CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE)",
			"CREATE TABLE base (id int PRIMARY KEY)", "CREATE TABLE derived (extra text, PRIMARY KEY (id)) INHERITS (base)",
		},
		in: []string{
			"INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (7, 1)", "DELETE FROM parent",
			"INSERT INTO derived VALUES (1, 'e')", "INSERT INTO base VALUES (1)", "UPDATE base SET id = id + 1", "DELETE FROM ONLY base",
		},
		out: []string{
			`insert parent[1] {"id":1}`, `insert child[7] {"id":7,"p":1}`, `delete parent[1] {"id":1} key only`, `delete child[7] {"id":7} key only`,
			`insert derived[1] {"id":1,"extra":"e"}`, `insert base[1] {"id":1}`,
			`delete base[1] {"id":1} key only`, `insert base[2] {"id":2}`, `delete derived[1] {"id":1} key only`, `insert derived[2] {"id":2,"extra":"e"}`, `delete base[2] {"id":2} key only`,
		},
	}.run(t)
	if got := n.lines(); !slices.Contains(got, `insert derived[2] {"id":2,"extra":"e"}`) {
		t.Error(got)
	}
}

func TestW32UpsertsAndUpdatesThatChangeNothing(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{
			"CREATE TABLE a (id int PRIMARY KEY, v int)", "CREATE TABLE f (id int PRIMARY KEY, v int)", "ALTER TABLE f REPLICA IDENTITY FULL",
		},
		in: []string{
			"INSERT INTO a VALUES (1, 1)", "INSERT INTO f VALUES (1, 1)",
			"INSERT INTO a VALUES (1, 2) ON CONFLICT DO NOTHING", "INSERT INTO a VALUES (1, 3) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
			"UPDATE a SET v = v", "UPDATE f SET v = v", "UPDATE f SET v = NULL", "UPDATE f SET v = 4",
		},
		out: []string{
			`insert a[1] {"id":1,"v":1}`, `insert f[1] {"id":1,"v":1}`, `update a[1] {"id":1,"v":3} was ?`, `update a[1] {"id":1,"v":3} was ?`,
			`update f[1] {"id":1,"v":1} was {}`, `update f[1] {"id":1,"v":null} was {"v":1}`, `update f[1] {"id":1,"v":4} was {"v":null}`,
		},
	}.run(t)
}
