package publish

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// removeWait is how long a publication is waited for that somebody alters.
const removeWait = 5 * time.Second

// Remove drops what a Reconciler has made for a publication: the event trigger and its
// function, and both publications. It returns the names of what it dropped. A publication
// that somebody else made, or that belongs to a role that this one cannot act for, stays
// and is in left. It is all dropped, or nothing is. The Reconciler must not run.
func Remove(ctx context.Context, pool *pgxpool.Pool, name string) (dropped, left []string, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("remove the publication %s: %w", name, err)
	}
	defer conn.Release()
	pubs, err := readPublications(ctx, conn, server{}, [2]string{name, name + InsertsSuffix})
	if err != nil {
		return nil, nil, err
	}
	statements := []string{lockTimeout(removeWait)}
	if pubs[everything].ours || pubs[inserts].ours {
		trigger, err := ownTrigger(ctx, conn, triggerName(name))
		if err != nil {
			return nil, nil, err
		}
		statements = append(statements, trigger...)
	}
	for _, p := range pubs {
		switch {
		case p.ours && p.owned:
			statements = append(statements, "DROP PUBLICATION IF EXISTS "+pgdb.QuoteIdent(p.name))
			dropped = append(dropped, p.name)
		case p.exists:
			left = append(left, p.name)
		}
	}
	if err := together(ctx, conn, statements); err != nil {
		return nil, nil, fmt.Errorf("remove the publication %s: %w", name, err)
	}
	return dropped, left, nil
}

// ownTrigger returns what drops the event trigger, when there is one that this role may
// drop. Without its publications it does nothing.
func ownTrigger(ctx context.Context, conn *pgxpool.Conn, name string) ([]string, error) {
	const query = `
SELECT count(*)
FROM pg_catalog.pg_event_trigger t
JOIN pg_catalog.pg_proc f ON f.oid = t.evtfoid
WHERE t.evtname = $1::text AND pg_catalog.pg_has_role(t.evtowner, 'USAGE') AND pg_catalog.pg_has_role(f.proowner, 'USAGE')`
	var n int
	if err := conn.QueryRow(ctx, query, name).Scan(&n); err != nil {
		return nil, fmt.Errorf("look for the event trigger %s: %w", name, err)
	}
	if n == 0 {
		return nil, nil
	}
	return []string{
		"DROP EVENT TRIGGER IF EXISTS " + pgdb.QuoteIdent(name),
		"DROP FUNCTION IF EXISTS " + pgdb.QuoteIdent(pattern.Own, name) + "()",
	}, nil
}
