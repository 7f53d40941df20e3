package backfill

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
)

// SQLSTATEs, see postgresql.org/docs/current/errcodes-appendix.html.
const (
	stateNoTable     = "42P01"
	stateNoSchema    = "3F000"
	stateWrongObject = "42809"
	stateDenied      = "42501"
	stateNoColumn    = "42703"
	stateLocked      = "55P03"
	stateCancelled   = "57014"
)

// sqlState returns the code with which Postgres refused, or "".
func sqlState(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused.Code
	}
	return ""
}

// passes reports whether what Postgres refuses with this code may succeed later
// without anybody changing anything.
func passes(code string) bool {
	switch code {
	case stateLocked, "55006": // locked; in use
		return true
	case stateCancelled: // by timeout, or by an administrator
		return true
	}
	switch code[:min(2, len(code))] {
	case "08", "25", "40", "53", "57", "58": // connection, transaction state, conflict, resources, shutdown, system
		return true
	}
	return false
}

// tableError says that one table cannot be read, and what to do.
type tableError struct{ reason string }

func (e *tableError) Error() string { return e.reason }

// waitError says what a job waits for.
type waitError struct {
	reason string
	cause  error
}

func (e *waitError) Error() string { return e.reason }
func (e *waitError) Unwrap() error { return e.cause }

// explain sorts an error of reading a table: what concerns the table alone, and
// what passes.
func explain(table string, err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, errDropped):
		return &tableError{"the table was dropped while it was being read: remove it from what depends on it, or start a new backfill when it is there again"}
	case !ok:
		return fmt.Errorf("read %s: %w", table, err)
	case refused.Code == stateLocked:
		return &waitError{"somebody holds a lock on " + table + " that keeps readers out (ALTER TABLE, VACUUM FULL, …): it goes on when the lock is given back", err}
	case passes(refused.Code):
		return fmt.Errorf("read %s: %w", table, err)
	case refused.Code == stateDenied && strings.Contains(refused.Message, "row-level security"):
		return &tableError{refused.Message + ": a backfill reads all rows or none; give the role BYPASSRLS, or make it the table's owner, and start again"}
	case refused.Code == stateDenied:
		return &tableError{refused.Message + ": run GRANT SELECT ON " + table + " TO the role in the database's URL (and USAGE on its schema), and start again"}
	}
	return &tableError{fmt.Sprintf("Postgres cannot read it: %s (SQLSTATE %s): correct that and start again", refused.Message, refused.Code)}
}

// away reports whether an error is one of a server or a disk that does not answer.
func away(err error) bool {
	if errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	code := sqlState(err)
	return code == "" || passes(code)
}
