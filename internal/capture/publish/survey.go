package publish

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// Querier is a connection, a pool or a transaction.
type Querier interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Survey returns every relation that the patterns match, with its class, ordered by
// schema and name: tables of all kinds, materialized views, and those views and
// sequences that a pattern names without wildcards. It reads the catalog once and
// takes no lock on any table. 100,000 tables take a few seconds.
//
// The classes are those under publications as a [Reconciler] makes them.
func Survey(ctx context.Context, db Querier, patterns pattern.Patterns) ([]TableState, error) {
	srv, err := readServer(ctx, db, "")
	if err != nil {
		return nil, err
	}
	srv.generated = srv.version >= publishesGenerated
	found, err := readRelations(ctx, db, [2]string{}, 0)
	if err != nil {
		return nil, err
	}
	listed := srv.list(found.all, patterns)
	states := make([]TableState, len(listed))
	for i, l := range listed {
		states[i] = l.state
	}
	return states, nil
}

// server is what the rules depend on beyond the tables.
type server struct {
	version   int  // server_version_num
	generated bool // stored generated columns are published
	role      string
	database  string
	streaming bool // the slot exists and holds a position
}

// publishesGenerated is the first version that can publish stored generated columns,
// and that refuses changes whose identity has unpublished ones.
const publishesGenerated = 180000

func readServer(ctx context.Context, db Querier, slot string) (server, error) {
	const query = `
SELECT current_setting('server_version_num')::int, current_user::text, current_database()::text, EXISTS (
         SELECT
         FROM pg_catalog.pg_replication_slots
         WHERE slot_name = $1::text
           AND database = current_database()
           AND confirmed_flush_lsn IS NOT NULL
           AND coalesce(wal_status, '') <> 'lost'
       )`
	rows, err := db.Query(ctx, query, slot)
	if err != nil {
		return server{}, fmt.Errorf("read the server's version: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (s server, err error) {
		return s, row.Scan(&s.version, &s.role, &s.database, &s.streaming)
	})
	if err != nil {
		return server{}, fmt.Errorf("read the server's version: %w", err)
	}
	return s, nil
}

// relation is one row of the survey.
type relation struct {
	oid          uint32
	parent       uint32 // oid of the table it is a partition of; 0: none
	above        *relation
	schema, name string
	kind         byte // pg_class.relkind
	persistence  byte
	identity     byte // pg_class.relreplident
	owner        string
	owned        bool // by this role, or one it is a member of
	stored       bool // has stored generated columns
	virtual      bool // has virtual generated columns
	primary      key
	index        key     // of the replica identity
	member       [2]bool // of the publications: everything, inserts
	narrowed     bool    // there by a column list or a row filter
	file         uint32  // pg_class.relfilenode; 0: it has none
	inherited    uint32  // xmin of its row in pg_inherits: another with every ATTACH
	touched      bool    // a row about its columns is younger than the horizon asked for
	parentOf     []*relation
	covered      bool // a table above it is listed and stands for it
}

// key is an index that may identify a row. Without columns there is none.
type key struct {
	columns   []string
	usable    bool // as Postgres judges: unique, immediate, valid, not partial
	generated bool // has a generated column
	primary   bool // it is that of the primary key
}

func (k key) exists() bool { return len(k.columns) > 0 }

func (r *relation) String() string { return r.schema + "." + r.name }

func (r *relation) quoted() string { return pgdb.QuoteIdent(r.schema, r.name) }

// target is how statements name the table alone. Without ONLY, its inheritance
// children would come with it, whatever their identity.
func (r *relation) target() string { return "ONLY " + r.quoted() }

// What an index INCLUDEs lies behind the columns of the key.
const readRelationsSQL = `
WITH tables AS MATERIALIZED (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relowner, c.relispartition, c.relfilenode
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema'
), keys AS MATERIALIZED (
  SELECT x.indrelid, x.indisprimary, x.indisreplident,
    x.indisunique AND x.indimmediate AND x.indisvalid AND x.indislive AND x.indpred IS NULL AS usable,
    array_agg(a.attname::text ORDER BY k.place) AS columns,
    bool_or(a.attgenerated <> '') AS generated
  FROM tables t
  JOIN pg_catalog.pg_index x ON x.indrelid = t.oid AND (x.indisprimary OR x.indisreplident)
  CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
  WHERE k.place <= x.indnkeyatts
  GROUP BY x.indexrelid
), columns AS MATERIALIZED (
  SELECT attrelid, bool_or(attgenerated = 's' AND NOT attisdropped) AS stored,
    bool_or(attgenerated = 'v' AND NOT attisdropped) AS virtual,
    coalesce(bool_or(pg_catalog.age(xmin) <= (SELECT pg_catalog.age($3::xid))), false) AS touched
  FROM pg_catalog.pg_attribute
  WHERE attnum > 0 AND (attgenerated <> '' AND NOT attisdropped OR pg_catalog.age(xmin) <= (SELECT pg_catalog.age($3::xid)))
  GROUP BY attrelid
), members AS MATERIALIZED (
  SELECT m.prrelid, bool_or(p.pubname = $1::text) AS every, bool_or(p.pubname = $2::text) AS inserts,
    bool_or(to_jsonb(m) ->> 'prqual' IS NOT NULL OR to_jsonb(m) ->> 'prattrs' IS NOT NULL) AS narrowed
  FROM pg_catalog.pg_publication_rel m
  JOIN pg_catalog.pg_publication p ON p.oid = m.prpubid
  WHERE p.pubname IN ($1::text, $2::text)
  GROUP BY m.prrelid
)
SELECT t.oid, coalesce(i.inhparent, 0::oid), t.nspname::text, t.relname::text,
  t.relkind, t.relpersistence, t.relreplident,
  pg_catalog.pg_get_userbyid(t.relowner)::text, pg_catalog.pg_has_role(t.relowner, 'USAGE'),
  coalesce(a.stored, false), coalesce(a.virtual, false),
  pk.columns, coalesce(pk.usable, false), coalesce(pk.generated, false),
  ri.columns, coalesce(ri.usable, false), coalesce(ri.generated, false), coalesce(ri.indisprimary, false),
  coalesce(m.every, false), coalesce(m.inserts, false), coalesce(m.narrowed, false),
  t.relfilenode, coalesce(i.xmin, '0'::xid), coalesce(a.touched, false)
FROM tables t
LEFT JOIN pg_catalog.pg_inherits i ON t.relispartition AND i.inhrelid = t.oid
LEFT JOIN keys pk ON pk.indrelid = t.oid AND pk.indisprimary
LEFT JOIN keys ri ON ri.indrelid = t.oid AND ri.indisreplident
LEFT JOIN columns a ON a.attrelid = t.oid
LEFT JOIN members m ON m.prrelid = t.oid
ORDER BY t.oid`

// catalog is what one survey has read.
type catalog struct {
	all []*relation
	// horizon is older than every transaction that the survey did not see: whatever
	// a later survey sees and this one did not, was done by this one or a younger one.
	horizon uint64
	whole   bool // touched says nothing: there was no horizon to compare with, or it is too far back
}

// halfway is how far transaction ids can be compared.
const halfway = 1 << 31

// readRelations reads the catalog. Relations say whether they were touched since the
// horizon of an earlier survey; 0: there was none.
func readRelations(ctx context.Context, db Querier, publications [2]string, since uint64) (catalog, error) {
	const horizon = `SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint`
	var c catalog
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		// Compiling the query takes longer than running it, and with many tables the
		// default memory spills to disk.
		if err := execAll(ctx, tx, []string{"SET LOCAL jit = off", "SET LOCAL work_mem = '16MB'"}); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, horizon).Scan(&c.horizon); err != nil {
			return err
		}
		var xid *uint32
		if c.whole = since == 0 || since > c.horizon || c.horizon-since >= halfway; !c.whole {
			xid = new(uint32(since)) // without the epoch
		}
		rows, err := tx.Query(ctx, readRelationsSQL, publications[everything], publications[inserts], xid)
		if err != nil {
			return err
		}
		c.all, err = pgx.CollectRows(rows, scanRelation)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("read the tables in the catalog: %w", err)
	}
	byOID := make(map[uint32]*relation, len(c.all))
	for _, r := range c.all {
		byOID[r.oid] = r
	}
	for _, r := range c.all {
		if p := byOID[r.parent]; p != nil {
			r.above = p
			p.parentOf = append(p.parentOf, r)
		}
	}
	return c, nil
}

func scanRelation(row pgx.CollectableRow) (*relation, error) {
	r := new(relation)
	err := row.Scan(&r.oid, &r.parent, &r.schema, &r.name, &r.kind, &r.persistence, &r.identity,
		&r.owner, &r.owned, &r.stored, &r.virtual,
		&r.primary.columns, &r.primary.usable, &r.primary.generated,
		&r.index.columns, &r.index.usable, &r.index.generated, &r.index.primary,
		&r.member[everything], &r.member[inserts], &r.narrowed,
		&r.file, &r.inherited, &r.touched)
	return r, err
}

// listed is a relation that the patterns match and that stands for itself.
type listed struct {
	relation *relation
	state    TableState
}

// list applies the patterns: a partitioned table that can be published stands for
// everything below it.
func (s server) list(all []*relation, patterns pattern.Patterns) []listed {
	var out []listed
	for _, r := range all {
		if r.above == nil {
			out = s.visit(out, r, patterns)
		}
	}
	slices.SortFunc(out, func(a, b listed) int { return byName(a.state, b.state) })
	return out
}

func (s server) visit(out []listed, r *relation, patterns pattern.Patterns) []listed {
	wanted := patterns.Match(r.schema, r.name)
	if r.kind == 'v' || r.kind == 'S' {
		wanted = patterns.Names(r.schema, r.name)
	}
	if wanted {
		state := s.classify(r)
		noteExcluded(&state, r, patterns)
		out = append(out, listed{r, state})
		if state.Class != None {
			r.cover()
			return out
		}
	}
	for _, child := range r.parentOf {
		out = s.visit(out, child, patterns)
	}
	return out
}

// cover marks everything below a listed table as seen through it.
func (r *relation) cover() {
	for _, child := range r.parentOf {
		child.covered = true
		child.cover()
	}
}

// noteExcluded says that a partition cannot be left out of its table.
func noteExcluded(state *TableState, r *relation, patterns pattern.Patterns) {
	var out []string
	for _, leaf := range r.leaves() {
		if leaf != r && patterns.Excludes(leaf.schema, leaf.name) {
			out = append(out, leaf.String())
		}
	}
	if len(out) > 0 {
		state.note("changes of " + few(out) + " are captured in spite of an excluding pattern, as partitions of this table; exclude the table itself")
	}
}

// leaves returns the tables that hold the rows: the relation itself when it is not
// partitioned.
func (r *relation) leaves() []*relation {
	if r.kind != 'p' {
		return []*relation{r}
	}
	var out []*relation
	for _, child := range r.parentOf {
		out = append(out, child.leaves()...)
	}
	return out
}
