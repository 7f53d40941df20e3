package auth

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
)

// Down marks an error of Postgres as [lockstep.ErrUnavailable] when it says that the
// database cannot be reached or takes no more for now: trying again may help. Other
// errors, and those that have a kind already, stay as they are.
func Down(err error) error {
	if err == nil || !lockstep.Retryable(err) || errors.Is(err, lockstep.ErrUnavailable) {
		return err
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// Classes of SQLSTATE: 08 connection, 53 resources, 57 operator intervention;
		// 25006 is a standby (postgresql.org/docs/current/errcodes-appendix.html).
		class := pg.Code[:min(2, len(pg.Code))]
		if class != "08" && class != "53" && class != "57" && pg.Code != "25006" {
			return err
		}
	}
	return fmt.Errorf("the database of the schema lockstep does not answer: %w: %w", lockstep.ErrUnavailable, err)
}
