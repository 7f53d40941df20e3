package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
)

// publishPassword tells the server the password for TCP, then keeps it in a file.
// A crash in between costs another round: without the file a new one is made.
func (c *Cluster) publishPassword(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to the private Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// ALTER ROLE takes no parameters; the password is of the base64 alphabet.
	if _, err := conn.Exec(ctx, "ALTER ROLE "+superuser+" PASSWORD '"+c.password+"'"); err != nil {
		return fmt.Errorf("set the password of the private Postgres: %w", err)
	}
	if err := writeSmall(c.lay.passwordFile(), c.password); err != nil {
		return fmt.Errorf("keep the password of the private Postgres: %w: %w", err, lockstep.ErrEnvironment)
	}
	return nil
}

func createDatabase(ctx context.Context, admin, name string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return fmt.Errorf("create database %q: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text)", name).Scan(&there); err != nil {
		return fmt.Errorf("create database %q: %w", name, err)
	}
	if there {
		return nil
	}
	// template0: a session in template1 would make CREATE DATABASE fail.
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE template0")
	// Somebody else was faster: 42P04 duplicate_database, 23505 on the catalog's index.
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && (refused.Code == "42P04" || refused.Code == "23505" && strings.HasPrefix(refused.ConstraintName, "pg_database")) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %q: %w", name, err)
	}
	return nil
}
