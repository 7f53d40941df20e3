package doctor_test

import (
	"fmt"
	"strings"
	"testing"

	"lockstep/internal/config"
	"lockstep/internal/doctor"
	"lockstep/internal/pgdb/pgtest"
)

func TestTablesThatAreNotCapturedInFull(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address,
		`CREATE TABLE a (id int)`, `CREATE TABLE b (id int)`, `CREATE TABLE c (id int)`, `CREATE TABLE d (id int)`,
		`CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE)`,
		`CREATE UNLOGGED TABLE counters (id int PRIMARY KEY)`,
		`CREATE VIEW v AS SELECT 1 AS x`, `CREATE MATERIALIZED VIEW m AS SELECT 1 AS x`,
		`CREATE TABLE fine (id int PRIMARY KEY)`,
	)
	c := configure(t, address)
	r := run(t, c)
	want(t, r, "tables", doctor.Pass, "6 tables are captured: 1 with every operation, 5 with inserts only")
	want(t, r, "table_identity", doctor.Warn, "inserts only of public.a, public.b, public.c and 1 more", "no primary key",
		`ALTER TABLE "public"."a" REPLICA IDENTITY FULL;`, "and the same for 1 more", "AccessExclusiveLock")
	want(t, r, "table_identity", doctor.Warn, "public.deferred", "deferrable")
	want(t, r, "table_kind", doctor.Warn, "public.counters", "unlogged", "SET LOGGED")
	want(t, r, "table_kind", doctor.Pass, "public.m: a materialized view has no events")
	want(t, r, "table_updates", doctor.Pass)

	c.Databases[0].Tables = []string{"public.v", "public.fine"}
	want(t, run(t, c), "table_kind", doctor.Warn, "public.v", "a view has no events", "capture the tables that it reads")
	c.Databases[0].Tables = []string{"public.nothing"}
	want(t, run(t, c), "tables", doctor.Warn, "the patterns match none", "databases[].tables")
}

func TestForeignTables(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	if pgtest.Query(t, address, `SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'`)[0][0] == "0" {
		t.Skip("this Postgres has no postgres_fdw")
	}
	pgtest.Exec(t, address, `CREATE EXTENSION postgres_fdw`, `CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw`, `CREATE FOREIGN TABLE far (id int) SERVER s`)
	c := configure(t, address)
	c.Databases[0].Tables = []string{"public.far"}
	want(t, run(t, c), "table_kind", doctor.Warn, "public.far", "a foreign table has no events here", "# capture it in the database that holds it")
}

func TestTablesWithLargeValues(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address, `CREATE TABLE small (id int PRIMARY KEY, body text)`, `INSERT INTO small VALUES (1, 'x')`)
	c := configure(t, address)
	want(t, run(t, c), "table_toast", doctor.Pass, "(1 could)")
	for _, name := range []string{"l1", "l2", "l3", "l4", "l5"} {
		pgtest.Exec(t, address, "CREATE TABLE "+name+" (id int PRIMARY KEY, body text)", "ALTER TABLE "+name+" ALTER body SET STORAGE EXTERNAL",
			"INSERT INTO "+name+" VALUES (1, repeat('x', 10000))")
	}
	pgtest.Exec(t, address,
		`CREATE TABLE whole (LIKE l1 INCLUDING ALL)`, `ALTER TABLE whole REPLICA IDENTITY FULL`, `INSERT INTO whole SELECT * FROM l1`,
		`CREATE TABLE parts (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)`, `CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)`,
		`ALTER TABLE part ALTER body SET STORAGE EXTERNAL`, `INSERT INTO parts SELECT * FROM l1`)
	r := run(t, c)
	want(t, r, "table_toast", doctor.Warn, "6 tables with large values", "public.l1, public.l2, public.l3 and 3 more",
		`ALTER TABLE "public"."l3" REPLICA IDENTITY FULL;`, "and the same for 3 more")
	n := 0
	for _, f := range r.Findings {
		if f.ID == "table_toast" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d findings about one thing", n)
	}
}

func TestWhatChangesOfTablesLack(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address,
		`CREATE TABLE plain (id int PRIMARY KEY)`,
		`CREATE TABLE sums (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a + 1) STORED)`,
		`CREATE TABLE other (id int PRIMARY KEY, code text NOT NULL UNIQUE)`, `ALTER TABLE other REPLICA IDENTITY USING INDEX other_code_key`,
		`CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)`,
	)
	r := run(t, configure(t, address))
	want(t, r, "table_notes", doctor.Pass, "old values are not known")
	want(t, r, "table_notes", doctor.Pass, "public.parts: ", "TRUNCATE of a single partition")
	want(t, r, "table_notes", doctor.Warn, "public.other: ", "ordered by its replica identity (code); deletes carry no primary key")
	if pgtest.Query(t, address, `SELECT current_setting('server_version_num')::int < 180000`)[0][0] == "t" {
		want(t, r, "table_notes", doctor.Warn, "public.sums: ", "generated columns are absent")
	}
}

func TestRowsThatRowSecurityHides(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	who := role(t, address, "REPLICATION")
	pgtest.Exec(t, address, `CREATE TABLE secret (id int PRIMARY KEY)`, `ALTER TABLE secret ENABLE ROW LEVEL SECURITY`, `GRANT SELECT ON secret TO `+who)
	c := configure(t, address)
	want(t, run(t, c), "row_security", doctor.Pass)
	c.Databases[0].URL = config.URL(as(t, address, who))
	want(t, run(t, c), "row_security", doctor.Warn, "may hide rows of public.secret from "+who, `ALTER ROLE "`+who+`" BYPASSRLS;`)
}

func TestTablesOfARoleCanBeHadByMembership(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	who, owner := role(t, address, "REPLICATION"), role(t, address)
	pgtest.Exec(t, address, `CREATE TABLE orders (id int PRIMARY KEY)`, `ALTER TABLE orders OWNER TO `+owner)
	c := configure(t, as(t, address, who))
	want(t, run(t, c), "table_privileges", doctor.Fail, fmt.Sprintf(`GRANT %q TO %q; -- a member counts as the owner`, owner, who))
	pgtest.Exec(t, address, fmt.Sprintf(`GRANT %q TO %q`, owner, who))
	want(t, run(t, c), "table_privileges", doctor.Pass)
}

func TestManyTablesDoNotSpam(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address, `DO $$ BEGIN FOR i IN 1..300 LOOP
		EXECUTE format('CREATE TABLE k%s (id int)', i);
		IF i <= 20 THEN
			EXECUTE format('CREATE TABLE p%s (id int) PARTITION BY RANGE (id)', i);
			EXECUTE format('CREATE TABLE p%s_1 PARTITION OF p%s FOR VALUES FROM (0) TO (9)', i, i);
		END IF;
	END LOOP; END $$`)
	r := run(t, configure(t, address))
	lines := 0
	for _, f := range r.Findings {
		if strings.HasPrefix(f.ID, "table_") {
			lines += 1 + strings.Count(f.Remedy, "\n")
		}
	}
	if lines > 60 {
		t.Errorf("%d lines about 320 tables", lines)
	}
	want(t, r, "table_identity", doctor.Warn, "and 297 more")
	// Reasons that name a partition each are cut off, and their number is said.
	found := false
	for _, f := range r.Findings {
		found = found || f.ID == "table_identity" && strings.HasPrefix(f.Summary, "and 13 more")
	}
	if !found {
		t.Error("what was cut off is not said")
	}
}
