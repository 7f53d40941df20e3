package pgdb

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"lockstep"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the advisory lock under which one process at a time migrates a
// database: the first eight bytes of "lockstep", as no other program would pick it.
const migrationLock = 0x6c6f636b73746570

// LockSchema is a statement to begin a transaction with that may make the schema
// lockstep, or something in it that no migration does: of those that use it, one goes
// on at a time, as CREATE … IF NOT EXISTS and CREATE OR REPLACE fail beside
// each other. It waits for no migration but the moment in which that makes the schema.
const LockSchema = "SELECT pg_catalog.pg_advisory_xact_lock(7813573191660758385)" // next to migrationLock

// The SQLSTATEs of somebody who was a moment faster.
const (
	stateUnique          = "23505"
	stateDuplicateSchema = "42P06"
)

// MadeMeanwhile reports whether a statement that makes the schema lockstep failed
// because another session, which did not ask for [LockSchema], has just made it.
func MadeMeanwhile(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (refused.Code == stateUnique || refused.Code == stateDuplicateSchema)
}

// Migrate brings the schema lockstep of the database to this version, and makes it
// when it is missing. A second process waits for the first and then finds nothing
// to do. Each step is a transaction; after an error the finished ones stay.
//
// Errors: as [Open], and [lockstep.ErrInvalid] when the user may not create the
// schema or the schema was made by a newer Lockstep.
func Migrate(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("the database URL %s is not valid: %w", Redact(url), lockstep.ErrInvalid)
	}
	config.RuntimeParams["application_name"] = "lockstep migrate"
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return explain(url, err)
	}
	// The end of the session gives the lock back, also when ctx is over.
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1::bigint)", int64(migrationLock)); err != nil {
		return fmt.Errorf("wait for other migrations of %s: %w", Redact(url), err)
	}
	if err := ensureSchema(ctx, conn, config); err != nil {
		return err
	}
	return apply(ctx, config)
}

// ensureSchema makes the schema, where it is missing: asking first lets a user
// without the right to create schemas use one that was made for him.
func ensureSchema(ctx context.Context, conn *pgx.Conn, config *pgx.ConnConfig) error {
	const there = `
		SELECT EXISTS (
			SELECT FROM pg_namespace
			WHERE nspname = 'lockstep')`
	var exists bool
	if err := conn.QueryRow(ctx, there).Scan(&exists); err != nil {
		return fmt.Errorf("look for the schema lockstep: %w", err)
	}
	if exists {
		return nil
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, LockSchema); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS lockstep")
		return err
	})
	if MadeMeanwhile(err) {
		return nil
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" {
		return fmt.Errorf("create the schema lockstep: %s: run CREATE SCHEMA lockstep AUTHORIZATION %s as an administrator: %w",
			refused.Message, QuoteIdent(config.User), lockstep.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("create the schema lockstep: %w", err)
	}
	return nil
}

func apply(ctx context.Context, config *pgx.ConnConfig) error {
	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, steps,
		goose.WithTableName("lockstep.schema_version"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return migrationError(err, config)
	}
	if current > target {
		return fmt.Errorf("the schema lockstep is of version %d, and this Lockstep knows versions up to %d: run the newer Lockstep: %w",
			current, target, lockstep.ErrInvalid)
	}
	if _, err := provider.Up(ctx); err != nil {
		return migrationError(err, config)
	}
	return nil
}

func migrationError(err error, config *pgx.ConnConfig) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" {
		return fmt.Errorf("migrate the schema lockstep: %s: run ALTER SCHEMA lockstep OWNER TO %s as an administrator, and the same for the tables in it: %w",
			refused.Message, QuoteIdent(config.User), lockstep.ErrInvalid)
	}
	return fmt.Errorf("migrate the schema lockstep: %w", err)
}
