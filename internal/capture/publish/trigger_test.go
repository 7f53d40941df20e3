package publish

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/pgdb/pgtest"
)

func withTrigger(c *Config) { c.Trigger = DDLTrigger }

// changes are the row changes among what was sent.
func changes(list []sent) (out []string) {
	for _, s := range list {
		switch s.kind {
		case "insert", "update", "delete", "row":
			out = append(out, s.String())
		}
	}
	return out
}

func TestTableIsCapturedFromItsFirstRow(t *testing.T) {
	t.Parallel()
	db, _, s := captured(t, withTrigger)
	pgtest.Exec(t, db, `CREATE TABLE a (id int PRIMARY KEY, v int)`, `INSERT INTO a VALUES (1, 1)`, `UPDATE a SET v = 2`, `DELETE FROM a`,
		`BEGIN; CREATE TABLE b (id serial PRIMARY KEY, v int); INSERT INTO b (v) VALUES (1); UPDATE b SET v = 2; COMMIT`)
	want := []string{"insert public.a (1,1)", "update public.a (1,2)", "delete public.a (1,n)", "insert public.b (1,1)", "update public.b (1,2)"}
	if diff := cmp.Diff(want, changes(s.read(t))); diff != "" {
		t.Errorf("what came differs (-want +got):\n%s", diff)
	}
}

func TestStatementThatChangesAKeyMovesItsTable(t *testing.T) {
	t.Parallel()
	db, _, s := captured(t, withTrigger)
	pgtest.Exec(t, db, `CREATE TABLE a (id int, v int)`, `INSERT INTO a VALUES (1, 1)`, `UPDATE a SET v = 2`)
	wantMembers(t, db, "lockstep_app_inserts", "public.a")
	pgtest.Exec(t, db, `ALTER TABLE a ADD PRIMARY KEY (id)`, `UPDATE a SET v = 3`)
	wantMembers(t, db, "lockstep_app", "public.a")
	// Without the trigger this update would fail until the next round.
	pgtest.Exec(t, db, `ALTER TABLE a DROP CONSTRAINT a_pkey`, `UPDATE a SET v = 4`, `ALTER TABLE a REPLICA IDENTITY FULL`, `UPDATE a SET v = 5`)
	// The last one shows the row before: under FULL that comes first.
	want := []string{"insert public.a (1,1)", "update public.a (1,3)", "update public.a (1,4)"}
	if diff := cmp.Diff(want, changes(s.read(t))); diff != "" {
		t.Errorf("what came differs (-want +got):\n%s", diff)
	}
}

func TestTableMadeOfAQueryJoinsWithItsRows(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t, withTrigger)
	pgtest.Exec(t, db, `CREATE TABLE a AS SELECT 1 AS id, 'x' AS v`, `ALTER TABLE a ADD PRIMARY KEY (id)`)
	wantMembers(t, db, "lockstep_app")
	ensure(t, r)
	pgtest.Exec(t, db, `UPDATE a SET v = 'y'`)
	if diff := cmp.Diff([]string{"row (1,x)", "update public.a (1,y)"}, changes(s.read(t))); diff != "" {
		t.Errorf("what came differs (-want +got):\n%s", diff)
	}
}

func TestTriggerMatchesAsThePatternsDo(t *testing.T) {
	t.Parallel()
	db, r, _ := captured(t, withTrigger, withPatterns(t, `public.o*`, `public."O.d?d"`, `"we.ird".it_s?`, `-public.*secret`))
	pgtest.Exec(t, db, `CREATE SCHEMA "we.ird"`, `CREATE TABLE orders (id int PRIMARY KEY)`, `CREATE TABLE "O.d?d" (id int PRIMARY KEY)`, `CREATE TABLE "O.dad" (id int PRIMARY KEY)`,
		`CREATE TABLE "we.ird"."it_s'" (id int PRIMARY KEY)`, `CREATE TABLE "we.ird"."itxs'" (id int PRIMARY KEY)`, `CREATE TABLE o_secret (id int PRIMARY KEY)`, `CREATE TABLE bill (id int PRIMARY KEY)`)
	before := members(t, db, "lockstep_app")
	if len(before) != 3 {
		t.Errorf("the trigger took in %q, want three tables", before)
	}
	ensure(t, r)
	if diff := cmp.Diff(before, members(t, db, "lockstep_app")); diff != "" {
		t.Errorf("a round found others than the trigger (-trigger +round):\n%s", diff)
	}
}

func TestTriggerNeverMakesAStatementFail(t *testing.T) {
	t.Parallel()
	db, _, _ := captured(t, withTrigger)
	_, as := roleURL(t, db, "GRANT CREATE ON SCHEMA public TO ROLE")
	pgtest.Exec(t, as, `CREATE TABLE theirs (id int PRIMARY KEY)`)
	wantMembers(t, db, "lockstep_app", "public.theirs")
	pgtest.Exec(t, db, `DROP PUBLICATION lockstep_app`, `DROP PUBLICATION lockstep_app_inserts`)
	pgtest.Exec(t, as, `CREATE TABLE more (id int PRIMARY KEY)`, `ALTER TABLE theirs ADD COLUMN v int`)
}

func TestTriggerThatWasSwitchedOffStaysOff(t *testing.T) {
	t.Parallel()
	db, _, _ := captured(t, withTrigger)
	pgtest.Exec(t, db, `ALTER EVENT TRIGGER lockstep_app_ddl DISABLE`)
	r := newReconciler(t, db, withTrigger, withPatterns(t, "public.other"))
	ensure(t, r)
	pgtest.Exec(t, db, `CREATE TABLE other (id int PRIMARY KEY)`)
	wantMembers(t, db, "lockstep_app")
	ensure(t, r)
	wantMembers(t, db, "lockstep_app", "public.other")
}

func TestRoleThatMayMakeNoTriggerGoesOnWithoutOne(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	_, as := roleURL(t, db, "GRANT CREATE ON DATABASE "+currentDatabase(t, db)+" TO ROLE", "GRANT CREATE ON SCHEMA public TO ROLE")
	r := newReconciler(t, as, withTrigger)
	prepare(t, r)
	pgtest.Exec(t, as, `CREATE TABLE a (id int PRIMARY KEY)`)
	ensure(t, r)
	wantMembers(t, db, "lockstep_app", "public.a")
}
