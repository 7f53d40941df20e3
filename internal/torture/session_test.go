package torture_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// session is a connection that stays open over several statements.
type session struct {
	t    testing.TB
	conn *pgx.Conn
}

func newSession(t testing.TB, url string) session {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return session{t, conn}
}

func (s session) exec(statements ...string) {
	s.t.Helper()
	for _, sql := range statements {
		run(s.t, s.conn, sql)
	}
}
