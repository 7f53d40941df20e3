package doctor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/doctor"
	"lockstep/internal/pgdb/pgtest"
)

// fixable returns the targets' checks of which something can be done.
func fixable(r doctor.Report) string {
	var out []string
	for _, f := range r.Findings {
		if f.Fixable {
			out = append(out, f.ID)
		}
	}
	return strings.Join(out, " ")
}

func TestIdentitiesOfTheRolesOwnTablesAreFixed(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	me := role(t, address, "REPLICATION")
	pgtest.Exec(t, address,
		`CREATE TABLE plain (id int)`, `CREATE TABLE nothing (id int PRIMARY KEY)`, `ALTER TABLE nothing REPLICA IDENTITY NOTHING`,
		"CREATE TABLE \"x\nALTER TABLE plain REPLICA IDENTITY FULL; DROP TABLE plain; --\" (id int)",
		`CREATE TABLE parted (id int) PARTITION BY RANGE (id)`, `CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM (0) TO (9)`,
		`CREATE TABLE theirs (id int)`,
	)
	for _, name := range []string{"plain", "nothing", "\"x\nALTER TABLE plain REPLICA IDENTITY FULL; DROP TABLE plain; --\"", "parted"} {
		pgtest.Exec(t, address, "ALTER TABLE "+name+" OWNER TO "+me)
	}
	c := configure(t, as(t, address, me))
	options := doctor.Options{Config: c}.Quick()
	r := doctor.Run(t.Context(), options)
	if got := fixable(r); !strings.Contains(got, "table_identity") {
		t.Fatalf("fixable: %q", got)
	}
	done, err := doctor.Fix(t.Context(), options, "table_identity", "database app")
	if err != nil {
		t.Fatal(err)
	}
	want := []doctor.Done{
		{What: `ALTER TABLE "public"."nothing" REPLICA IDENTITY DEFAULT;`},
		{What: `ALTER TABLE "public"."plain" REPLICA IDENTITY FULL;`},
		{What: "ALTER TABLE \"public\".\"x\nALTER TABLE plain REPLICA IDENTITY FULL; DROP TABLE plain; --\" REPLICA IDENTITY FULL;"},
	}
	if diff := cmp.Diff(want, done); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	got := pgtest.Query(t, address, `SELECT relname || ' ' || relreplident::text FROM pg_class WHERE relname IN ('plain', 'nothing', 'parted', 'theirs') ORDER BY relname`)
	if diff := cmp.Diff([][]string{{"nothing d"}, {"parted d"}, {"plain f"}, {"theirs d"}}, got); diff != "" {
		t.Errorf("the identities (-want +got):\n%s", diff)
	}
	// What is left is nobody's here to fix.
	if _, err := doctor.Fix(t.Context(), options, "table_identity", "database app"); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("again: %v", err)
	}
}

// An ALTER TABLE that waits holds everybody else up behind it: it gives up soon, and
// the other tables are done all the same.
func TestALockedTableIsLeftAlone(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address, `CREATE TABLE a (id int)`, `CREATE TABLE b (id int)`)
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE a IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	asked := 0
	options := doctor.Options{Config: configure(t, address), Publish: func(context.Context, string) error { asked++; return nil }}.Quick()
	done, err := doctor.Fix(t.Context(), options, "table_identity", "database app")
	if err != nil || len(done) != 3 || !strings.Contains(done[0].Error, "lock timeout") || done[1].Error != "" || asked != 1 {
		t.Errorf("done %+v, asked for publications %d times, %v", done, asked, err)
	}
}

func TestModesOfSecretFilesAreFixed(t *testing.T) {
	t.Parallel()
	c := configure(t, "postgres://nobody@127.0.0.1:1/none")
	path := filepath.Join(c.DataDir, "key")
	if err := os.WriteFile(path, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	options := doctor.Options{Config: c}.Quick()
	target := ""
	for _, f := range doctor.Run(t.Context(), options).Findings {
		if f.ID == "data_files" && f.Fixable {
			target = f.Target
		}
	}
	done, err := doctor.Fix(t.Context(), options, "data_files", target)
	if diff := cmp.Diff([]doctor.Done{{What: "chmod 600 " + path}}, done); diff != "" || err != nil {
		t.Errorf("%v; done (-want +got):\n%s", err, diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	for name, id := range map[string]string{"nobody's check": "nonsense", "a check that nobody can fix": "data_space"} {
		want := lockstep.ErrConflict
		if id == "nonsense" {
			want = lockstep.ErrNotFound
		}
		if _, err := doctor.Fix(t.Context(), options, id, target); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := doctor.Fix(t.Context(), options, "table_identity", "database app"); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("a database that is away: %v", err)
	}
}
