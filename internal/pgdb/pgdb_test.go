package pgdb_test

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lockstep"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestOpenNamesTheApplication(t *testing.T) {
	t.Parallel()
	pool, err := pgdb.Open(t.Context(), pgtest.Database(t), "lockstep test")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var name string
	if err := pool.QueryRow(t.Context(), "SHOW application_name").Scan(&name); err != nil || name != "lockstep test" {
		t.Errorf("the application is %q, %v", name, err)
	}
	if got := pool.Config().MaxConns; got != 8 {
		t.Errorf("the pool holds up to %d connections, want 8", got)
	}
}

func TestOpenErrorsSayWhatToDoAndHoldNoPassword(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	missing := strings.Replace(database, "/t", "/missing_", 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	local, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	byTCP := "127.0.0.1:" + local.Query().Get("port")
	for _, tc := range []struct {
		name, url string
		kind      error
		says      string
	}{
		{"malformed", "postgres://user:hunter2@host:notaport/db", lockstep.ErrInvalid, "is not valid"},
		{"bad escape", "postgres://user:hunter2%zz@host/db", lockstep.ErrInvalid, "is not valid"},
		{"no such database", missing, lockstep.ErrNotFound, "CREATE DATABASE"},
		{"nobody listens", "postgres://user:hunter2@" + closed + "/db", lockstep.ErrUnavailable, "connection refused"},
		{"no such host", "postgres://user:hunter2@host.invalid/db", lockstep.ErrUnavailable, "host.invalid"},
		{"wrong password", "postgres://postgres:hunter2@" + byTCP + "/db?sslmode=disable", lockstep.ErrInvalid, "check user and password"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			pool, err := pgdb.Open(t.Context(), tc.url, "lockstep test")
			if err == nil {
				pool.Close()
				t.Fatal("it opened")
			}
			if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want a %v saying %q", err, tc.kind, tc.says)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is in %v", err)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"postgres://u:secret@h:5432/db":                     "postgres://u:xxxxx@h:5432/db",
		"postgresql://u:s%40cret@h/db?sslmode=require":      "postgresql://u:xxxxx@h/db?sslmode=require",
		"postgres://u@h/db?password=secret&sslmode=disable": "postgres://u@h/db?password=xxxxx&sslmode=disable",
		"postgres://u:se@cret%zz@h/db":                      "postgres://xxxxx@h/db",
		"postgres://h/db":                                   "postgres://h/db",
		"host=h user=u password=secret dbname=db":           "host=h user=u password=xxxxx dbname=db",
		`host=h password='se cr\'et' dbname=db`:             "host=h password=xxxxx dbname=db",
		"postgres://u@/db?host=%2Ftmp%2Fx&port=5433":        "postgres://u@/db?host=%2Ftmp%2Fx&port=5433",
	} {
		if got := pgdb.Redact(in); got != want {
			t.Errorf("Redact(%s)\n got %s\nwant %s", in, got, want)
		}
	}
}

// TestQuotedLiteralsComeBackAsTheyWere asks Postgres itself, under both settings of
// standard_conforming_strings.
func TestQuotedLiteralsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	pool, err := pgdb.Open(t.Context(), pgtest.Database(t), "lockstep test")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, conforming := range []string{"on", "off"} {
		if _, err := conn.Exec(t.Context(), "SET standard_conforming_strings = "+conforming); err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(r *rapid.T) {
			want := rapid.StringOf(rapid.RuneFrom([]rune(`'\"a;-$ä`+"\n"))).Draw(r, "text")
			name := "c" + rapid.StringOfN(rapid.RuneFrom([]rune(`'\"a.;ä`)), 0, 10, -1).Draw(r, "name")
			result, err := conn.Conn().PgConn().Exec(t.Context(), "SELECT"+pgdb.QuoteLiteral(want)+" AS "+pgdb.QuoteIdent(name)).ReadAll()
			if err != nil {
				r.Fatal(err)
			}
			if got := string(result[0].Rows[0][0]); got != want {
				r.Errorf("literal: got %q, want %q", got, want)
			}
			if got := result[0].FieldDescriptions[0].Name; got != name {
				r.Errorf("identifier: got %q, want %q", got, name)
			}
		})
	}
}
