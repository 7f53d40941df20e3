package torture_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// uncovered are the server's types that no column can hold values of: they have no
// input, or are an index's own.
var uncovered = regexp.MustCompile(`^(pg_(node_tree|ndistinct|dependencies|mcv_list|brin_.*)|g(tsvector|hstore)|ltree_gist|intbig_gkey|cardinal_number|character_data|sql_identifier|time_stamp|yes_or_no)$`)

const columnTypes = `
SELECT t.typname
FROM pg_type t
WHERE t.typtype IN ('b', 'd', 'e', 'r', 'm') AND NOT (t.typname LIKE '\_%' AND t.typelem <> 0)`

// fillSamples makes unwatched.samples with one column per type and one per array of
// it, in which row i holds sample i. It returns the list of columns.
func fillSamples(t *testing.T, url string) (columns []string, rows int) {
	t.Helper()
	pgtest.Exec(t, url, sampleSchema()...)
	all, missing := samples(), map[string]bool{}
	for _, r := range pgtest.Query(t, url, columnTypes) {
		missing[r[0]] = !uncovered.MatchString(r[0])
	}
	var ddl []string
	for i, s := range all {
		name := strings.Trim(strings.SplitN(strings.SplitN(s.typ, "(", 2)[0], " ", 2)[0], `"`)
		missing[map[string]string{"char": "bpchar"}[s.typ[:min(4, len(s.typ))]]] = false
		missing[name] = false
		columns = append(columns, fmt.Sprintf("c%d", i), fmt.Sprintf("a%d", i))
		ddl = append(ddl, fmt.Sprintf("c%d %s, a%d %s[]", i, s.typ, i, s.typ))
		rows = max(rows, len(s.values))
	}
	for name, is := range missing {
		if is {
			t.Errorf("this Postgres has a type %s, of which there is no sample", name)
		}
	}
	pgtest.Exec(t, url, "CREATE TABLE unwatched.samples (id int PRIMARY KEY, "+strings.Join(ddl, ", ")+")",
		fmt.Sprintf("INSERT INTO unwatched.samples SELECT generate_series(1, %d)", rows))
	writer := newSession(t, url)
	for i, s := range all {
		for r := range rows {
			set := fmt.Sprintf("UPDATE unwatched.samples SET c%d = %s", i, cast(s.values[r%len(s.values)], s.typ))
			if array := sampleArray(s, r); array != "" {
				set += fmt.Sprintf(", a%d = %s", i, array)
			}
			writer.exec(fmt.Sprintf("%s WHERE id = %d", set, r+1))
		}
	}
	return columns, rows
}

func cast(value, typ string) string { return "(" + value + ")::" + typ }

// sampleArray is the array of a type in a row: empty, of one dimension with NULLs,
// of two dimensions, with other lower bounds, NULL.
func sampleArray(s sample, row int) string {
	items := make([]string, 0, len(s.values)+1)
	for _, v := range s.values {
		// JSON's null and SQL's read the same inside an array: a limit of the contract.
		if strings.Trim(v, "' ") == "null" && slices.Contains([]string{"json", "jsonb", "doc"}, s.typ) {
			continue
		}
		items = append(items, cast(v, s.typ))
	}
	one := "ARRAY[" + strings.Join(items, ", ") + "]::" + s.typ + "[]"
	nested := slices.Contains([]string{"json", "jsonb", "doc", "ids"}, s.typ) // where the JSON does not tell dimensions
	switch {
	case row == 0:
		return "'{}'::" + s.typ + "[]"
	case row == 1:
		return one + " || NULL::" + s.typ
	case row == 2 && !nested:
		return "ARRAY[" + one + ", " + one + "]"
	case row == 3 && len(items) > 1:
		// Written by text: [2:3]={…}.
		return fmt.Sprintf("('[2:%d]=' || (%s)::text)::%s[]", len(items)+1, one, s.typ)
	}
	return ""
}

// The samples of each type go through insert, update, delete and, where the node
// has backfills, read.
func TestW40EveryTypeComesBackByteForByte(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t), ", tables: [\"-unwatched.*\"]")
	columns, rows := fillSamples(t, n.url)
	for _, table := range []string{"plain", "full_identity"} {
		n.exec("CREATE TABLE " + table + " (LIKE unwatched.samples INCLUDING ALL)")
	}
	n.exec("ALTER TABLE full_identity REPLICA IDENTITY FULL")
	n.start()
	list := strings.Join(columns, ", ")
	for _, table := range []string{"plain", "full_identity"} {
		n.exec(
			"INSERT INTO "+table+" SELECT * FROM unwatched.samples",
			fmt.Sprintf("UPDATE %s e SET (%s) = (SELECT %s FROM unwatched.samples s WHERE s.id = e.id %% %d + 1) WHERE e.id > 1", table, list, list, rows),
			"UPDATE "+table+" SET c0 = NOT c0 WHERE id = 1", // whatever is stored out of line is unchanged
			"UPDATE "+table+" SET id = id + 100 WHERE id = 2",
			"DELETE FROM "+table+" WHERE id = 3")
	}
	n.check(terms{})
	if got := len(n.lines()); got != 2*(rows+rows-1+1+2+1) {
		t.Errorf("%d changes", got)
	}
	t.Run("read", func(t *testing.T) {
		n.needs(t, "/v1/consumers/{id}/backfills")
		n.exec("TRUNCATE plain, full_identity") // of what the consumer knows
		n.exec("BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO plain SELECT * FROM unwatched.samples; INSERT INTO full_identity SELECT * FROM unwatched.samples; COMMIT")
		n.fence()
		before := len(n.changes)
		if status, answer := n.call(http.MethodPost, "/v1/consumers/all/backfills", `{"tables":["public.plain","public.full_identity"]}`); status != http.StatusCreated {
			t.Fatalf("%d %s", status, answer)
		}
		reads := 0
		n.until("every row again", func(c client.Change) bool {
			if c.Action == "read" {
				reads++
			}
			return reads == 2*rows
		})
		if reads != 2*rows {
			t.Errorf("%d rows were read after %d changes, want %d", reads, before, 2*rows)
		}
		n.check(terms{})
	})
}

// What a person may have set for a database, or for a role in it, does not show.
func TestW41SettingsDoNotReachValues(t *testing.T) {
	t.Parallel()
	const in = `INSERT INTO a VALUES (1, '2026-11-21 10:00:00.5+00', '0044-03-15 BC', '1 year -2 days 03:00', 0.1234567890123456, 0.1::float4, '\x00ff27', '{{"2026-11-21 10:00+00"}}')`
	const out = `insert a[1] {"id":1,"t":"2026-11-21T10:00:00.500000Z","d":"0044-03-15 BC","i":"1 year -2 days +03:00:00","f":0.1234567890123456,"g":0.1,"b":"AP8n","ts":[["2026-11-21T10:00:00.000000Z"]]}`
	for i, settings := range [][]string{
		{"DateStyle = 'German'", "IntervalStyle = 'iso_8601'", "TimeZone = 'Asia/Tokyo'", "extra_float_digits = -10", "bytea_output = 'escape'"},
		{"DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Kathmandu'", "extra_float_digits = 0"},
		{"DateStyle = 'Postgres, MDY'", "IntervalStyle = 'postgres_verbose'", "TimeZone = 'America/St_Johns'", "client_encoding = 'LATIN1'", "search_path = 'nowhere'", "standard_conforming_strings = off"},
	} {
		t.Run(strings.Join(settings, ", "), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, pgtest.Database(t))
			n.exec("CREATE TABLE a (id int PRIMARY KEY, t timestamptz, d date, i interval, f float8, g float4, b bytea, ts timestamptz[])", "ALTER TABLE a REPLICA IDENTITY FULL")
			of := "DATABASE %I SET %s', current_database(), "
			if i == 1 { // a role's go before the database's
				of = "ROLE %I IN DATABASE ' || quote_ident(current_database()) || ' SET %s', current_user, "
			}
			for _, s := range settings {
				n.exec("DO $$ BEGIN EXECUTE format('ALTER " + of + "$s$" + s + "$s$); END $$")
			}
			n.start()
			writer := newSession(t, n.url)
			writer.exec("SET DateStyle = 'ISO, YMD'", "SET search_path = public", "SET client_encoding = 'UTF8'", "SET standard_conforming_strings = on", in)
			// A table that joins later is read by a connection that is not the walsender.
			writer.exec("CREATE TABLE joined AS SELECT * FROM a", "UPDATE a SET f = 1 WHERE id = 1")
			pgtest.Eventually(t, 20*time.Second, "the table joins", func() bool {
				return n.one("SELECT count(*) FROM pg_catalog.pg_publication_tables WHERE tablename = 'joined'") == "1"
			})
			n.check(terms{})
			lines := n.lines()
			if !slices.Contains(lines, out) || !slices.Contains(lines, strings.Replace(out, "insert a[1]", "insert joined", 1)) {
				t.Errorf("what came:\n%s\nwant both\n%s", strings.Join(lines, "\n"), out)
			}
		})
	}
}

func TestX03RowLargerThanAnyMessage(t *testing.T) {
	t.Parallel()
	size := 20_000_000
	if longRun() {
		size = 110_000_000
	}
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text)", "ALTER TABLE a ALTER v SET STORAGE EXTERNAL")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 'small')", fmt.Sprintf("INSERT INTO a VALUES (2, repeat('x', %d))", size), "INSERT INTO a VALUES (3, 'small')", "UPDATE a SET id = 4 WHERE id = 2")
	n.check(terms{})
}

// Bytes that are not UTF-8 exist in databases that do not check: such a value goes
// out with U+FFFD and is named; it stops nothing.
func TestX04BytesThatAreNoText(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	pgtest.Exec(t, c.URL("postgres"), "CREATE DATABASE raw ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	n := newNode(t, c.URL("raw"))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text, w text)")
	n.start()
	n.exec(`INSERT INTO a VALUES (1, E'a\xff\xc3b', 'x')`, "INSERT INTO a VALUES (2, 'é', 'y')")
	n.fence()
	n.expect(`insert a[1] {"id":1,"v":"a��b","w":"x"}`, `insert a[2] {"id":2,"v":"é","w":"y"}`)
	if raw := string(n.bySeq()[0].Metadata.Raw); !strings.Contains(raw, `"invalid_utf8":["v"]`) {
		t.Error("the column is not named:", raw)
	}
}

// Types that are made, changed, dropped and made again under the same name, while
// capture runs. One that was dropped before its first value was decoded is known to
// nobody any more: its values would go out as text.
func TestX05TypesThatChangeUnderway(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TYPE mood AS ENUM ('glad')", "CREATE TABLE a (id int PRIMARY KEY, m mood, ms mood[])")
	n.start()
	n.exec("INSERT INTO a VALUES (1, 'glad', '{glad}')", "ALTER TYPE mood ADD VALUE 'so, \"so\"'", "INSERT INTO a VALUES (2, 'so, \"so\"', ARRAY['so, \"so\"', NULL]::mood[])",
		"ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'", "UPDATE a SET ms = NULL WHERE id = 1",
		"CREATE DOMAIN d AS bytea", "ALTER TABLE a ADD COLUMN x d", "INSERT INTO a VALUES (3, NULL, NULL, '\\x00')")
	n.fence()
	n.exec("DELETE FROM a WHERE id = 3", "ALTER TABLE a DROP COLUMN x", "DROP DOMAIN d", "CREATE DOMAIN d AS int[]", "ALTER TABLE a ADD COLUMN x d", "INSERT INTO a VALUES (4, NULL, NULL, '{1,2}')",
		"UPDATE a SET m = 'happy' WHERE id = 1") // what the enum's rename has changed is in no change
	n.check(terms{altered: []string{"a"}})
	n.expect(
		`insert a[1] {"id":1,"m":"glad","ms":["glad"]}`, `insert a[2] {"id":2,"m":"so, \"so\"","ms":["so, \"so\"",null]}`, `update a[1] {"id":1,"m":"happy","ms":null} was ?`,
		`insert a[3] {"id":3,"m":null,"ms":null,"x":"AA=="}`, `delete a[3] {"id":3} key only`, `insert a[4] {"id":4,"m":null,"ms":null,"x":[1,2]}`, `update a[1] {"id":1,"m":"happy","ms":null,"x":null} was ?`)
}

// Postgres itself keeps NUL out, in every way in.
func TestW40NULIsNoText(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text, j jsonb, k json)")
	n.start()
	s := newSession(t, n.url)
	for _, sql := range []string{`INSERT INTO a (id, v) VALUES (1, chr(0))`, `INSERT INTO a (id, v) VALUES (1, E'\x00')`, `INSERT INTO a (id, j) VALUES (1, '"\u0000"')`} {
		if _, err := s.conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("Postgres took %s", sql)
		}
	}
	s.exec(`INSERT INTO a (id, k) VALUES (2, '"\u0000"')`)
	n.check(terms{})
	n.expect(`insert a[2] {"id":2,"v":null,"j":null,"k":"\u0000"}`)
}

// The scaled-down form of an hour of load: 120 MB into a neighbour.
func TestW42BusyNeighbourAndAQuietTable(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"wal_recycle": "off"})
	for _, name := range []string{"app", "neighbour"} {
		if err := c.CreateDatabase(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, c.URL("app"))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (0)")
	n.start()
	pgtest.Exec(t, c.URL("neighbour"), "CREATE TABLE noise (v text)")
	for range 4 {
		pgtest.Exec(t, c.URL("neighbour"), "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 27000)", "TRUNCATE noise", "SELECT pg_switch_wal()", "CHECKPOINT")
	}
	n.exec("CREATE TABLE unlogged_noise AS SELECT 1 AS id", "DROP TABLE unlogged_noise")
	const retained = `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) < 2 * 16 * 1024 * 1024 FROM pg_replication_slots WHERE slot_name = $1::text`
	pgtest.Eventually(t, 40*time.Second, "the slot keeps less than two segments of WAL", func() bool {
		pgtest.Exec(t, c.URL("neighbour"), "CHECKPOINT") // in life one comes every few minutes
		return n.one(retained, n.slot) == "t"
	})
	n.exec("INSERT INTO a VALUES (1)")
	n.fence()
	n.expect(`insert a[1] {"id":1}`)
}
