package wal

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
)

// The SQLSTATEs that capture tells apart
// (postgresql.org/docs/current/errcodes-appendix.html).
const (
	stateProtocol        = "08P01"
	stateSyntax          = "42601"
	stateNotSupported    = "0A000"
	stateUnknownDB       = "3D000"
	stateNoLogin         = "28000"
	stateBadPassword     = "28P01"
	stateNoPrivilege     = "42501"
	stateUndefined       = "42704"
	stateTooMany         = "53300"
	stateLimit           = "53400"
	stateNotReady        = "55000"
	stateInUse           = "55006"
	stateAdminShutdown   = "57P01"
	stateCannotConnect   = "57P03"
	stateDatabaseRemoved = "57P04"
)

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// explain says what was being done and, where Postgres' answer leaves it open,
// what to do about it. The error stays in the chain.
func explain(doing string, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
			return fmt.Errorf("%s: %w: check that the server runs there and that this machine may reach it: %w", doing, err, lockstep.ErrUnavailable)
		}
		return fmt.Errorf("%s: %w", doing, err)
	}
	if remedy := remedyFor(pg); remedy != "" {
		return fmt.Errorf("%s: %w: %s", doing, err, remedy)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func remedyFor(pg *pgconn.PgError) string {
	says := func(text string) bool { return strings.Contains(pg.Message, text) }
	const pooler = "a connection pooler in front of Postgres does not speak the replication protocol: give the URL of Postgres itself (usually port 5432, not 6432 or 6543)"
	switch pg.Code {
	case stateProtocol, stateSyntax, stateNotSupported:
		if says("replication") || says("startup parameter") || says("IDENTIFY_SYSTEM") {
			return pooler
		}
	case stateNoLogin:
		return "let the user in with LOGIN, and add a line for this host, database and user to pg_hba.conf, then SELECT pg_reload_conf()"
	case stateBadPassword:
		return "correct the password in the URL; capture goes on by itself when it is right again"
	case stateNoPrivilege:
		if says("replication") || says("walsender") || says("WAL sender") {
			return "ALTER ROLE <user> REPLICATION (on a managed service: GRANT rds_replication TO <user>, or the like)"
		}
	case stateUnknownDB:
		return "create it with CREATE DATABASE, or correct the name in the URL"
	case stateTooMany:
		if says("max_wal_senders") || says("standby connections") {
			return "raise max_wal_senders and restart Postgres, or end a walsender that is not needed (SELECT * FROM pg_stat_replication)"
		}
		return "raise max_connections, or close some connections"
	case stateLimit:
		return "raise max_replication_slots and restart Postgres, or drop a slot that is not needed (SELECT slot_name, active FROM pg_replication_slots)"
	case stateNotReady:
		if says("wal_level") {
			return "ALTER SYSTEM SET wal_level = logical, then restart Postgres (on RDS: rds.logical_replication = 1)"
		}
	case stateInUse:
		return "another process reads this slot: stop it, or give this Lockstep a slot of its own"
	case stateCannotConnect, stateAdminShutdown:
		return "the server is starting or stopping; capture goes on by itself"
	case stateDatabaseRemoved:
		return "the database was dropped"
	}
	return ""
}

// finalError is an error that trying again cannot heal.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func isFinal(err error) bool {
	var final finalError
	return errors.As(err, &final) || errors.Is(err, lockstep.ErrFenced)
}
