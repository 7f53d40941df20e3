package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrated(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	url := pgtest.Database(t)
	if err := pgdb.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgdb.Open(t.Context(), url, "auth_test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return url, pool
}

func opened(t *testing.T, pool *pgxpool.Pool) *auth.Tokens {
	t.Helper()
	tokens, err := auth.Open(auth.Config{Store: auth.Postgres{Pool: pool}, Refresh: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tokens
}

func create(t *testing.T, tokens *auth.Tokens, name string, expires time.Time) (string, auth.Token) {
	t.Helper()
	plain, token, err := tokens.Create(t.Context(), name, auth.Scopes{"read"}, expires)
	if err != nil {
		t.Fatal(err)
	}
	return plain, token
}

func run(t *testing.T, tokens *auth.Tokens) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tokens.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestATokenWorksFromItsCreationToItsRevocationOnEveryNode(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	here, there := opened(t, pool), opened(t, pool)
	run(t, there)
	plain, token := create(t, here, "ci", time.Time{})

	who, err := here.Authenticate(plain)
	if err != nil || who.Token != token.ID || who.Name != "ci" || len(who.Scopes) != 1 {
		t.Fatalf("Authenticate = %+v, %v", who, err)
	}
	pgtest.Eventually(t, 5*time.Second, "the other node knows the token", func() bool {
		_, err := there.Authenticate(plain)
		return err == nil
	})
	if _, err := here.Revoke(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Authenticate(plain); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("after the revocation: %v; want ErrUnauthenticated", err)
	}
	pgtest.Eventually(t, 5*time.Second, "the other node refuses the token", func() bool {
		_, err := there.Authenticate(plain)
		return errors.Is(err, auth.ErrUnauthenticated)
	})
}

func TestATokenThatRanOutIsRefused(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	tokens := opened(t, pool)
	plain, _ := create(t, tokens, "short", time.Now().Add(50*time.Millisecond))
	pgtest.Eventually(t, 5*time.Second, "the token runs out", func() bool {
		_, err := tokens.Authenticate(plain)
		return errors.Is(err, auth.ErrUnauthenticated)
	})
	if _, _, err := tokens.Create(t.Context(), "past", auth.Scopes{"read"}, time.Now().Add(-time.Second)); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("a token that has run out already: %v; want ErrInvalid", err)
	}
}

func TestTheTableHoldsNoToken(t *testing.T) {
	t.Parallel()
	url, pool := migrated(t)
	plain, _ := create(t, opened(t, pool), "ci", time.Time{})
	secret := plain[strings.LastIndex(plain, "_")+1:]
	for _, row := range pgtest.Query(t, url, "SELECT t::text, encode(hash, 'escape') FROM lockstep.token t") {
		if strings.Contains(strings.Join(row, " "), secret) {
			t.Error("the secret is in the table")
		}
	}
	if n := len(pgtest.Query(t, url, "SELECT 1 FROM lockstep.token")); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestStoredTokensWorkWhilePostgresIsDown(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	tokens := opened(t, pool)
	plain, _ := create(t, tokens, "ci", time.Time{})
	pool.Close()
	if err := tokens.Load(t.Context()); err == nil {
		t.Fatal("Load succeeded without a database")
	}
	if _, err := tokens.Authenticate(plain); err != nil {
		t.Errorf("a known token: %v", err)
	}
}

func TestANodeThatCouldNotReadItsTokensIsNotOpen(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	pool.Close()
	tokens, err := auth.Open(auth.Config{Store: auth.Postgres{Pool: pool}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.Load(t.Context()); err == nil {
		t.Fatal("Load succeeded without a database")
	}
	if err := tokens.Ready(); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Ready = %v; want ErrUnavailable", err)
	}
	if _, err := tokens.Authenticate(""); !errors.Is(err, lockstep.ErrUnavailable) || tokens.Open() {
		t.Errorf("Authenticate = %v, Open = %v; want ErrUnavailable, false", err, tokens.Open())
	}
	// It may turn out that there are none: then it would be open to everybody.
	if err := tokens.MayListen("0.0.0.0:7300"); err == nil {
		t.Error("it may listen beyond loopback without knowing of a token")
	}
}

func TestRevokingTheLastTokenDoesNotOpenTheNode(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	tokens := opened(t, pool)
	if !tokens.Open() {
		t.Fatal("a node without tokens is closed")
	}
	_, token := create(t, tokens, "ci", time.Time{})
	if err := tokens.MayListen("0.0.0.0:7300"); err != nil {
		t.Errorf("with a stored token: %v", err)
	}
	if _, err := tokens.Revoke(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	if tokens.Open() || opened(t, pool).Open() {
		t.Error("the node opened again")
	}
}

func TestTheLastUseIsStored(t *testing.T) {
	t.Parallel()
	url, pool := migrated(t)
	tokens := opened(t, pool)
	run(t, tokens)
	plain, _ := create(t, tokens, "ci", time.Time{})
	if _, err := tokens.Authenticate(plain); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 5*time.Second, "the use is stored", func() bool {
		return len(pgtest.Query(t, url, "SELECT 1 FROM lockstep.token WHERE last_used_at > now() - interval '1 minute'")) == 1
	})
}

func TestRevokeFindsTokensByIDAndByUniqueName(t *testing.T) {
	t.Parallel()
	_, pool := migrated(t)
	tokens, err := auth.Open(auth.Config{
		Store:  auth.Postgres{Pool: pool},
		Static: []auth.Static{{Name: "file", Token: "x", Scopes: []string{"admin"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	create(t, tokens, "twin", time.Time{})
	_, second := create(t, tokens, "twin", time.Time{})
	for name, want := range map[string]error{"nobody": lockstep.ErrNotFound, "twin": lockstep.ErrConflict, "file": lockstep.ErrConflict} {
		if _, err := tokens.Revoke(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("Revoke(%s) = %v; want %v", name, err, want)
		}
	}
	if _, err := tokens.Revoke(t.Context(), second.ID); err != nil {
		t.Errorf("by id: %v", err)
	}
	if _, err := tokens.Revoke(t.Context(), "twin"); err != nil {
		t.Errorf("by a name that one live token has: %v", err)
	}
}
