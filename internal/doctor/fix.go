package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/pgdb"
)

// Done is one thing that was done, or tried.
type Done struct {
	What  string // SQL or a command
	Error string // why it could not be done; empty: it was
}

// alterWait is how long an ALTER TABLE waits for its lock: everybody else's access to
// the table waits behind it.
const alterWait = 2 * time.Second

// Fix does what a check's finding with Fixable asks for, after looking again: what is
// as it should be by then is left alone. It does what can be taken back, needs no
// restart, and is in the role's own hands: publications as a running node keeps them,
// the replica identity of the role's own tables, the modes of the node's own files.
//
// It returns what was done, one by one. A target or check that is not there is
// [lockstep.ErrNotFound]; one of which nothing can be done from here is
// [lockstep.ErrConflict].
func Fix(ctx context.Context, o Options, id, target string) ([]Done, error) {
	o = o.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	for _, g := range o.groups() {
		if g.target == target && slices.ContainsFunc(g.checks, func(c check) bool { return c.id == id }) {
			done, err := o.fix(ctx, g, id)
			hide := o.hider()
			for i := range done {
				done[i].What, done[i].Error = hide(done[i].What), hide(done[i].Error)
			}
			return done, err
		}
		if g.close != nil {
			g.close()
		}
	}
	return nil, fmt.Errorf("there is no check %q of %q: %w", id, target, lockstep.ErrNotFound)
}

// fix does the checks that the one builds on, the one itself, and what it asks for.
func (o Options) fix(ctx context.Context, g group, id string) ([]Done, error) {
	if g.close != nil {
		defer g.close()
	}
	for _, c := range g.checks {
		if c.id != id && !c.needed {
			continue
		}
		found := o.runCheck(ctx, c)
		if c.id != id {
			if i := slices.IndexFunc(found, func(v verdict) bool { return v.status == Fail || v.status == Skip }); i >= 0 {
				return nil, fmt.Errorf("fix %s of %s: the check %s did not pass: %s: %w", id, g.target, c.id, o.hider()(found[i].summary), lockstep.ErrUnavailable)
			}
			continue
		}
		if c.fix == nil || !slices.ContainsFunc(found, func(v verdict) bool { return v.fixable }) {
			return nil, fmt.Errorf("fix %s of %s: there is nothing that can be done from here; see the finding's remedy: %w", id, g.target, lockstep.ErrConflict)
		}
		return c.fix(ctx)
	}
	return nil, fmt.Errorf("there is no check %q of %q: %w", id, g.target, lockstep.ErrNotFound)
}

// closeFiles takes from others what only the node's user may read.
func (d *directory) closeFiles(context.Context) ([]Done, error) {
	var done []Done
	for _, name := range secretFiles() {
		path := filepath.Join(d.path, name)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0) {
			continue
		}
		if err == nil {
			err = os.Chmod(path, 0o600)
		}
		done = append(done, attempted("chmod 600 "+path, err))
	}
	return done, nil
}

func attempted(what string, err error) Done {
	d := Done{What: what}
	if err != nil {
		d.Error = reason(err)
	}
	return d
}

// keepPublications brings the publications in order, as a running node does.
func (db *database) keepPublications(ctx context.Context) ([]Done, error) {
	return []Done{attempted("bring the publications "+db.Publication+" and "+db.insertsName()+" in order", db.publish(ctx, db.Name))}, nil
}

// identityFix is a table whose replica identity one statement mends.
type identityFix struct {
	oid       uint32
	statement string
}

// identityFixes are those of the role's own tables. What has partitions is left to a
// person: each of them may need another statement.
func (db *database) identityFixes(ctx context.Context) ([]identityFix, error) {
	var candidates []identityFix
	for _, t := range db.seen.tables {
		if t.Class != publish.InsertOnly || t.Kind != "table" {
			continue
		}
		// The survey knows which identity is right; its statement is made again here, so
		// that nothing in a table's name is ever taken for SQL.
		for _, identity := range []string{"DEFAULT", "FULL"} {
			statement := "ALTER TABLE " + pgdb.QuoteIdent(t.Schema, t.Name) + " REPLICA IDENTITY " + identity + ";"
			if strings.HasPrefix(t.Remedy, statement) {
				candidates = append(candidates, identityFix{t.OID, statement})
			}
		}
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	const query = `
SELECT c.oid
FROM pg_catalog.pg_class c
WHERE c.oid = ANY($1::oid[]) AND pg_catalog.pg_has_role(c.relowner, 'USAGE')`
	all := make([]uint32, len(candidates))
	for i, c := range candidates {
		all[i] = c.oid
	}
	rows, err := db.pool.Query(ctx, query, all)
	if err != nil {
		return nil, err
	}
	owned, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(candidates, func(f identityFix) bool { return !slices.Contains(owned, f.oid) }), nil
}

// giveIdentities alters the tables one by one, so that one that is locked does not
// keep the others.
func (db *database) giveIdentities(ctx context.Context) ([]Done, error) {
	fixes, err := db.identityFixes(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the tables of database %s: %w", db.Name, err)
	}
	var done []Done
	for _, f := range fixes {
		if ctx.Err() != nil {
			done = append(done, attempted(f.statement, context.Cause(ctx)))
			break
		}
		err := pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", alterWait.Milliseconds())); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, f.statement)
			return err
		})
		done = append(done, attempted(f.statement, err))
	}
	if db.publish != nil && len(done) > 0 {
		more, _ := db.keepPublications(ctx) // that it failed is in it
		done = append(done, more...)
	}
	return done, nil
}

// among reports whether one of the tables is among those that can be mended.
func (k kind) among(fixes []identityFix) bool {
	return slices.ContainsFunc(fixes, func(f identityFix) bool { return slices.Contains(k.oids, f.oid) })
}
