package pgdb_test

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

func TestMigrateTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	migrate(t, database)
	pgtest.Exec(t, database, "INSERT INTO lockstep.token (id, name, hash, scopes) VALUES ('a', 'b', 'c', '{admin}')")
	migrate(t, database)
	if got := pgtest.Query(t, database, "SELECT name FROM lockstep.token"); len(got) != 1 {
		t.Errorf("the token is gone: %v", got)
	}
	const foreign = `
		SELECT count(*)
		FROM pg_class
		WHERE relnamespace = 'public'::regnamespace`
	if got := pgtest.Query(t, database, foreign)[0][0]; got != "0" {
		t.Errorf("%s relations were made outside of the schema lockstep", got)
	}
}

func TestManyMigrateAtOnce(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	errs := make([]error, 5)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = pgdb.Migrate(t.Context(), database) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	pgtest.Query(t, database, "SELECT * FROM lockstep.status")
}

// Somebody else makes the schema at the same time, and is first: as every part of a
// first start may.
func TestMigrateMeetsASchemaThatIsBeingMade(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; CREATE SCHEMA lockstep").ReadAll(); err != nil {
		t.Fatal(err)
	}
	migrated := make(chan error, 1)
	go func() { migrated <- pgdb.Migrate(t.Context(), database) }()
	const waiting = `
		SELECT FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'lockstep migrate' AND wait_event_type = 'Lock'`
	pgtest.Eventually(t, 20*time.Second, "the migration waits for it", func() bool { return len(pgtest.Query(t, database, waiting)) > 0 })
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Error(err)
	}
}

// Those who ask first never collide, so that not even the server's log has an error.
func TestSchemaIsMadeByOneAtATime(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; "+pgdb.LockSchema+"; CREATE SCHEMA lockstep").ReadAll(); err != nil {
		t.Fatal(err)
	}
	migrated := make(chan error, 1)
	go func() { migrated <- pgdb.Migrate(t.Context(), database) }()
	const waiting = `
		SELECT FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'lockstep migrate' AND wait_event = 'advisory'`
	pgtest.Eventually(t, 20*time.Second, "the migration waits in line", func() bool { return len(pgtest.Query(t, database, waiting)) > 0 })
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Error(err)
	}
}

func TestEveryColumnOfTheSchemaIsDescribed(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	migrate(t, database)
	const bare = `
		SELECT c.relname
		FROM pg_class c
		WHERE c.relnamespace = 'lockstep'::regnamespace
		  AND c.relkind IN ('r', 'v')
		  AND c.relname <> 'schema_version'
		  AND obj_description(c.oid, 'pg_class') IS NULL`
	if got := pgtest.Query(t, database, bare); len(got) > 0 {
		t.Errorf("without a comment: %v", got)
	}
}

func TestTheViewsReadForPeople(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	migrate(t, database)
	pgtest.Exec(t, database, `
		INSERT INTO lockstep.database_status (database, connected, capture, confirmed_lsn, received_lsn, last_seq, lag_bytes, last_error, updated_at)
		VALUES ('app', true, 'wal', '0/10', '0/20', 100, 2048, '', now()),
		       ('cut', false, 'wal', NULL, NULL, 5, 0, 'connection refused', now()),
		       ('old', true, 'wal', NULL, NULL, 0, 0, '', '2026-11-21 10:00:00+00')`, `
		INSERT INTO lockstep.consumer_status (consumer_id, name, database, paused, floor_seq, last_seq, pending, in_flight, dead, oldest_unacked_at)
		VALUES (gen_random_uuid(), 'busy', 'app', false, 90, 95, 7, 3, 2, now() - interval '10 seconds'),
		       (gen_random_uuid(), 'done', 'app', false, 100, 100, 0, 0, 0, NULL),
		       (gen_random_uuid(), 'lost', 'gone', false, 10, 30, 20, 0, 0, NULL),
		       (gen_random_uuid(), 'held', 'app', true, 100, 100, 0, 0, 0, NULL)`)
	status := pgtest.Query(t, database, "SELECT kind, name, state, detail FROM lockstep.status ORDER BY kind DESC, name")
	wantStatus := [][]string{
		{"database", "app", "capturing", "seq 100, 2048 bytes of WAL behind"},
		{"database", "cut", "disconnected", "seq 5, 0 bytes of WAL behind, connection refused"},
		{"database", "old", "no report since 2026-11-21 10:00:00 UTC", "seq 0, 0 bytes of WAL behind"},
		{"consumer", "busy", "delivering", "7 pending, 3 in flight, 2 dead"},
		{"consumer", "done", "up to date", "0 pending, 0 in flight"},
		{"consumer", "held", "paused", "0 pending, 0 in flight"},
		{"consumer", "lost", "waiting for workers", "20 pending, 0 in flight"},
	}
	if diff := cmp.Diff(wantStatus, status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	lag := pgtest.Query(t, database, "SELECT consumer, changes, round(extract(epoch FROM age) / 10), capture_lag_bytes FROM lockstep.lag ORDER BY 1")
	wantLag := [][]string{{"busy", "10", "1", "2048"}, {"done", "0", "NULL", "2048"}, {"held", "0", "NULL", "2048"}, {"lost", "20", "NULL", "NULL"}}
	if diff := cmp.Diff(wantLag, lag); diff != "" {
		t.Errorf("lag (-want +got):\n%s", diff)
	}
}

func TestMigrateWithoutTheRightSaysWhatToRun(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	user := "user_" + pgtest.Query(t, database, "SELECT current_database()")[0][0]
	pgtest.Exec(t, database, "CREATE ROLE "+user+" LOGIN")
	t.Cleanup(func() { pgtest.Exec(t, database, "DROP OWNED BY "+user, "DROP ROLE "+user) })
	theirs := as(t, database, user)

	err := pgdb.Migrate(t.Context(), theirs)
	remedy := "CREATE SCHEMA lockstep AUTHORIZATION " + pgdb.QuoteIdent(user)
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), remedy) {
		t.Fatalf("got %v, want ErrInvalid with %s", err, remedy)
	}
	pgtest.Exec(t, database, "CREATE SCHEMA lockstep")
	err = pgdb.Migrate(t.Context(), theirs)
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "ALTER SCHEMA lockstep OWNER TO") {
		t.Fatalf("got %v, want ErrInvalid with ALTER SCHEMA", err)
	}
	pgtest.Exec(t, database, "DROP SCHEMA lockstep", remedy)
	migrate(t, theirs) // the remedy is enough
}

func TestMigrateRefusesASchemaOfTheFuture(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	migrate(t, database)
	pgtest.Exec(t, database, "INSERT INTO lockstep.schema_version (version_id, is_applied) VALUES (99999, true)")
	if err := pgdb.Migrate(t.Context(), database); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "newer Lockstep") {
		t.Errorf("got %v, want ErrInvalid asking for the newer Lockstep", err)
	}
}

func migrate(t *testing.T, database string) {
	t.Helper()
	if err := pgdb.Migrate(t.Context(), database); err != nil {
		t.Fatal(err)
	}
}

// as returns the URL with another user.
func as(t *testing.T, database, user string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

// A database of the first version keeps what it has.
func TestMigrateFromTheFirstVersion(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	migrate(t, database)
	pgtest.Exec(t, database,
		"DROP TABLE lockstep.backfill_table, lockstep.backfill, lockstep.sync, lockstep.sync_state, lockstep.sync_column, lockstep.sync_log, lockstep.tombstone, lockstep.sync_parked, lockstep.database_definition", "DELETE FROM lockstep.schema_version WHERE version_id > 1",
		"INSERT INTO lockstep.consumer (id, name, kind, database, definition) VALUES (gen_random_uuid(), 'orders', 'http', 'app', '{}')")
	migrate(t, database)
	got := pgtest.Query(t, database, "SELECT name, (SELECT count(*) FROM lockstep.backfill), (SELECT count(*) FROM lockstep.backfill_table) FROM lockstep.consumer")
	if diff := cmp.Diff([][]string{{"orders", "0", "0"}}, got); diff != "" {
		t.Errorf("after the second version (-want +got):\n%s", diff)
	}
}
