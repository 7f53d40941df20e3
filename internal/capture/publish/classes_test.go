package publish

import (
	"fmt"
	"slices"
	"testing"

	"lockstep"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb/pgtest"
)

// class is one row of the table of classes: a table, what is said about it, and the
// application's writes that must go on working.
type class struct {
	name    string
	create  string // of table t
	want    Class
	key     lockstep.KeyKind
	columns []string
	id      string
	reason  string
	remedy  string
	note    string
	insert  string // default: INSERT INTO t VALUES (1, 'a')
	skip    func(version int) bool
}

func before18(v int) bool { return v >= 18 }
func from18(v int) bool   { return v < 18 }

var classes = []class{
	{name: "primary key", create: "CREATE TABLE t (id int PRIMARY KEY, v text)", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d", note: NoteOldValues},
	{name: "key over two columns, in the order of the index", create: "CREATE TABLE t (b int, v text, a int DEFAULT 2, PRIMARY KEY (a, b))", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"a", "b"}, id: "d"},
	{name: "key with included columns", create: "CREATE TABLE t (id int, v text, PRIMARY KEY (id) INCLUDE (v))", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d"},
	{name: "full with a primary key", create: "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "f"},
	{name: "full without a key", create: "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL", want: Full,
		key: lockstep.KeyRow, id: "f", note: "equal rows"},
	{name: "full with a deferrable key", create: "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text); ALTER TABLE t REPLICA IDENTITY FULL", want: Full,
		key: lockstep.KeyRow, id: "f", note: "the primary key is deferrable"},
	{name: "partitioned, full with a deferrable key", create: `CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text) PARTITION BY RANGE (id);
		CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t1 REPLICA IDENTITY FULL`, want: Full,
		key: lockstep.KeyRow, id: "f", note: "the primary key is deferrable"},
	{name: "identity index that holds a deferrable key", create: "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text NOT NULL, UNIQUE (v, id)); ALTER TABLE t REPLICA IDENTITY USING INDEX t_v_id_key", want: Full,
		key: lockstep.KeyIdentity, columns: []string{"v", "id"}, id: "i"},
	{name: "identity index that is the primary key", create: "CREATE TABLE t (id int, v text NOT NULL, PRIMARY KEY (v, id)); ALTER TABLE t REPLICA IDENTITY USING INDEX t_pkey", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"v", "id"}, id: "i"},
	{name: "identity index that is not the primary key", create: "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_v_key", want: Full,
		key: lockstep.KeyIdentity, columns: []string{"v"}, id: "i", note: "deletes carry no primary key"},
	{name: "identity index that holds the primary key", create: "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL, UNIQUE (v, id)); ALTER TABLE t REPLICA IDENTITY USING INDEX t_v_id_key", want: Full,
		key: lockstep.KeyIdentity, columns: []string{"v", "id"}, id: "i"},
	{name: "identity index without a primary key", create: "CREATE TABLE t (a int NOT NULL, v text NOT NULL, UNIQUE (v, a)); ALTER TABLE t REPLICA IDENTITY USING INDEX t_v_a_key", want: Full,
		key: lockstep.KeyIdentity, columns: []string{"v", "a"}, id: "i"},
	{name: "no key", create: "CREATE TABLE t (id int, v text)", want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "no primary key", remedy: `ALTER TABLE "public"."t" REPLICA IDENTITY FULL; -- takes an AccessExclusiveLock`},
	{name: "nothing, with a primary key", create: "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY NOTHING", want: InsertOnly,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "n", reason: "NOTHING", remedy: "REPLICA IDENTITY DEFAULT"},
	{name: "nothing, without a key", create: "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY NOTHING", want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "NOTHING", remedy: "REPLICA IDENTITY FULL"},
	{name: "deferrable key", create: "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)", want: InsertOnly,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "n", reason: "deferrable", remedy: "REPLICA IDENTITY FULL"},
	{name: "identity index gone", create: "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_v_key; ALTER TABLE t DROP CONSTRAINT t_v_key", want: InsertOnly,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "n", reason: "is gone", remedy: "REPLICA IDENTITY DEFAULT"},
	{name: "full with a stored generated column", create: "CREATE TABLE t (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED); ALTER TABLE t REPLICA IDENTITY FULL", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "f"},
	{name: "stored generated column before 18", create: "CREATE TABLE t (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED)", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d", note: "generated columns are absent", skip: before18},
	{name: "generated column in the key before 18", create: "CREATE TABLE t (id int, v text, g int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id, g))", want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "generated column", remedy: "REPLICA IDENTITY FULL", skip: before18},
	{name: "generated column in the key from 18", create: "CREATE TABLE t (id int, v text, g int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id, g))", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id", "g"}, id: "d", skip: from18},
	{name: "full with a virtual generated column", create: "CREATE TABLE t (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) VIRTUAL); ALTER TABLE t REPLICA IDENTITY FULL", want: InsertOnly,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "n", reason: "generated columns", remedy: "REPLICA IDENTITY DEFAULT", skip: from18},
	{name: "unlogged", create: "CREATE UNLOGGED TABLE t (id int PRIMARY KEY, v text)", want: None,
		key: lockstep.KeyRow, id: "n", reason: "unlogged", remedy: "SET LOGGED"},
	{name: "no columns but one", create: "CREATE TABLE t (id int, v text); ALTER TABLE t DROP COLUMN id", want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "no primary key", insert: "INSERT INTO t VALUES ('a')"},
	{name: "inheritance parent", create: "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE child (w int) INHERITS (t)", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d"},
	{name: "partitioned with a primary key", create: "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d", note: NotePartitions},
	{name: "partitioned without a key", create: "CREATE TABLE t (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT", want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "in partition public.t1", remedy: `"public"."t1" REPLICA IDENTITY FULL`},
	{name: "partitioned, full at the root alone", create: "CREATE TABLE t (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY FULL", want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "in partition public.t1"},
	{name: "partitioned, full at every partition", create: "CREATE TABLE t (id int, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t1 REPLICA IDENTITY FULL", want: Full,
		key: lockstep.KeyRow, id: "f", note: "a partition made later refuses updates"},
	{name: "partitioned, root full and partition default", create: "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY FULL", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d"},
	{name: "partitioned, one leaf with nothing, two levels down", create: `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
		CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
		CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200);
		CREATE TABLE t1a PARTITION OF t1 DEFAULT; ALTER TABLE t1a REPLICA IDENTITY NOTHING`, want: InsertOnly,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "n", reason: "in partition public.t1a", remedy: `"public"."t1a" REPLICA IDENTITY DEFAULT`},
	{name: "partitioned, different identities", create: `CREATE TABLE t (id int NOT NULL, v text NOT NULL) PARTITION BY RANGE (id);
		CREATE TABLE t1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (100);
		CREATE TABLE t2 PARTITION OF t (PRIMARY KEY (v)) FOR VALUES FROM (100) TO (200)`, want: InsertOnly,
		key: lockstep.KeyRow, id: "n", reason: "different replica identities"},
	{name: "partitioned, an unlogged partition", create: `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
		CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE UNLOGGED TABLE t2 PARTITION OF t DEFAULT`, want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d", note: "changes of public.t2 are not seen"},
	{name: "partitioned, no partitions yet", create: "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE later PARTITION OF t DEFAULT", want: Full,
		key: lockstep.KeyPrimary, columns: []string{"id"}, id: "d"},
}

func TestEveryClassOfTableIsPublishedSoThatWritesGoOn(t *testing.T) {
	t.Parallel()
	for _, c := range classes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			if c.skip != nil && c.skip(serverVersion(t, url)) {
				t.Skip("the case is another one on this version of Postgres")
			}
			pgtest.Exec(t, url, c.create)
			state := stateOf(t, prepare(t, newReconciler(t, url)), "public.t")
			c.check(t, state)
			insert := c.insert
			if insert == "" {
				insert = "INSERT INTO t VALUES (1, 'a')"
			}
			pgtest.Exec(t, url, insert, "UPDATE t SET v = 'b'", "DELETE FROM t", insert, "TRUNCATE t")
			switch c.want {
			case Full:
				wantIn(t, url, testPublication, "public.t")
				wantNotIn(t, url, testPublication+InsertsSuffix, "public.t")
			case InsertOnly:
				wantNotIn(t, url, testPublication, "public.t")
				wantIn(t, url, testPublication+InsertsSuffix, "public.t")
			case None:
				wantNotIn(t, url, testPublication, "public.t")
				wantNotIn(t, url, testPublication+InsertsSuffix, "public.t")
			}
		})
	}
}

func (c class) check(t *testing.T, got TableState) {
	t.Helper()
	if got.Class != c.want || got.Published != c.want {
		t.Errorf("class: got %s, published %s, want %s (%s)", got.Class, got.Published, c.want, got.Reason)
	}
	if got.Key != c.key || !slices.Equal(got.KeyColumns, c.columns) || got.Identity != c.id {
		t.Errorf("key: got %s %v identity %s, want %s %v identity %s", got.Key, got.KeyColumns, got.Identity, c.key, c.columns, c.id)
	}
	contains(t, "reason", got.Reason, c.reason)
	contains(t, "remedy", got.Remedy, c.remedy)
	contains(t, "note", got.Note, c.note)
	if c.want == Full && got.Reason != "" {
		t.Errorf("a table that is as it should be has the reason %q", got.Reason)
	}
}

func wantIn(t *testing.T, url, publication, table string) {
	t.Helper()
	if !slices.Contains(members(t, url, publication), table) {
		t.Errorf("%s is not in %s", table, publication)
	}
}

func wantNotIn(t *testing.T, url, publication, table string) {
	t.Helper()
	if slices.Contains(members(t, url, publication), table) {
		t.Errorf("%s is in %s", table, publication)
	}
}

func TestRelationsWithoutEventsAreStatedAndSpoilNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		"CREATE TABLE good (id int PRIMARY KEY)",
		"CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)",
		"CREATE VIEW looked_at AS SELECT * FROM good",
		"CREATE VIEW named AS SELECT * FROM good",
		"CREATE MATERIALIZED VIEW kept AS SELECT * FROM good",
		"CREATE SEQUENCE counter",
		"CREATE FOREIGN DATA WRAPPER w",
		"CREATE SERVER s FOREIGN DATA WRAPPER w",
		"CREATE FOREIGN TABLE far (id int) SERVER s",
	)
	states := prepare(t, newReconciler(t, url, withPatterns(t, "public.*", "public.named", "public.counter")))
	wantMembers(t, url, testPublication, "public.good")
	wantMembers(t, url, testPublication+InsertsSuffix)
	want := []string{"public.counter", "public.far", "public.good", "public.kept", "public.named", "public.unlogged"}
	if got := namesOf(states); !slices.Equal(got, want) {
		t.Errorf("states: got %v, want %v (a view or sequence only when it is named)", got, want)
	}
	for _, name := range want {
		if s := stateOf(t, states, name); name != "public.good" && (s.Class != None || s.Reason == "" || s.Remedy == "") {
			t.Errorf("%s: got %s %q %q, want none with reason and remedy", name, s.Class, s.Reason, s.Remedy)
		}
	}
}

func TestSurveyNeedsNoPublication(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int)", "CREATE SCHEMA lockstep", "CREATE TABLE lockstep.own (id int)")
	states, err := Survey(t.Context(), openPool(t, url), pattern.Patterns{})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%v %s %s", namesOf(states), states[0].Class, states[1].Class)
	if want := "[public.a public.b] full insert_only"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
