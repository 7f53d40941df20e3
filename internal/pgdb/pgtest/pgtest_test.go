package pgtest_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

func TestDatabasesAreSeparateAndLogical(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			pgtest.Exec(t, url, "CREATE TABLE only_here (id int)", "INSERT INTO only_here VALUES (1), (NULL)")
			want := [][]string{{"1", "logical"}, {"NULL", "logical"}}
			got := pgtest.Query(t, url, "SELECT id, current_setting($1) FROM only_here ORDER BY id", "wal_level")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCleanupDropsTheDatabaseWithAnActiveSlot(t *testing.T) {
	t.Parallel()
	observer := pgtest.Database(t)
	var name string
	outer := t // its cleanup comes last: the walsender lives when the database is dropped
	t.Run("uses a slot", func(t *testing.T) {
		url := pgtest.Database(t)
		name = pgtest.Query(t, url, "SELECT current_database()")[0][0]
		pgtest.Exec(t, url, "CREATE PUBLICATION p FOR ALL TABLES")
		stream(outer, url)
		pgtest.Eventually(t, 10*time.Second, "the slot is active", func() bool {
			return pgtest.Query(t, url, "SELECT count(*) FROM pg_replication_slots WHERE active AND database = $1", name)[0][0] == "1"
		})
	})
	const left = `
		SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = $1)
		     + (SELECT count(*) FROM pg_database WHERE datname = $1)`
	if got := pgtest.Query(t, observer, left, name)[0][0]; got != "0" {
		t.Errorf("%s slots and databases are left, want none", got)
	}
}

// stream starts logical replication and leaves the connection open.
func stream(t *testing.T, url string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // it has been cut by then
	pg := conn.PgConn()
	slot := "slot_" + config.Database
	if _, err := pg.Exec(t.Context(), "CREATE_REPLICATION_SLOT "+slot+" LOGICAL pgoutput").ReadAll(); err != nil {
		t.Fatal(err)
	}
	// Not read to its end: the answer is a stream without one.
	pg.Exec(t.Context(), "START_REPLICATION SLOT "+slot+" LOGICAL 0/0 (proto_version '1', publication_names 'p')")
}

func TestAClusterOfOnesOwnTakesSettingsAndGoes(t *testing.T) {
	t.Parallel()
	var dir string
	t.Run("own", func(t *testing.T) {
		c := pgtest.Cluster(t, map[string]string{"wal_level": "replica"})
		dir = c.Dir()
		if got := pgtest.Query(t, c.URL("postgres"), "SHOW wal_level")[0][0]; got != "replica" {
			t.Errorf("wal_level is %s, want replica", got)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory %s is still there: %v", dir, err)
	}
}

func TestEventuallyReturnsWhenTheConditionHolds(t *testing.T) {
	t.Parallel()
	calls := 0
	pgtest.Eventually(t, time.Minute, "the third look", func() bool { calls++; return calls == 3 })
	if calls != 3 {
		t.Errorf("looked %d times, want 3", calls)
	}
}
