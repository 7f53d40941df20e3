package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/source"
)

// applyTries is how often a transaction is tried again when others got in its way.
const applyTries = 4

// Apply brings a page in, in one transaction: rows, tombstones, cursors and log
// entries. A page that was applied before changes nothing and writes nothing. The
// same record may be in it several times, records may be of several collections.
//
// After an error nothing has been applied, or, when the connection was lost at the
// commit, all of it: apply it again, or go on from [Mirror.States].
//
// Errors: [lockstep.ErrInvalid] for a collection that was not prepared or a state
// without a proper name, [lockstep.ErrFenced] without the lock; others may pass:
// see [lockstep.Retryable].
func (m *Mirror) Apply(ctx context.Context, c Change) (Result, error) {
	groups, err := m.read(c)
	if err != nil {
		return Result{}, err
	}
	if err := m.enter(ctx); err != nil {
		return Result{}, err
	}
	defer m.leave()
	return m.apply(ctx, c, groups, brisk)
}

// apply is Apply within the turn.
func (m *Mirror) apply(ctx context.Context, c Change, groups map[string][]*reading, how manner) (Result, error) {
	for tries := 1; ; tries++ {
		conn, err := m.session(ctx)
		if err != nil {
			return Result{}, err
		}
		if err := m.discover(ctx, conn, groups); err != nil {
			return Result{}, err
		}
		b := &brew{m: m, conn: conn, change: c, manner: how}
		err = b.run(ctx, groups)
		if err == nil {
			return b.result, m.settle(ctx, b)
		}
		b.abort(ctx)
		if isLockTimeout(err) {
			return Result{}, m.locked(groups, err)
		}
		switch hurdleOf(err) {
		case refusedData:
			how = max(how, careful)
		case foreignChange:
			if err := m.reshape(ctx, groups); err != nil {
				return Result{}, err
			}
		case collision:
		default:
			return Result{}, fmt.Errorf("apply to sync %q: %w", m.config.Name, passing(err))
		}
		if tries == applyTries {
			return Result{}, fmt.Errorf("apply to sync %q: gave up after %d tries: %w", m.config.Name, tries, err)
		}
	}
}

// locked says which tables a page has waited for.
func (m *Mirror) locked(groups map[string][]*reading, err error) error {
	tables := make([]string, 0, len(groups))
	for _, collection := range slices.Sorted(maps.Keys(groups)) {
		if t, ok := m.table(collection); ok {
			tables = append(tables, m.config.Schema+"."+t.name)
		}
	}
	return fmt.Errorf("apply to sync %q: another session holds a lock on %s, or on rows of it, for more than %s (pg_locks and pg_stat_activity tell which): %w",
		m.config.Name, strings.Join(tables, " or "), lockPatience, err)
}

// settle does what follows a commit.
func (m *Mirror) settle(ctx context.Context, b *brew) error {
	m.noteStates(b.saved)
	for _, c := range b.confirmed {
		m.recent.note(c.key, c.at)
	}
	for _, g := range b.groups {
		if len(g.wanted) > 0 {
			if err := m.extend(ctx, b.conn, g.t, fieldsOf(g.wanted)); err != nil {
				return err
			}
		}
	}
	return nil
}

// discover makes columns for the fields that the page has and its tables do not,
// where columns follow the records.
func (m *Mirror) discover(ctx context.Context, conn *pgx.Conn, groups map[string][]*reading) error {
	for collection, readings := range groups {
		t, _ := m.table(collection)
		if !t.discovers() {
			continue
		}
		wanted := map[string]source.Type{}
		for _, r := range readings {
			if r.data != nil {
				t.unknown(r.data, wanted)
			}
		}
		if len(wanted) > 0 {
			if err := m.extend(ctx, conn, t, fieldsOf(wanted)); err != nil {
				return err
			}
		}
	}
	return nil
}

// extend adds columns. When the table is locked they are left for later: no page
// waits for them, and the values are in _raw.
func (m *Mirror) extend(ctx context.Context, conn *pgx.Conn, t *table, fields []field) error {
	fields = slices.DeleteFunc(fields, func(f field) bool {
		return slices.ContainsFunc(t.pending, func(p field) bool { return p.key == f.key && p.typ == f.typ })
	})
	if len(fields) == 0 {
		return nil
	}
	err := m.shape(ctx, conn, t.collection, fields)
	if isLockTimeout(err) {
		now, _ := m.table(t.collection.Name)
		now.await(fields)
		return nil
	}
	if err != nil {
		return m.shapeError(t.collection, err)
	}
	return nil
}

// reshape looks at the tables anew: somebody has changed them.
func (m *Mirror) reshape(ctx context.Context, groups map[string][]*reading) error {
	conn, err := m.session(ctx)
	if err != nil {
		return err
	}
	for _, collection := range slices.Sorted(maps.Keys(groups)) {
		t, _ := m.table(collection)
		if err := m.shape(ctx, conn, t.collection, declared(t.collection)); err != nil && !isLockTimeout(err) {
			return m.shapeError(t.collection, err)
		}
	}
	return nil
}

// hurdle is what kind of thing stopped a transaction.
type hurdle int

const (
	failure       hurdle = iota
	refusedData          // by Postgres, or by users' constraints and triggers
	foreignChange        // somebody changed a table
	collision            // somebody wrote to the same rows
)

// passing makes errors of the connection unavailable, which passes: those of package
// net say of themselves that they do not, about the connection that they are of.
func passing(err error) error {
	if _, refused := asRefusal(err); refused || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// Not wrapped: such errors say of themselves that they are not temporary.
		return fmt.Errorf("%v: %w", err, lockstep.ErrUnavailable) //nolint:errorlint // see above
	}
	return err
}

// errMoved says that a row changed by hand between the look at it and its write.
var errMoved = errors.New("rows changed meanwhile")

// hurdleOf tells by the SQLSTATE (postgresql.org/docs/current/errcodes-appendix.html).
func hurdleOf(err error) hurdle {
	if errors.Is(err, errMoved) {
		return collision
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || errors.Is(err, lockstep.ErrFenced) {
		return failure
	}
	switch {
	case refused.Code == "42703" || refused.Code == "42P01" || refused.Code == "42804" || refused.Code == "3F000" || refused.Code == "0A000":
		return foreignChange
	case refused.Code == "40001" || refused.Code == "40P01" || refused.Code == "55P03":
		return collision
	case strings.HasPrefix(refused.Code, "22"), strings.HasPrefix(refused.Code, "23"), strings.HasPrefix(refused.Code, "44"),
		strings.HasPrefix(refused.Code, "54"), strings.HasPrefix(refused.Code, "P0"), refused.Code == "428C9":
		return refusedData
	}
	return failure
}
