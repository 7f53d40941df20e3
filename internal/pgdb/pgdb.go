// Package pgdb is how Lockstep meets Postgres: pools, quoting, and the migrations
// of the schema lockstep. The private Postgres lies in pgdb/cluster, the harness
// for tests in pgdb/pgtest.
//
// # Guarantees
//
//  1. Every identifier and literal that goes into SQL text passes through
//     [QuoteIdent] or [QuoteLiteral].
//  2. No error or log line of this package holds a password: see [Redact].
//  3. Two processes may [Migrate] one database at once; each change is made once.
package pgdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
)

// connectTimeout bounds the making of one connection where the URL does not.
const connectTimeout = 10 * time.Second

// Open returns a pool of up to 8 connections (pool_max_conns in the URL wins) to
// the database, after one has been made. applicationName shows in pg_stat_activity.
// The caller closes the pool.
//
// Errors: [lockstep.ErrInvalid] for a URL that does not parse and for a refused
// login, [lockstep.ErrNotFound] for a database that does not exist,
// [lockstep.ErrUnavailable] when the server cannot be reached or takes no more.
func Open(ctx context.Context, url, applicationName string) (*pgxpool.Pool, error) {
	config, err := poolConfig(url, applicationName)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, explain(url, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, explain(url, err)
	}
	return pool, nil
}

func poolConfig(url, applicationName string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The driver's message quotes the URL, at times with the password.
		return nil, fmt.Errorf("the database URL %s is not valid: expected postgres://user:password@host:port/database: %w", Redact(url), lockstep.ErrInvalid)
	}
	if !hasPoolSize(url) {
		config.MaxConns = 8
	}
	config.MaxConnLifetime = time.Hour
	config.MaxConnIdleTime = 5 * time.Minute
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	parameters := config.ConnConfig.RuntimeParams
	parameters["application_name"] = applicationName
	return config, nil
}

// explain turns an error of connecting into one that says what to do.
func explain(url string, err error) error {
	at := "connect to " + Redact(url)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Errorf("%s: %s (SQLSTATE %s): %s: %w", at, refused.Message, refused.Code, remedy(refused.Code), kind(refused.Code))
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !isNetwork(err) {
		return fmt.Errorf("%s: %w", at, err)
	}
	return fmt.Errorf("%s: %w: check that the server runs there and that this machine may reach it: %w", at, cause(err), lockstep.ErrUnavailable)
}

// cause returns the error below the driver's, whose text repeats user and host.
func cause(err error) error {
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return network
	}
	if host, ok := errors.AsType[*net.DNSError](err); ok {
		return host
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}

func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network)
}

// kind says what the refusal of a connection means to callers. The codes are those
// of postgresql.org/docs/current/errcodes-appendix.html.
func kind(code string) error {
	switch code {
	case "3D000":
		return lockstep.ErrNotFound
	case "28000", "28P01", "42501":
		return lockstep.ErrInvalid
	}
	return lockstep.ErrUnavailable
}

func remedy(code string) string {
	switch code {
	case "3D000":
		return "create it with CREATE DATABASE, or correct the name in the URL"
	case "28000", "28P01":
		return "check user and password in the URL, and pg_hba.conf of the server"
	case "42501":
		return "GRANT CONNECT ON DATABASE to this user"
	case "53300":
		return "the server has no free connection: raise max_connections, or close some"
	case "57P03":
		return "the server is starting or stopping: try again in a moment"
	}
	return "see the server's log"
}
