package wal

import (
	"strings"
	"testing"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// bigText is a value that Postgres stores out of line when the column says so.
var bigText = strings.Repeat("0123456789", 1000)

func toasted(identity string) []string {
	return []string{
		"CREATE TABLE a (id int PRIMARY KEY, n int, body text)", "ALTER TABLE a ALTER body SET STORAGE EXTERNAL",
		"ALTER TABLE a REPLICA IDENTITY " + identity,
		"INSERT INTO a VALUES (1, 0, '" + bigText + "')",
	}
}

// W22
func TestUnchangedToastIsNamedAndNeverFaked(t *testing.T) {
	t.Parallel()
	log := captured(t, toasted("DEFAULT"), []string{"a"}, "UPDATE a SET n = 1")
	equal(t, log.changes(t), []seen{
		{Action: "update", Table: "public.a", Row: `{"id":1,"n":1}`, PKs: `["1"]`, Extra: `,"unchanged":["body"]`},
	})
}

// W23
func TestUnchangedToastIsFilledFromTheOldRowUnderFullIdentity(t *testing.T) {
	t.Parallel()
	log := captured(t, toasted("FULL"), []string{"a"}, "UPDATE a SET n = 1", "UPDATE a SET body = 'short'", "DELETE FROM a")
	equal(t, log.changes(t), []seen{
		{Action: "update", Table: "public.a", Row: `{"id":1,"n":1,"body":"` + bigText + `"}`, Changes: `{"n":0}`, PKs: `["1"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":1,"n":1,"body":"short"}`, Changes: `{"body":"` + bigText + `"}`, PKs: `["1"]`, OldKnown: true},
		{Action: "delete", Table: "public.a", Row: `{"id":1,"n":1,"body":"short"}`, PKs: `["1"]`, OldKnown: true},
	})
}

// W24
func TestKeyChangeIsADeleteAndAnInsert(t *testing.T) {
	t.Parallel()
	log := captured(t, toasted("DEFAULT"), []string{"a"}, "UPDATE a SET id = 2")
	equal(t, log.changes(t), []seen{
		{Action: "delete", Table: "public.a", Row: `{"id":1}`, PKs: `["1"]`},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"n":0}`, PKs: `["2"]`, Extra: `,"unchanged":["body"]`, OldKnown: true},
	})
	log = captured(t, toasted("FULL"), []string{"a"}, "UPDATE a SET id = 2")
	equal(t, log.changes(t), []seen{
		{Action: "delete", Table: "public.a", Row: `{"id":1,"n":0,"body":"` + bigText + `"}`, PKs: `["1"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"n":0,"body":"` + bigText + `"}`, PKs: `["2"]`, OldKnown: true},
	})
}

// Postgres sends the old key also when it is unchanged, if it is stored out of
// line: that is an update, and its key is known.
func TestKeyStoredOutOfLineIsNotTakenForAKeyChange(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("k", 2100) // an index entry must stay below 2.7 kB
	log := captured(t, []string{
		"CREATE TABLE a (k text PRIMARY KEY, n int)", "ALTER TABLE a ALTER k SET STORAGE EXTERNAL", "INSERT INTO a VALUES ('" + key + "', 0)",
	}, []string{"a"}, "UPDATE a SET n = 1")
	equal(t, log.changes(t), []seen{
		{Action: "update", Table: "public.a", Row: `{"k":"` + key + `","n":1}`, PKs: `["` + key + `"]`},
	})
}

// W25
func TestDeleteAndInsertOfOneKeyInOneTransaction(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{"CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x')"}, []string{"a"},
		"BEGIN; DELETE FROM a; INSERT INTO a VALUES (1, 'y'); COMMIT")
	equal(t, log.rows(t), []string{`delete {"id":1}`, `insert {"id":1,"v":"y"}`})
}

// W26
func TestIdentityIndexIsTheKeyWhenItIsNotThePrimaryKey(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{
		"CREATE TABLE a (id int PRIMARY KEY, x int NOT NULL, y int NOT NULL, v text, CONSTRAINT u UNIQUE (y, x))",
		"ALTER TABLE a REPLICA IDENTITY USING INDEX u",
		"CREATE TABLE b (y int, x int, v text, CONSTRAINT bp PRIMARY KEY (x, y))", "ALTER TABLE b REPLICA IDENTITY USING INDEX bp",
	}, []string{"a", "b"},
		"INSERT INTO a VALUES (1, 10, 20, 'v')", "UPDATE a SET id = 2", "DELETE FROM a", "INSERT INTO b VALUES (1, 2, 'v')")
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"x":10,"y":20,"v":"v"}`, PKs: `["20","10"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":2,"x":10,"y":20,"v":"v"}`, PKs: `["20","10"]`},
		{Action: "delete", Table: "public.a", Row: `{"x":10,"y":20}`, PKs: `["20","10"]`},
		{Action: "insert", Table: "public.b", Row: `{"y":1,"x":2,"v":"v"}`, PKs: `["2","1"]`, OldKnown: true},
	})
	equal(t, kinds(t, log), []lockstep.KeyKind{lockstep.KeyIdentity, lockstep.KeyIdentity, lockstep.KeyIdentity, lockstep.KeyPrimary})
}

func kinds(t testing.TB, log *memoryLog) []lockstep.KeyKind {
	t.Helper()
	var all []lockstep.KeyKind
	log.each(t, func(r lockstep.Record) { all = append(all, r.Table().Key) })
	return all
}

func hashes(t testing.TB, log *memoryLog) []uint64 {
	t.Helper()
	var all []uint64
	log.each(t, func(r lockstep.Record) { all = append(all, r.KeyHash()) })
	return all
}

// W27: insert-only tables. Their updates and deletes go on working.
func TestTablesPublishedForInsertsOnly(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		"CREATE TABLE none (v int, w text)",
		"CREATE TABLE nothing (id int PRIMARY KEY)", "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
		"CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)")
	publishTables(t, url)
	pgtest.Exec(t, url, "ALTER PUBLICATION p_inserts ADD TABLE none, nothing, late")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url,
		"INSERT INTO none VALUES (1, 'x'), (1, 'x'), (2, NULL)", "UPDATE none SET v = 3", "DELETE FROM none",
		"INSERT INTO nothing VALUES (1)", "UPDATE nothing SET id = 2", "DELETE FROM nothing",
		"INSERT INTO late VALUES (1)", "UPDATE late SET id = 2", "DELETE FROM late", "TRUNCATE late")
	r.caughtUp()
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.none", Row: `{"v":1,"w":"x"}`, PKs: `[]`, OldKnown: true},
		{Action: "insert", Table: "public.none", Row: `{"v":1,"w":"x"}`, PKs: `[]`, OldKnown: true},
		{Action: "insert", Table: "public.none", Row: `{"v":2,"w":null}`, PKs: `[]`, OldKnown: true},
		{Action: "insert", Table: "public.nothing", Row: `{"id":1}`, PKs: `["1"]`, OldKnown: true},
		{Action: "insert", Table: "public.late", Row: `{"id":1}`, PKs: `["1"]`, OldKnown: true},
		{Action: "truncate", Table: "public.late", PKs: `[]`},
	})
	h := hashes(t, log)
	if h[0] != h[1] || h[0] == h[2] {
		t.Errorf("hashes of equal and other rows: %x", h[:3])
	}
}

// W28
func TestEqualRowsWithoutAKeyAreOneEventEach(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{"CREATE TABLE a (v int)", "ALTER TABLE a REPLICA IDENTITY FULL"}, []string{"a"},
		"INSERT INTO a VALUES (1), (1)", "DELETE FROM a WHERE ctid = (SELECT min(ctid) FROM a)", "UPDATE a SET v = 2")
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"v":1}`, PKs: `[]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"v":1}`, PKs: `[]`, OldKnown: true},
		{Action: "delete", Table: "public.a", Row: `{"v":1}`, PKs: `[]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"v":2}`, Changes: `{"v":1}`, PKs: `[]`, OldKnown: true},
	})
	h := hashes(t, log)
	equal(t, h, []uint64{h[0], h[0], h[0], h[0]}) // an update joins two identities: one order for all
}

// Two rows may have a deferrable key at once, so it is none.
func TestDeferrableKeyIsNoKeyUnderFullIdentity(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{"CREATE TABLE a (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)", "ALTER TABLE a REPLICA IDENTITY FULL"}, []string{"a"},
		"INSERT INTO a VALUES (1, 'x'), (2, 'y')", "UPDATE a SET id = 3 - id")
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"v":"x"}`, PKs: `[]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"v":"y"}`, PKs: `[]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":2,"v":"x"}`, Changes: `{"id":1}`, PKs: `[]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":"y"}`, Changes: `{"id":2}`, PKs: `[]`, OldKnown: true},
	})
}

// Postgres tells the root's identity, and calls the partition's whole old row a key.
func TestFullPartitionsUnderARootThatIsNot(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{
		"CREATE TABLE a (id int, v text) PARTITION BY RANGE (id)", "CREATE TABLE a1 PARTITION OF a DEFAULT", "ALTER TABLE a1 REPLICA IDENTITY FULL",
		"CREATE TABLE b (id int PRIMARY KEY DEFERRABLE) PARTITION BY RANGE (id)", "CREATE TABLE b1 PARTITION OF b DEFAULT", "ALTER TABLE b1 REPLICA IDENTITY FULL",
	}, []string{"a", "b"},
		"INSERT INTO a VALUES (1, 'x'), (2, 'y')", "UPDATE a SET v = 'z'", "INSERT INTO b VALUES (1)", "UPDATE b SET id = 2")
	equal(t, log.changes(t)[2:], []seen{
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":"z"}`, PKs: `[]`},
		{Action: "update", Table: "public.a", Row: `{"id":2,"v":"z"}`, PKs: `[]`},
		{Action: "insert", Table: "public.b", Row: `{"id":1}`, PKs: `[]`, OldKnown: true},
		{Action: "update", Table: "public.b", Row: `{"id":2}`, PKs: `[]`},
	})
	h := hashes(t, log)
	equal(t, h, []uint64{h[0], h[0], h[0], h[0], h[4], h[4]}) // an update joins two identities
}

// W30
func TestKeyIsInTheOrderOfItsIndex(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (b text, x int, a text, PRIMARY KEY (a, b) INCLUDE (x))")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO a VALUES ('B', 1, 'A')")
	r.caughtUp()
	r.stop()
	r = begin(t, url, log)
	pgtest.Exec(t, url, "UPDATE a SET x = 2", "DELETE FROM a")
	r.caughtUp()
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"b":"B","x":1,"a":"A"}`, PKs: `["A","B"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"b":"B","x":2,"a":"A"}`, PKs: `["A","B"]`},
		{Action: "delete", Table: "public.a", Row: `{"b":"B","a":"A"}`, PKs: `["A","B"]`},
	})
	table := &lockstep.Table{Schema: "public", Name: "a"}
	want := lockstep.KeyHashPart(lockstep.KeyHashPart(lockstep.KeyHash(table), []byte("A")), []byte("B"))
	equal(t, hashes(t, log), []uint64{want, want, want})
}

// W31
func TestColumnListCascadeAndInheritance(t *testing.T) {
	t.Parallel()
	if probe := pgtest.Database(t); version(t, probe) < 150000 {
		t.Skip("Postgres has column lists in publications from version 15 on")
	}
	log := captured(t, []string{
		"CREATE TABLE a (id int PRIMARY KEY, v text, secret text)",
		"CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE)",
		"CREATE TABLE base (id int PRIMARY KEY)", "CREATE TABLE derived (extra text, PRIMARY KEY (id)) INHERITS (base)",
	}, []string{"a (id, v)", "parent", "child", "base"},
		"INSERT INTO a VALUES (1, 'x', 's')", "UPDATE a SET secret = 't'",
		"INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (7, 1)", "DELETE FROM parent",
		"INSERT INTO derived VALUES (1, 'e')")
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"v":"x"}`, PKs: `["1"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":"x"}`, PKs: `["1"]`},
		{Action: "insert", Table: "public.parent", Row: `{"id":1}`, PKs: `["1"]`, OldKnown: true},
		{Action: "insert", Table: "public.child", Row: `{"id":7,"p":1}`, PKs: `["7"]`, OldKnown: true},
		{Action: "delete", Table: "public.parent", Row: `{"id":1}`, PKs: `["1"]`},
		{Action: "delete", Table: "public.child", Row: `{"id":7}`, PKs: `["7"]`},
		{Action: "insert", Table: "public.derived", Row: `{"id":1,"extra":"e"}`, PKs: `["1"]`, OldKnown: true},
	})
}

// W32
func TestUpsertsAndUpdatesThatChangeNothing(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{
		"CREATE TABLE a (id int PRIMARY KEY, v int)", "INSERT INTO a VALUES (1, 1)",
		"CREATE TABLE f (id int PRIMARY KEY, v int)", "INSERT INTO f VALUES (1, 1)", "ALTER TABLE f REPLICA IDENTITY FULL",
	}, []string{"a", "f"},
		"INSERT INTO a VALUES (1, 2) ON CONFLICT DO NOTHING", "INSERT INTO a VALUES (1, 3) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
		"UPDATE a SET v = v", "UPDATE f SET v = v", "UPDATE f SET v = NULL", "UPDATE f SET v = 4")
	equal(t, log.changes(t), []seen{
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":3}`, PKs: `["1"]`},
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":3}`, PKs: `["1"]`},
		{Action: "update", Table: "public.f", Row: `{"id":1,"v":1}`, Changes: `{}`, PKs: `["1"]`, OldKnown: true},
		{Action: "update", Table: "public.f", Row: `{"id":1,"v":null}`, Changes: `{"v":1}`, PKs: `["1"]`, OldKnown: true},
		{Action: "update", Table: "public.f", Row: `{"id":1,"v":4}`, Changes: `{"v":null}`, PKs: `["1"]`, OldKnown: true},
	})
}

func TestJSONNullIsToldFromSQLNull(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{`CREATE TABLE a (id int PRIMARY KEY, "j""x" jsonb, k json)`}, []string{"a"},
		`INSERT INTO a VALUES (1, 'null', NULL), (2, '1.10', ' null ')`)
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"j\"x":null,"k":null}`, PKs: `["1"]`, Extra: `,"json_null":["j\"x"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"j\"x":1.10,"k": null }`, PKs: `["2"]`, Extra: `,"json_null":["k"]`, OldKnown: true},
	})
}

// Values do not depend on what the role or the database sets (W41).
func TestSettingsOfTheDatabaseDoNotReachTheValues(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	name := pgtest.Query(t, url, "SELECT quote_ident(current_database())")[0][0]
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, t timestamptz, i interval, f float8, b bytea, c regclass, d regclass)",
		"ALTER DATABASE "+name+" SET search_path = public, information_schema", "ALTER DATABASE "+name+" SET DateStyle = 'German'", "ALTER DATABASE "+name+" SET IntervalStyle = 'iso_8601'",
		"ALTER DATABASE "+name+" SET TimeZone = 'Asia/Tokyo'", "ALTER DATABASE "+name+" SET extra_float_digits = -10",
		"ALTER DATABASE "+name+" SET bytea_output = 'escape'")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, `INSERT INTO a VALUES (1, '2026-11-21 10:00:00.5+00', '1 day 02:00', 0.1234567890123456, '\x00ff', 'public.a', 'pg_catalog.pg_class')`)
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":1,"t":"2026-11-21T10:00:00.500000Z","i":"1 day 02:00:00","f":0.1234567890123456,"b":"AP8=","c":"public.a","d":"pg_class"}`})
}

// A database that does not know what its bytes mean: a value that is no text goes out
// with U+FFFD and is named, and stops nothing.
func TestBytesThatAreNoText(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	pgtest.Exec(t, c.URL("postgres"), "CREATE DATABASE raw ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	url := c.URL("raw")
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.Slot = "s" })
	pgtest.Exec(t, url, `INSERT INTO a VALUES (1, E'a\xff\xc3b')`, "INSERT INTO a VALUES (2, 'é')")
	r.caughtUp()
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"v":"a��b"}`, PKs: `["1"]`, Extra: `,"invalid_utf8":["v"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"v":"é"}`, PKs: `["2"]`, OldKnown: true},
	})
}
