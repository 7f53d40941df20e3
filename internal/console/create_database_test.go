package console

import (
	"strings"
	"testing"
)

// Of an address nothing is shown that could be a piece of its password, however it is
// written.
func TestAPasswordIsInNoStep(t *testing.T) {
	t.Parallel()
	for address, shown := range map[string]string{
		"postgres://ann:hunter2@db:5432/shop?sslmode=require":      "postgres://ann:${DATABASE_PASSWORD}@db:5432/shop?sslmode=require",
		"postgres://ann@db/shop?password=hunter2&sslmode=disable":  "postgres://ann@db/shop?sslmode=disable",
		"postgres://ann:%68unter2@db/a%20shop":                     "postgres://ann:${DATABASE_PASSWORD}@db/a%20shop",
		"postgresql:///shop?host=/run/postgresql":                  "postgresql:///shop?host=%2Frun%2Fpostgresql",
		"postgres://ann:hunter2%zz@db/shop":                        "",
		"postgres://ann:1/hunter2@db/shop":                         "",
		"postgres://ann:1?host=hunter2@db/shop":                    "",
		"postgres://ann:1#hunter2@db/shop":                         "",
		"postgres://ann:1@hunter2/x@db/shop":                       "",
		"host=db user=ann password=hunter2":                        "",
		"hunter2":                                                  "",
		"postgres://ann:hunter2@one:5432,two:5432/shop":            "postgres://ann:${DATABASE_PASSWORD}@one:5432,two:5432/shop",
		"postgres://ann:hunter2@[::1]:5432/shop?options=hunter2":   "postgres://ann:${DATABASE_PASSWORD}@[::1]:5432/shop",
		"postgres://ann:hunter2@db:5432/shop?sslpassword=hunter22": "postgres://ann:${DATABASE_PASSWORD}@db:5432/shop",
	} {
		to := addressOf(address)
		lines := configurationOf(map[string]string{"name": "shop"}, to)
		for _, p := range preparations(to) {
			lines += p.SQL
		}
		if to.shown != shown || strings.Contains(lines, "unter2") {
			t.Errorf("of %s is shown %q, want %q, in\n%s", address, to.shown, shown, lines)
		}
	}
}

// What the API says of a fault is parted into words and what can be copied.
func TestARemedyIsCopied(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]told{
		"check wal_level: it is replica; not logical; ALTER SYSTEM SET wal_level = logical;\n-- then restart": {"it is replica; not logical", "ALTER SYSTEM SET wal_level = logical;\n-- then restart"},
		"check connect: refused; # try:\npsql":                   {"refused", "# try:\npsql"},
		`"x" cannot be a name; use letters`:                      {`"x" cannot be a name; use letters`, ""},
		"slot s: kept; SELECT pg_drop_replication_slot('a; b');": {"slot s: kept", "SELECT pg_drop_replication_slot('a; b');"},
	} {
		if got := tell(message); got != want {
			t.Errorf("of %q: %+v, want %+v", message, got, want)
		}
	}
}
