package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	pool := openPool(t, pgtest.Database(t))
	for _, c := range []Config{{Publication: "p"}, {Pool: pool}, {Pool: pool, Publication: strings.Repeat("x", 56)}} {
		if _, err := New(c); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("publication %q: got %v, want ErrInvalid", c.Publication, err)
		}
	}
}

func TestPublicationsAreMadeWithTheirSettings(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	r := newReconciler(t, db)
	prepare(t, r)
	const query = `SELECT pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication ORDER BY 1`
	want := "[[lockstep_app f t t t t t] [lockstep_app_inserts f t f f t t]]"
	if got := fmt.Sprint(pgtest.Query(t, db, query)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	changed, _, err := r.Ensure(t.Context())
	if changed != 0 || err != nil {
		t.Errorf("a second round: %d changes, %v; want none", changed, err)
	}
	for _, p := range r.Publications() {
		if !p.Exists || !p.Managed || p.Reason != "" || p.Danger != nil {
			t.Errorf("publication: %+v", p)
		}
	}
}

func TestWrongSettingsAreCorrected(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)",
		"CREATE TABLE nokey (id int)",
		"CREATE PUBLICATION lockstep_app FOR TABLE a, nokey WITH (publish = 'insert')",
		"CREATE PUBLICATION lockstep_app_inserts WITH (publish = 'update')")
	prepare(t, newReconciler(t, db))
	const query = `SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication ORDER BY 1`
	want := "[[lockstep_app t t t t t] [lockstep_app_inserts t f f t t]]"
	if got := fmt.Sprint(pgtest.Query(t, db, query)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	wantMembers(t, db, testPublication, "public.a")
	wantMembers(t, db, testPublication+InsertsSuffix, "public.nokey")
	pgtest.Exec(t, db, "INSERT INTO nokey VALUES (1)", "UPDATE nokey SET id = 2")
}

func TestTableMovesWithItsIdentity(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE other (id int PRIMARY KEY)", "INSERT INTO a VALUES (1, 'x')")
	r := newReconciler(t, db)
	prepare(t, r)
	pgtest.Exec(t, db, "ALTER TABLE a DROP CONSTRAINT a_pkey")
	if err := tryExec(t, db, "UPDATE a SET v = 'y'"); err == nil {
		t.Fatal("the update went through: the test shows nothing")
	}
	ensure(t, r)
	pgtest.Exec(t, db, "UPDATE a SET v = 'y'", "DELETE FROM a")
	wantMembers(t, db, testPublication, "public.other")
	wantMembers(t, db, testPublication+InsertsSuffix, "public.a")

	pgtest.Exec(t, db, "ALTER TABLE a ADD PRIMARY KEY (id)")
	s := stateOf(t, ensure(t, r), "public.a")
	if s.Class != Full || s.Published != Full || s.Joined != "" {
		t.Errorf("moved back: got %+v", s)
	}
	wantMembers(t, db, testPublication, "public.a", "public.other")
	wantMembers(t, db, testPublication+InsertsSuffix)
	pgtest.Exec(t, db, "INSERT INTO a VALUES (1, 'x')", "UPDATE a SET v = 'y'")
}

func TestPartitionThatLosesItsIdentityMovesTheTable(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)", "CREATE TABLE a1 PARTITION OF a DEFAULT", "INSERT INTO a VALUES (1)")
	r := newReconciler(t, db)
	prepare(t, r)
	pgtest.Exec(t, db, "ALTER TABLE a1 REPLICA IDENTITY NOTHING")
	ensure(t, r)
	pgtest.Exec(t, db, "UPDATE a SET v = 'y'", "DELETE FROM a1")
	wantMembers(t, db, testPublication+InsertsSuffix, "public.a")
}

func TestSomebodyElsesTableInThePublicationIsKeptFromHarm(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE SCHEMA other", "CREATE TABLE other.nokey (id int)", "CREATE TABLE other.keyed (id int PRIMARY KEY)", "CREATE TABLE a (id int PRIMARY KEY)")
	r := newReconciler(t, db, withPatterns(t, "public.*"))
	prepare(t, r)
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app ADD TABLE other.nokey, other.keyed", "INSERT INTO other.nokey VALUES (1)")
	states := ensure(t, r)
	if got := namesOf(states); !slices.Equal(got, []string{"public.a"}) {
		t.Errorf("states: got %v, want what the patterns match", got)
	}
	pgtest.Exec(t, db, "UPDATE other.nokey SET id = 2")
	wantMembers(t, db, testPublication, "other.keyed", "public.a")
	wantMembers(t, db, testPublication+InsertsSuffix, "other.nokey")
}

func TestPublicationForAllTablesIsReportedAndLeftAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"FOR ALL TABLES", "FOR TABLES IN SCHEMA public"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			if strings.Contains(kind, "SCHEMA") && serverVersion(t, db) < 150000 {
				t.Skip("Postgres has publications of schemas from version 15 on")
			}
			pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE nokey (id int)", "CREATE SCHEMA x", "CREATE TABLE x.b (id int PRIMARY KEY)",
				"CREATE PUBLICATION lockstep_app "+kind+" WITH (publish = 'insert, update')")
			r := newReconciler(t, db)
			states := prepare(t, r)
			p := r.Publications()[0]
			if p.Managed || !slices.Equal(p.Danger, []string{"public.nokey"}) {
				t.Errorf("got %+v, want public.nokey in danger", p)
			}
			contains(t, "reason", p.Reason, kind)
			contains(t, "remedy", p.Remedy, "PUBLICATION")
			if got := pgtest.Query(t, db, "SELECT pubdelete, pubviaroot FROM pg_publication WHERE pubname = 'lockstep_app'"); fmt.Sprint(got) != "[[f f]]" {
				t.Errorf("the publication was altered: %v", got)
			}
			wantMembers(t, db, testPublication)
			contains(t, "nokey", stateOf(t, states, "public.nokey").Reason, "no primary key")
			if kind != "FOR ALL TABLES" {
				b := stateOf(t, states, "x.b")
				contains(t, "x.b", b.Reason, "does not list it")
				contains(t, "x.b", b.Remedy, `ALTER PUBLICATION "lockstep_app" ADD TABLE ONLY "x"."b"`)
			}
		})
	}
}

func TestNamesAreData(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	names := [][2]string{
		{"public", "Mixed Case"}, {"public", "mixed case"}, {"public", `qu"ote`}, {"public", "do.t"}, {"we.ird", "Ta.ble"},
		{"public", "日本語"}, {"public", "ünïcödé"}, {"public", strings.Repeat("x", 63)}, {"public", "select"}, {"other", "select"},
		{"public", "semi;colon--"}, {"public", "back\\slash"}, {"public", "sp'ace"}, {"public", "-minus"}, {"public", "a*"}, {"public", "$1"},
	}
	pgtest.Exec(t, db, `CREATE SCHEMA "we.ird"`, "CREATE SCHEMA other")
	var want []string
	for i, n := range names {
		column := pgdb.QuoteIdent(n[1])
		pgtest.Exec(t, db, fmt.Sprintf("CREATE TABLE %s (%s int PRIMARY KEY, v int)", pgdb.QuoteIdent(n[0], n[1]), column),
			fmt.Sprintf("INSERT INTO %s VALUES (%d)", pgdb.QuoteIdent(n[0], n[1]), i))
		want = append(want, n[0]+"."+n[1])
	}
	r := newReconciler(t, db)
	ensure(t, r) // joins them with their rows: every statement meets every name
	wantMembers(t, db, testPublication, want...)
	for _, s := range r.States() {
		if s.Joined != RowsSent || s.Reason != "" || s.KeyColumns[0] != s.Name {
			t.Errorf("%s: got %+v", s, s)
		}
		table := pgdb.QuoteIdent(s.Schema, s.Name)
		pgtest.Exec(t, db, "UPDATE "+table+" SET v = 1", "ALTER TABLE "+table+" REPLICA IDENTITY NOTHING")
	}
	ensure(t, r)
	for _, s := range r.States() {
		pgtest.Exec(t, db, "UPDATE "+pgdb.QuoteIdent(s.Schema, s.Name)+" SET v = 1", strings.Split(s.Remedy, " --")[0])
	}
	ensure(t, r)
	wantMembers(t, db, testPublication, want...)
}

func TestPartitionedTableStandsForItsPartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE SCHEMA parts", `
		CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
		CREATE TABLE parts.middle PARTITION OF root FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
		CREATE TABLE parts.leaf PARTITION OF parts.middle DEFAULT;
		CREATE TABLE parts.secret PARTITION OF root DEFAULT`)

	r := newReconciler(t, db, withPatterns(t, "parts.*"))
	if got := namesOf(prepare(t, r)); !slices.Equal(got, []string{"parts.middle", "parts.secret"}) {
		t.Errorf("without the root: got %v, want the highest that match", got)
	}
	r = newReconciler(t, db, withPatterns(t, "*.*", "-parts.secret"))
	states := prepare(t, r)
	if got := namesOf(states); !slices.Equal(got, []string{"public.root"}) {
		t.Errorf("with the root: got %v", got)
	}
	contains(t, "note", states[0].Note, "parts.secret are captured in spite of")
	wantMembers(t, db, testPublication, "public.root")
}

func TestTablesThatNoLongerMatchAreTakenOutOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
	prepare(t, newReconciler(t, db))
	r := newReconciler(t, db, withPatterns(t, "public.a"))
	ensure(t, r)
	wantMembers(t, db, testPublication, "public.a")
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app ADD TABLE b")
	ensure(t, r)
	wantMembers(t, db, testPublication, "public.a", "public.b")
}

func TestPublicationOfTheUserKeepsItsTables(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)", "CREATE PUBLICATION lockstep_app FOR TABLE b")
	ensure(t, newReconciler(t, db, withPatterns(t, "public.a")))
	wantMembers(t, db, testPublication, "public.a", "public.b")
}

// roleURL makes a role and returns the database's URL for sessions that take it on:
// the server's rules of login are not what is tested.
func roleURL(t *testing.T, db string, grants ...string) (role, as string) {
	t.Helper()
	role = "r_" + currentDatabaseName(t, db)
	pgtest.Exec(t, db, "CREATE ROLE "+role)
	t.Cleanup(func() { pgtest.Exec(t, db, "DROP OWNED BY "+role+" CASCADE", "DROP ROLE "+role) })
	for _, g := range grants {
		pgtest.Exec(t, db, strings.ReplaceAll(g, "ROLE", role))
	}
	return role, withOption(db, "role", role)
}

// withOption returns the URL for sessions with a setting.
func withOption(db, name, value string) string {
	separator := "?"
	if strings.Contains(db, "?") {
		separator = "&"
	}
	return db + separator + "options=-c" + name + "%3D" + value
}

func TestTableOfAnotherOwnerSpoilsNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE foreign_one (id int PRIMARY KEY)", "INSERT INTO foreign_one VALUES (1)")
	role, as := roleURL(t, db, "GRANT ALL ON SCHEMA public TO ROLE", "GRANT CREATE ON DATABASE "+currentDatabase(t, db)+" TO ROLE")
	pgtest.Exec(t, as, "CREATE TABLE mine (id int PRIMARY KEY, v int)", "CREATE TABLE lost (id int PRIMARY KEY, v int)", "INSERT INTO lost VALUES (1)")
	r := newReconciler(t, as)
	s := stateOf(t, ensure(t, r), "public.foreign_one")
	if s.Published != None {
		t.Errorf("got %+v", s)
	}
	contains(t, "reason", s.Reason, "only an owner")
	contains(t, "remedy", s.Remedy, `GRANT "`, `TO "`+role+`"`)
	wantMembers(t, db, testPublication, "public.mine", "public.lost")

	t.Run("given away and without a key", func(t *testing.T) {
		owner := pgtest.Query(t, db, "SELECT current_user")[0][0]
		pgtest.Exec(t, db, "ALTER TABLE lost OWNER TO "+pgdb.QuoteIdent(owner), "ALTER TABLE lost DROP CONSTRAINT lost_pkey")
		ensure(t, r)
		pgtest.Exec(t, db, "UPDATE lost SET v = 2")
		wantMembers(t, db, testPublication, "public.mine")
	})
	t.Run("granted", func(t *testing.T) {
		pgtest.Exec(t, db, "ALTER TABLE foreign_one OWNER TO "+role)
		if s := stateOf(t, ensure(t, r), "public.foreign_one"); s.Published != Full || s.Joined != RowsSent {
			t.Errorf("got %+v", s)
		}
	})
}

func currentDatabase(t *testing.T, db string) string {
	t.Helper()
	return pgdb.QuoteIdent(pgtest.Query(t, db, "SELECT current_database()")[0][0])
}

func TestMissingPrivilegesAreNamed(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role, as := roleURL(t, db)
	r := newReconciler(t, as)
	_, _, err := r.Prepare(t.Context())
	if err == nil {
		t.Fatal("a role without CREATE made a publication")
	}
	contains(t, "error", err.Error(), "GRANT CREATE ON DATABASE", role)
	if !lockstep.Retryable(err) {
		t.Error("after the GRANT it would work: want an error that is tried again")
	}

	pgtest.Exec(t, db, "CREATE PUBLICATION lockstep_app", "CREATE PUBLICATION lockstep_app_inserts")
	prepare(t, r)
	p := r.Publications()[0]
	contains(t, "reason", p.Reason, "belongs to")
	contains(t, "remedy", p.Remedy, `ALTER PUBLICATION "lockstep_app" OWNER TO`)
}

func TestLockedTableHoldsUpNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE locked (id int PRIMARY KEY)", "CREATE TABLE z (id int PRIMARY KEY)")
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE locked IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	r := newReconciler(t, db, func(c *Config) { c.LockTimeout = 100 * time.Millisecond })
	for _, step := range []func() []TableState{func() []TableState { return prepare(t, r) }, func() []TableState { return ensure(t, r) }} {
		s := stateOf(t, step(), "public.locked")
		contains(t, "reason", s.Reason, "holds a lock")
		contains(t, "remedy", s.Remedy, "pg_locks")
		wantMembers(t, db, testPublication, "public.a", "public.z")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 10*time.Second, "the table is taken in", func() bool {
		return stateOf(t, ensure(t, r), "public.locked").Published == Full
	})
}

func TestRunFollowsWhatHappens(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	r := newReconciler(t, db, func(c *Config) { c.Interval = 10 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	published := func(name string, class Class) func() bool {
		return func() bool {
			for _, s := range r.States() {
				if s.String() == name {
					return s.Published == class
				}
			}
			return class == None
		}
	}
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)")
	pgtest.Eventually(t, 20*time.Second, "a new table is published", published("public.a", Full))
	pgtest.Exec(t, db, "ALTER TABLE a DROP CONSTRAINT a_pkey")
	pgtest.Eventually(t, 20*time.Second, "it is moved", published("public.a", InsertOnly))
	pgtest.Exec(t, db, "DROP TABLE a")
	pgtest.Eventually(t, 20*time.Second, "it is gone", published("public.a", None))
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNothingIsSurveyedWhileNothingHappens(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil) // its own: transactions anywhere in a cluster count
	if err := c.CreateDatabase(t.Context(), "quiet"); err != nil {
		t.Fatal(err)
	}
	db := c.URL("quiet")
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)")
	r := newReconciler(t, db, func(c *Config) { c.LockTimeout, c.JoinLockTimeout = 20*time.Millisecond, 20*time.Millisecond })
	settled := ""
	turn := func() (surveyed bool) {
		before := r.States()
		settled, _ = r.turnOnce(t.Context(), settled)
		after := r.States()
		return len(before) == 0 || &before[0] != &after[0]
	}
	if turn(); settled == "" {
		t.Fatal("the first round left something to do")
	}
	turn() // sees the first round's own transactions
	if turn() {
		t.Error("surveyed though nothing happened")
	}

	pgtest.Exec(t, db, "CREATE TABLE b (id int PRIMARY KEY)")
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE b IN SHARE UPDATE EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if !turn() || stateOf(t, r.States(), "public.b").Published != None {
		t.Fatal("the lock was not met: the test shows nothing")
	}
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, "the table is taken in when its lock is free, though no transaction has written", func() bool {
		turn()
		return stateOf(t, r.States(), "public.b").Published == Full
	})
}

func TestManyTablesAreSurveyedAndPublishedQuickly(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	const tables = 5000
	for from := 1; from <= tables; from += 500 {
		pgtest.Exec(t, db, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE TABLE t%%s (id int PRIMARY KEY, v text)', i); END LOOP; END $$`, from, from+499))
	}
	pool := openPool(t, db)
	began := time.Now()
	states, err := Survey(t.Context(), pool, pattern.Patterns{})
	took := time.Since(began)
	if err != nil || len(states) != tables {
		t.Fatalf("got %d tables, %v", len(states), err)
	}
	t.Logf("survey of %d tables: %s", tables, took)
	if took > 10*time.Second {
		t.Errorf("survey took %s", took)
	}
	began = time.Now()
	if changed, _, err := newReconciler(t, db).Prepare(t.Context()); err != nil || changed != tables+2 {
		t.Errorf("got %d changes, %v", changed, err)
	}
	t.Logf("published in %s", time.Since(began))
}

func TestPublicationMadeAgainIsAnnouncedWhereTheServerWouldNotTell(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	if serverVersion(t, db) < skipsMissing {
		t.Skip("before Postgres 18 decoding fails when a publication is missing, which capture notices")
	}
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)")
	name := "slot_" + strings.Trim(currentDatabaseName(t, db), `"`)
	r := newReconciler(t, db, func(c *Config) { c.Slot = name })
	ensure(t, r)
	s := newSlot(t, db)
	pgtest.Exec(t, db, "DROP PUBLICATION lockstep_app", "INSERT INTO a VALUES (1)")
	ensure(t, r)
	found := false
	for _, m := range s.read(t) {
		found = found || m.kind == "gap" && strings.Contains(m.text, "publication_rebuilt")
	}
	if !found {
		t.Error("nothing in the log tells that changes are missing")
	}
}
