package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb"
)

// access is what the role may do with one table.
type access struct {
	schema, name, owner string
	ownerSuper          bool
	selects, usage      bool
	owned, listed       bool
	hides               bool // row security applies to this role
}

func (a access) String() string { return a.schema + "." + a.name }

const readAccess = `
SELECT n.nspname::text, c.relname::text, r.rolname::text, r.rolsuper,
  pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
  pg_catalog.pg_has_role(c.relowner, 'USAGE'),
  EXISTS (
    SELECT
    FROM pg_catalog.pg_publication p
    WHERE p.pubname IN ($2::text, $3::text)
      AND (p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel m WHERE m.prpubid = p.oid AND m.prrelid = c.oid))
  ),
  pg_catalog.row_security_active(c.oid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE c.oid = ANY($1::oid[])
ORDER BY 1, 2`

func (db *database) readAccess(ctx context.Context) ([]access, error) {
	rows, err := db.pool.Query(ctx, readAccess, oids(db.seen.captured()), db.Publication, db.insertsName())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (a access, err error) {
		return a, row.Scan(&a.schema, &a.name, &a.owner, &a.ownerSuper, &a.selects, &a.usage, &a.owned, &a.listed, &a.hides)
	})
}

func (db *database) tablePrivileges(ctx context.Context) ([]verdict, error) {
	all, err := db.readAccess(ctx)
	if err != nil {
		return nil, err
	}
	var foreign, closed []access
	for _, a := range all {
		if !a.owned && !a.listed {
			foreign = append(foreign, a)
		}
		if !a.selects || !a.usage {
			closed = append(closed, a)
		}
	}
	var out []verdict
	if len(foreign) > 0 {
		out = append(out, fail(db.ownRemedy(foreign), "%s not be put into the publication, as %s does not own them: %s", mayOf(len(foreign)), db.who.role, few(names(foreign))))
	}
	if len(closed) > 0 {
		out = append(out, warn(db.readRemedy(closed), "%s not be read by %s, so that no backfill is possible: %s", mayOf(len(closed)), db.who.role, few(names(closed))))
	}
	if len(out) == 0 {
		out = append(out, pass("%s may publish and read every captured table", db.who.role))
	}
	return out, nil
}

func mayOf(n int) string { return plural(n) + " can" }

func names(all []access) []string {
	out := make([]string, len(all))
	for i, a := range all {
		out[i] = a.String()
	}
	return out
}

// ownRemedy makes the role an owner: as a member of the owning role where that has
// no more rights than it should get, else table by table.
func (db *database) ownRemedy(tables []access) string {
	var lines []string
	left := 0
	for _, a := range tables {
		line := fmt.Sprintf("GRANT %s TO %s; -- a member counts as the owner", pgdb.QuoteIdent(a.owner), db.who.quoted())
		if a.ownerSuper {
			line = fmt.Sprintf("ALTER TABLE %s OWNER TO %s;", pgdb.QuoteIdent(a.schema, a.name), db.who.quoted())
		}
		switch {
		case slices.Contains(lines, line):
		case len(lines) < 3:
			lines = append(lines, line)
		default:
			left++
		}
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("-- and the same for %d more", left))
	}
	return strings.Join(lines, "\n")
}

func (db *database) readRemedy(tables []access) string {
	var schemas []string
	for _, a := range tables {
		if !slices.Contains(schemas, a.schema) {
			schemas = append(schemas, a.schema)
		}
	}
	var lines []string
	for _, s := range schemas[:min(3, len(schemas))] {
		schema, role := pgdb.QuoteIdent(s), db.who.quoted()
		lines = append(lines, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;\nGRANT SELECT ON ALL TABLES IN SCHEMA %s TO %s;", schema, role, schema, role))
	}
	if n := len(schemas) - 3; n > 0 {
		lines = append(lines, fmt.Sprintf("-- and the same for %d more schemas", n))
	}
	return strings.Join(lines, "\n")
}

func (db *database) rowSecurity(ctx context.Context) ([]verdict, error) {
	all, err := db.readAccess(ctx)
	if err != nil {
		return nil, err
	}
	hidden := slices.DeleteFunc(all, func(a access) bool { return !a.hides })
	if len(hidden) == 0 {
		return one(pass("row security hides nothing from %s", db.who.role))
	}
	return one(warn("ALTER ROLE "+db.who.quoted()+" BYPASSRLS;", "row security may hide rows of %s from %s", few(names(hidden)), db.who.role))
}
