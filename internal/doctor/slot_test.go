package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/config"
	"lockstep/internal/doctor"
	"lockstep/internal/pgdb/pgtest"
)

// makeSlot makes the slot that the configuration names.
func makeSlot(t testing.TB, address string, c *config.Config) {
	t.Helper()
	pgtest.Query(t, address, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, c.Databases[0].Slot)
}

func makePublications(t testing.TB, address string, c *config.Config) {
	t.Helper()
	name := c.Databases[0].Publication
	pgtest.Exec(t, address,
		"CREATE PUBLICATION "+name+" WITH (publish_via_partition_root = true)",
		"CREATE PUBLICATION "+name+"_inserts WITH (publish = 'insert, truncate', publish_via_partition_root = true)")
}

func startReplication(c *config.Config) string {
	d := c.Databases[0]
	return fmt.Sprintf(`START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')`, d.Slot, d.Publication)
}

func isRead(t testing.TB, address string, c *config.Config) {
	t.Helper()
	pgtest.Eventually(t, 20*time.Second, "somebody to read the slot", func() bool {
		return pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1 AND r.state = 'streaming'`, c.Databases[0].Slot)[0][0] == "1"
	})
}

func TestSlotsThatCannotBeOurs(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	t.Run("another plugin", func(t *testing.T) {
		t.Parallel()
		c := configure(t, address)
		pgtest.Query(t, address, `SELECT pg_create_logical_replication_slot($1, 'test_decoding')`, c.Databases[0].Slot)
		want(t, run(t, c), "slot", doctor.Fail, "has the plugin test_decoding, not pgoutput", "SELECT pg_drop_replication_slot('"+c.Databases[0].Slot+"');")
	})
	t.Run("another database", func(t *testing.T) {
		t.Parallel()
		c := configure(t, address)
		makeSlot(t, pgtest.Database(t), c)
		want(t, run(t, c), "slot", doctor.Fail, "belongs to the database t", "databases[].slot")
	})
	t.Run("a physical one", func(t *testing.T) {
		t.Parallel()
		c := configure(t, address)
		name := c.Databases[0].Slot
		pgtest.Query(t, address, `SELECT pg_create_physical_replication_slot($1)`, name)
		t.Cleanup(func() { pgtest.Query(t, address, `SELECT pg_drop_replication_slot($1)`, name) })
		want(t, run(t, c), "slot", doctor.Fail, "is physical, not logical")
	})
}

func TestASlotThatIsGone(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	c := configure(t, address)
	makePublications(t, address, c)
	want(t, run(t, c), "slot", doctor.Pass, "will be made")
	// As Lockstep marks what it makes.
	pgtest.Exec(t, address, "COMMENT ON PUBLICATION "+c.Databases[0].Publication+" IS 'made and kept by lockstep'")
	want(t, run(t, c), "slot", doctor.Warn, "if it ran here before, the slot was dropped", "lockstep backfill --gap --database app")
}

func TestWhoReadsTheSlot(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	t.Run("another program", func(t *testing.T) {
		t.Parallel()
		c := configure(t, address)
		makePublications(t, address, c)
		makeSlot(t, address, c)
		want(t, run(t, c), "slot_reader", doctor.Pass, "nobody")
		replicate(t, address, "debezium", startReplication(c))
		isRead(t, address, c)
		want(t, run(t, c), "slot_reader", doctor.Fail, `application_name "debezium", role postgres`, "pg_terminate_backend(")

		who := role(t, address, "REPLICATION")
		c.Databases[0].URL = config.URL(as(t, address, who))
		want(t, run(t, c), "slot_reader", doctor.Warn, "may not see whose it is", `GRANT pg_read_all_stats TO "`+who+`";`)
	})
	t.Run("a Lockstep", func(t *testing.T) {
		t.Parallel()
		c := configure(t, address)
		makePublications(t, address, c)
		makeSlot(t, address, c)
		replicate(t, address, "lockstep 0123456789abcdef", startReplication(c))
		isRead(t, address, c)
		want(t, run(t, c), "slot_reader", doctor.Warn, "two installations share it")
		hold(t, c.DataDir)
		want(t, run(t, c), "slot_reader", doctor.Pass, "as it should be")
	})
	t.Run("nobody, although a node runs", func(t *testing.T) {
		t.Parallel()
		c := configure(t, address)
		makePublications(t, address, c)
		makeSlot(t, address, c)
		hold(t, c.DataDir)
		want(t, run(t, c), "slot_reader", doctor.Warn, "nobody reads the slot", "/readyz")
	})
}

// advance writes so much WAL that n segments of 16 MB are used.
func advance(t testing.TB, address string, n int) {
	t.Helper()
	pgtest.Exec(t, address, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP PERFORM pg_logical_emit_message(false, 'x', 'x'); PERFORM pg_switch_wal(); END LOOP; END $$`, n))
}

// set changes a setting and waits until new sessions have it.
func set(t testing.TB, address, name, value string) {
	t.Helper()
	pgtest.Exec(t, address, fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, value), `SELECT pg_reload_conf()`)
	pgtest.Eventually(t, 20*time.Second, name+" to be "+value, func() bool {
		return pgtest.Query(t, address, "SHOW "+name)[0][0] == value
	})
}

func TestSlotsAndTheirWAL(t *testing.T) {
	t.Parallel()
	// Without filling, a segment that is hardly used takes hardly any disk.
	cluster := pgtest.Cluster(t, map[string]string{"wal_init_zero": "off", "wal_recycle": "off", "min_wal_size": "32MB", "max_wal_size": "4GB"})
	address := cluster.URL("postgres")
	c := configure(t, address)
	makePublications(t, address, c)
	makeSlot(t, address, c)
	pgtest.Exec(t, address, `SELECT pg_create_physical_replication_slot('backup', true)`)
	advance(t, address, 66)
	r := run(t, c)
	want(t, r, "slot_wal", doctor.Warn, "keeps 1 GB of write-ahead log", "pg_drop_replication_slot")
	want(t, r, "other_slots", doctor.Warn, "backup (1 GB)", "SELECT pg_drop_replication_slot('backup');")

	// A standby that is connected, and a slot that would not follow a failover.
	replicate(t, address, "standby1", "START_REPLICATION PHYSICAL "+pgtest.Query(t, address, "SELECT pg_current_wal_lsn()")[0][0])
	pgtest.Eventually(t, 20*time.Second, "the standby to be connected", func() bool {
		return pgtest.Query(t, address, `SELECT count(*) FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')`)[0][0] == "1"
	})
	want(t, run(t, c), "slot_failover", doctor.Warn, "standbys are connected (1)")

	if pgtest.Query(t, address, `SELECT current_setting('server_version_num')::int >= 180000`)[0][0] == "t" {
		set(t, address, "idle_replication_slot_timeout", "1d")
		want(t, run(t, c), "idle_slots", doctor.Warn, "is 24h0m0s: the slot is lost when Lockstep is away for longer")
	}

	// Little is left before the slot is given up; then too little; then it is.
	set(t, address, "max_slot_wal_keep_size", "1400MB")
	want(t, run(t, c), "slot_wal", doctor.Warn, "is lost when", "more are written")
	set(t, address, "max_slot_wal_keep_size", "32MB")
	want(t, run(t, c), "slot_wal", doctor.Fail, "will be invalidated at one of the next checkpoints", "max_slot_wal_keep_size")
	pgtest.Exec(t, address, `CHECKPOINT`)
	want(t, run(t, c), "slot_wal", doctor.Fail, "is invalidated", "lockstep backfill --gap --database app")
}

func TestPublications(t *testing.T) {
	t.Parallel()
	t.Run("missing under a slot", func(t *testing.T) {
		t.Parallel()
		address := pgtest.Database(t)
		c := configure(t, address)
		makeSlot(t, address, c)
		want(t, run(t, c), "publication", doctor.Fail, "but its publication", "lockstep backfill --gap --database app")
	})
	t.Run("for all tables", func(t *testing.T) {
		t.Parallel()
		address := pgtest.Database(t)
		c := configure(t, address)
		pgtest.Exec(t, address, `CREATE TABLE keyless (id int)`, "CREATE PUBLICATION "+c.Databases[0].Publication+" FOR ALL TABLES")
		r := run(t, c)
		want(t, r, "publication", doctor.Warn, "is FOR ALL TABLES", "DROP PUBLICATION")
		want(t, r, "table_updates", doctor.Fail, "updates and deletes of public.keyless fail now", "publication "+c.Databases[0].Publication, `ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL;`)
	})
	t.Run("for a schema, of another role, with other settings", func(t *testing.T) {
		t.Parallel()
		address := pgtest.Database(t)
		c := configure(t, address)
		name := c.Databases[0].Publication
		who := role(t, address, "REPLICATION")
		pgtest.Exec(t, address, "CREATE PUBLICATION "+name+" WITH (publish = 'insert')", "CREATE PUBLICATION "+name+"_inserts")
		want(t, run(t, c), "publication", doctor.Warn, "has other settings", "Lockstep corrects it")
		c.Databases[0].URL = config.URL(as(t, address, who))
		want(t, run(t, c), "publication", doctor.Warn, "belongs to postgres", `OWNER TO "`+who+`";`)
		if pgtest.Query(t, address, `SELECT current_setting('server_version_num')::int >= 150000`)[0][0] == "t" {
			pgtest.Exec(t, address, "ALTER PUBLICATION "+name+" ADD TABLES IN SCHEMA public")
			want(t, run(t, c), "publication", doctor.Warn, "takes in whole schemas", "DROP TABLES IN SCHEMA")
		}
	})
}

func TestAPublicationIsComparedWithTheSlot(t *testing.T) {
	t.Parallel()
	// Other slots of a server hold the catalog_xmin of a new one back.
	address := pgtest.Cluster(t, nil).URL("postgres")
	first := configure(t, address)
	makePublications(t, address, first)
	makeSlot(t, address, first)
	// Its slot is older than the publications, and has sent nothing since.
	second := configure(t, address)
	makeSlot(t, address, second)
	makePublications(t, address, second)
	want(t, run(t, first), "publication_age", doctor.Pass, "older than everything")
	want(t, run(t, second), "publication_age", doctor.Warn, "cannot be known", "lockstep backfill --gap")
	replicate(t, address, "lockstep x", startReplication(second))
	isRead(t, address, second)
	pgtest.Eventually(t, 20*time.Second, "the slot to have sent everything", func() bool {
		for _, f := range doctor.Databases(t.Context(), doctor.Options{Config: second}.Quick()).Findings {
			if f.ID == "publication_age" && f.Status == doctor.Pass {
				return true
			}
		}
		return false
	})
}

func TestOpenGapsAreTold(t *testing.T) {
	t.Parallel()
	o := doctor.Options{Config: configure(t, pgtest.Database(t))}.Quick()
	o.Gaps = func(_ context.Context, database string) ([]string, error) {
		return []string{"slot_lost of " + database}, nil
	}
	want(t, doctor.Databases(t.Context(), o), "gaps", doctor.Fail, "changes may be missing: slot_lost of app", "lockstep backfill --gap --database app")
	o.Gaps = func(context.Context, string) ([]string, error) { return nil, errors.New("nobody there") }
	want(t, doctor.Databases(t.Context(), o), "gaps", doctor.Skip, "nobody there")
}

func TestTransactionsThatAreOpenForLong(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `BEGIN; CREATE TABLE t (id int)`); err != nil {
		t.Fatal(err)
	}
	c := configure(t, address)
	pid := conn.PgConn().PID()
	o := doctor.Options{Config: c}.Quick().Transactions(time.Millisecond)
	var r doctor.Report
	// Others of the shared server may be older, and only the oldest are named.
	pgtest.Eventually(t, 30*time.Second, "the transaction to be told", func() bool {
		r = doctor.Databases(t.Context(), o)
		for _, f := range r.Findings {
			if f.ID == "old_transactions" && f.Status == doctor.Warn {
				return true
			}
		}
		return false
	})
	want(t, r, "old_transactions", doctor.Warn, fmt.Sprintf("SELECT pg_terminate_backend(%d);", pid), "idle in transaction, has written")
}
