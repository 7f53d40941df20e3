package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/sink"
)

// columnsSQL reads a table's columns. Domains are their base types, also as elements.
const columnsSQL = `
WITH RECURSIVE base(att, oid) AS (
	SELECT attnum, atttypid FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
	UNION ALL
	SELECT b.att, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype = 'd'
), flat AS (
	SELECT b.att, t.* FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd'
), elem(att, oid) AS (
	SELECT att, typelem FROM flat WHERE typlen = -1 AND typelem <> 0
	UNION ALL
	SELECT e.att, t.typbasetype FROM elem e JOIN pg_catalog.pg_type t ON t.oid = e.oid WHERE t.typtype = 'd'
), inner1 AS (
	SELECT e.att, t.* FROM elem e JOIN pg_catalog.pg_type t ON t.oid = e.oid WHERE t.typtype <> 'd'
), elem2(att, oid) AS (
	SELECT att, typelem FROM inner1 WHERE typlen = -1 AND typelem <> 0 AND typname NOT IN ('int2vector', 'oidvector')
	UNION ALL
	SELECT e.att, t.typbasetype FROM elem2 e JOIN pg_catalog.pg_type t ON t.oid = e.oid WHERE t.typtype = 'd'
), inner2 AS (
	SELECT e.att, t.* FROM elem2 e JOIN pg_catalog.pg_type t ON t.oid = e.oid WHERE t.typtype <> 'd'
)
SELECT a.attname, n.nspname, f.typname, a.attgenerated <> '', a.attidentity = 'a',
	coalesce(e.typname, ''), coalesce(e.typdelim, ','), coalesce(e2.typname, ''), coalesce(e2.typdelim, ',')
FROM pg_catalog.pg_attribute a
JOIN flat f ON f.att = a.attnum
JOIN pg_catalog.pg_namespace n ON n.oid = f.typnamespace
LEFT JOIN inner1 e ON e.att = a.attnum
LEFT JOIN inner2 e2 ON e2.att = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum`

// keysSQL reads the unique indexes that ON CONFLICT can use.
const keysSQL = `
SELECT i.indisprimary, a.attname, i.indexrelid
FROM pg_catalog.pg_index i
JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n) ON k.n <= i.indnkeyatts
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att
WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indexrelid, k.n`

// query returns the rows of a query in text form.
func (t *targets) query(ctx context.Context, c *conn, what, sql string, args ...string) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	result := c.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, t.judged(ctx, result.Err, what)
	}
	rows := make([][]string, len(result.Rows))
	for i, row := range result.Rows {
		for _, v := range row {
			rows[i] = append(rows[i], string(v))
		}
	}
	return rows, nil
}

func (t *targets) judged(ctx context.Context, err error, what string) error {
	e := (&pool{name: t.where}).judge(ctx, err, what)
	if e.Kind == sink.Refused {
		e.Kind = t.kind()
	}
	return e
}

// load reads a table from the catalog, and makes what is missing and may be made.
func (t *targets) load(ctx context.Context, c *conn, n name, m *sink.Message) (*target, error) {
	columns, err := t.columnsOf(ctx, c, n)
	if err != nil {
		return nil, err
	}
	if len(columns) == 0 {
		switch {
		case !t.config.Create:
			return nil, t.refusal(t.kind(), fmt.Sprintf("table %s does not exist: create it, or set create: true", n), errAbsent)
		case m.Record == nil && t.config.Form != Generic || m.Action.Whole():
			return nil, t.refusal(t.kind(), fmt.Sprintf("table %s does not exist yet", n), errAbsent)
		}
		if err := t.create(ctx, c, n, m); err != nil {
			return nil, err
		}
		if columns, err = t.columnsOf(ctx, c, n); err != nil {
			return nil, err
		}
	}
	one := &target{name: n, columns: columns, seq: -1, gone: -1, generic: t.config.Form == Generic, statements: map[string]string{}}
	if one.generic {
		one.inserted, one.data, one.deleted, one.collection = t.config.generic("inserted_at"), t.config.generic("data"), t.config.generic("deleted"), t.config.generic("collection_id")
	}
	if err := t.guard(ctx, c, one); err != nil {
		return nil, err
	}
	if err := t.checkColumns(one); err != nil {
		return nil, err
	}
	if err := t.keyOf(ctx, c, one); err != nil {
		return nil, err
	}
	one.index(t.config)
	return one, nil
}

func (t *targets) columnsOf(ctx context.Context, c *conn, n name) ([]column, error) {
	rows, err := t.query(ctx, c, "read the columns of "+n.String(), columnsSQL, n.String())
	if err != nil {
		return nil, err
	}
	var list []column
	for _, r := range rows {
		col := column{name: r[0], cast: quote(r[1]) + "." + quote(r[2]), computed: r[3] == "t", always: r[4] == "t", truth: r[2] == "bool"}
		col.kind = kind{form: formOf(r[2])}
		if r[5] != "" {
			col.kind = arrayOfKind(kind{form: formOf(r[5])}, r[6])
		}
		if r[7] != "" {
			col.kind = arrayOfKind(arrayOfKind(kind{form: formOf(r[7])}, r[8]), r[6])
		}
		list = append(list, col)
	}
	return list, nil
}

func arrayOfKind(elem kind, delim string) kind {
	return kind{form: array, elem: &elem, delim: delim[0]}
}

func formOf(typname string) form {
	switch typname {
	case "json", "jsonb":
		return document
	case "bytea":
		return octets
	case "hstore":
		return store
	case "vector", "halfvec":
		return vector
	}
	return plain
}

// keyOf finds the columns of the key and the index that enforces it.
func (t *targets) keyOf(ctx context.Context, c *conn, one *target) error {
	rows, err := t.query(ctx, c, "read the keys of "+one.name.String(), keysSQL, one.name.String())
	if err != nil {
		return err
	}
	wanted := t.config.Key
	if one.generic {
		wanted = []string{t.config.generic("id")}
	}
	var indexes [][]string
	for i, r := range rows {
		if i == 0 || rows[i-1][2] != r[2] {
			indexes = append(indexes, nil)
		}
		last := len(indexes) - 1
		indexes[last] = append(indexes[last], r[1])
		if r[0] == "t" && len(t.config.Key) == 0 && !one.generic {
			wanted = indexes[last]
		}
	}
	if len(wanted) == 0 {
		return t.refusal(t.kind(), fmt.Sprintf("table %s has no primary key: name the columns of a unique index in key", one.name), nil)
	}
	for _, name := range wanted {
		i := one.column(name)
		if i < 0 {
			return t.refusal(t.kind(), fmt.Sprintf("table %s has no column %s, which is in key", one.name, quote(name)), nil)
		}
		one.key = append(one.key, i)
	}
	if !slices.ContainsFunc(indexes, func(index []string) bool {
		return len(index) == len(wanted) && !slices.ContainsFunc(index, func(name string) bool { return !slices.Contains(wanted, name) })
	}) {
		return t.refusal(t.kind(), fmt.Sprintf("table %s has no unique index on its key: CREATE UNIQUE INDEX ON %[1]s (%s)", one.name, idents(wanted)), nil)
	}
	return nil
}

// checkColumns: every column that the configuration names must be there.
func (t *targets) checkColumns(one *target) error {
	c := t.config
	var wanted, missing []string
	for name := range c.Columns {
		wanted = append(wanted, name)
	}
	if !templated(c.Table) {
		for _, to := range c.Rename {
			wanted = append(wanted, to)
		}
	}
	if one.generic {
		wanted = []string{c.generic("id"), c.generic("collection_id"), c.generic("updated_idx"), c.generic("deleted"), c.generic("data")}
	}
	if c.SoftDelete != "" {
		wanted = append(wanted, c.SoftDelete)
	}
	for _, name := range wanted {
		if name != "" && one.column(name) < 0 && (!c.Create || one.generic || name == c.SoftDelete) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return t.refusal(t.kind(), fmt.Sprintf("table %s has no column %s", one.name, idents(missing)), nil)
	}
	if c.SoftDelete != "" {
		one.gone = one.column(c.SoftDelete)
	}
	return nil
}

func idents(names []string) string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = quote(n)
	}
	return strings.Join(list, ", ")
}

// exec runs statements in one transaction.
func (t *targets) exec(ctx context.Context, c *pgconn.PgConn, what, sql string) error {
	if _, err := c.Exec(ctx, sql).ReadAll(); err != nil {
		return t.judged(ctx, err, what)
	}
	return nil
}
