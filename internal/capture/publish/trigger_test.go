package publish

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"lockstep/internal/pgdb"
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

// At a first start the migration makes the schema at the same time.
func TestTriggerMeetsASchemaThatIsBeingMade(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, begin, event string }{
		{"by somebody who asks first", "BEGIN; " + pgdb.LockSchema + "; CREATE SCHEMA lockstep", "advisory"},
		{"by somebody else", "BEGIN; CREATE SCHEMA lockstep", "transactionid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			conn, err := pgx.Connect(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			if _, err := conn.PgConn().Exec(t.Context(), c.begin).ReadAll(); err != nil {
				t.Fatal(err)
			}
			r := newReconciler(t, db, withTrigger, func(c *Config) { c.LockTimeout = 20 * time.Second })
			prepared := make(chan error, 1)
			go func() { _, _, err := r.Prepare(t.Context()); prepared <- err }()
			pgtest.Eventually(t, 20*time.Second, "the trigger waits for it", func() bool {
				return len(pgtest.Query(t, db, "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = $1::text", c.event)) > 0
			})
			if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
				t.Fatal(err)
			}
			if err := <-prepared; err != nil {
				t.Error(err)
			}
			wantTrigger(t, db)
		})
	}
}

func TestManyMakeTheTriggerAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	prepare(t, newReconciler(t, db))
	said := new(lockedBuffer)
	var all errgroup.Group
	for range 4 {
		r := newReconciler(t, db, withTrigger, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(said, nil)) })
		all.Go(func() error { _, _, err := r.Prepare(t.Context()); return err })
		all.Go(func() error { return pgdb.Migrate(t.Context(), db) })
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	wantTrigger(t, db)
	if text := said.String(); text != "" {
		t.Errorf("the log says %s", text)
	}
}

func wantTrigger(t *testing.T, db string) {
	t.Helper()
	if got := pgtest.Query(t, db, "SELECT evtname FROM pg_event_trigger"); len(got) != 1 {
		t.Errorf("event triggers: %v, want one", got)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
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
