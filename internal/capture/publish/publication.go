package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/pgdb"
)

// The two publications, as indices.
const (
	everything = 0
	inserts    = 1
)

// InsertsSuffix makes the name of the publication for inserts out of the other's.
const InsertsSuffix = "_inserts"

// madeHere is the comment on publications that Lockstep made: only from those it
// takes out tables that the patterns no longer match.
const madeHere = "made and kept by lockstep"

// publication is one of the two, as the catalog has it.
type publication struct {
	which     int
	name      string
	exists    bool
	ours      bool // made here
	owned     bool
	owner     string
	allTables bool
	schemas   []string
	insert    bool
	update    bool
	delete    bool
	truncate  bool
	viaRoot   bool
	generated bool
}

// managed publications are altered; the others only reported.
func (p *publication) managed() bool {
	return p.exists && p.owned && !p.allTables && len(p.schemas) == 0
}

// covers reports whether writes to the relation are published here.
func (p *publication) covers(r *relation) bool {
	if !p.exists || r.persistence != 'p' || r.kind != 'r' && r.kind != 'p' {
		return false
	}
	if p.allTables || slices.Contains(p.schemas, r.schema) {
		return true
	}
	for ; r != nil; r = r.above {
		if r.member[p.which] {
			return true
		}
	}
	return false
}

// endangers reports whether Postgres checks replica identities because of it.
func (p *publication) endangers() bool { return p.exists && (p.update || p.delete) }

const readPublicationsSQL = `
SELECT p.pubname::text, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
  coalesce(to_jsonb(p) ->> 'pubgencols', '') = 's',
  pg_catalog.pg_has_role(p.pubowner, 'USAGE'), pg_catalog.pg_get_userbyid(p.pubowner)::text,
  coalesce(pg_catalog.obj_description(p.oid, 'pg_publication'), ''),
  %s
FROM pg_catalog.pg_publication p
WHERE p.pubname IN ($1::text, $2::text)`

// publicationSchemas is there since version 15.
const publicationSchemas = `ARRAY(
    SELECT n.nspname::text
    FROM pg_catalog.pg_publication_namespace s
    JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
    WHERE s.pnpubid = p.oid
    ORDER BY n.nspname
  )`

func readPublications(ctx context.Context, db Querier, srv server, names [2]string) ([2]publication, error) {
	pubs := [2]publication{{which: everything, name: names[everything]}, {which: inserts, name: names[inserts]}}
	schemas := publicationSchemas
	if srv.version < 150000 {
		schemas = "ARRAY[]::text[]"
	}
	rows, err := db.Query(ctx, fmt.Sprintf(readPublicationsSQL, schemas), names[everything], names[inserts])
	if err != nil {
		return pubs, fmt.Errorf("read the publications: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p publication, err error) {
		var comment string
		err = row.Scan(&p.name, &p.allTables, &p.insert, &p.update, &p.delete, &p.truncate, &p.viaRoot,
			&p.generated, &p.owned, &p.owner, &comment, &p.schemas)
		p.exists, p.ours = true, comment == madeHere
		return p, err
	})
	if err != nil {
		return pubs, fmt.Errorf("read the publications: %w", err)
	}
	for _, p := range found {
		for i := range pubs {
			if p.name == names[i] {
				p.which = i
				pubs[i] = p
			}
		}
	}
	return pubs, nil
}

// wants returns the parameters that a publication should have.
func (p *publication) wants(srv server) string {
	publish := "insert, update, delete, truncate"
	if p.which == inserts {
		publish = "insert, truncate"
	}
	return "publish = " + pgdb.QuoteLiteral(publish) + ", " + p.wantsSafe(srv)
}

// wantsSafe returns those of the parameters that cannot make a write fail.
func (p *publication) wantsSafe(srv server) string {
	with := "publish_via_partition_root = true"
	if srv.version >= publishesGenerated {
		// Else the server refuses updates under FULL with stored generated columns.
		with += ", publish_generated_columns = stored"
	}
	return with
}

func (p *publication) wrongSafe(srv server) bool {
	return !p.viaRoot || srv.version >= publishesGenerated && !p.generated
}

func (p *publication) wrongOperations() bool {
	want := p.which == everything
	return !p.insert || !p.truncate || p.update != want || p.delete != want
}

// create makes a publication without tables, and executes more in its transaction.
// Somebody else may make it first.
func (p *publication) create(ctx context.Context, db execer, srv server, more ...string) error {
	name := pgdb.QuoteIdent(p.name)
	statements := []string{
		"CREATE PUBLICATION " + name + " WITH (" + p.wants(srv) + ")",
		"COMMENT ON PUBLICATION " + name + " IS " + pgdb.QuoteLiteral(madeHere),
	}
	err := together(ctx, db, append(statements, more...))
	var refused *pgconn.PgError
	switch {
	case err == nil || sqlState(err) == stateDuplicate:
		return nil
	case errors.As(err, &refused) && refused.Code == stateDenied:
		return fmt.Errorf("create publication %s: %s: run GRANT CREATE ON DATABASE %s TO %s, or CREATE PUBLICATION %s WITH (%s) as its owner-to-be: %w",
			p.name, refused.Message, pgdb.QuoteIdent(srv.database), pgdb.QuoteIdent(srv.role), name, p.wants(srv), lockstep.ErrUnavailable)
	}
	return fmt.Errorf("create publication %s: %w", p.name, err)
}

// unmanagedFinding says why a publication is left alone.
func (p *publication) unmanagedFinding(srv server) finding {
	name := pgdb.QuoteIdent(p.name)
	switch {
	case p.allTables:
		return finding{"publication " + p.name + " is FOR ALL TABLES: it takes in every new table, whose updates fail when it has no replica identity; Lockstep leaves it alone",
			"set another publication name, or DROP PUBLICATION " + name + "; and let Lockstep make one that lists tables (changes between are missed)"}
	case len(p.schemas) > 0:
		return finding{"publication " + p.name + " is FOR TABLES IN SCHEMA " + strings.Join(p.schemas, ", ") + ": it takes in every new table, whose updates fail when it has no replica identity; Lockstep leaves it alone",
			"ALTER PUBLICATION " + name + " DROP TABLES IN SCHEMA " + quoteList(p.schemas) + "; -- Lockstep then lists the tables by name; or set another publication name"}
	}
	return finding{"publication " + p.name + " belongs to " + p.owner + ", so Lockstep cannot alter it",
		"ALTER PUBLICATION " + name + " OWNER TO " + pgdb.QuoteIdent(srv.role) + ";"}
}

func quoteList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = pgdb.QuoteIdent(n)
	}
	return strings.Join(quoted, ", ")
}
