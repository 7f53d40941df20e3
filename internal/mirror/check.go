package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb"
	"lockstep/source"
)

// Relation returns where a collection's rows lie, unquoted. It needs no lock, as
// [Mirror.Edited] and [Mirror.Compare] do not.
func (m *Mirror) Relation(collection string) (schema, table string, err error) {
	t, ok := m.table(collection)
	if !ok {
		return "", "", m.unprepared(collection)
	}
	return m.config.Schema, t.name, nil
}

// Edited is a row that somebody seems to have changed by hand.
type Edited struct {
	ID  string
	Raw bool // in _raw or _fingerprint: they do not belong together
}

// Edited looks through up to limit rows after an id for those whose columns are not
// what _raw says, or whose _raw is not what the fingerprint was made of. It returns
// them, how many rows it has seen, and where to go on; "" at the end. It changes
// nothing. A few rows are in order all the same, since jsonb writes numbers in its own
// way: [Mirror.Compare] with the API's record tells.
func (m *Mirror) Edited(ctx context.Context, collection, afterID string, limit int) (edited []Edited, seen int, next string, err error) {
	err = m.looking(ctx, collection, func(tx pgx.Tx, t *table) (err error) {
		edited, seen, next, err = m.editedIn(ctx, tx, t, afterID, limit)
		return err
	})
	return edited, seen, next, err
}

// looking runs something in one transaction that sees one state of the table and
// cannot write. t has the columns that are filled.
func (m *Mirror) looking(ctx context.Context, collection string, look func(pgx.Tx, *table) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	t, ok := m.table(collection)
	if !ok {
		m.leave()
		return m.unprepared(collection)
	}
	part := t.only(filledColumn)
	part.plan.Store(t.plan.Load())
	m.leave()
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	if err := pgx.BeginTxFunc(ctx, m.pool, options, func(tx pgx.Tx) error { return look(tx, part) }); err != nil {
		return fmt.Errorf("check %s of sync %q: %w", collection, m.config.Name, passing(err))
	}
	return nil
}

func (m *Mirror) editedIn(ctx context.Context, tx pgx.Tx, t *table, afterID string, limit int) (edited []Edited, seen int, next string, err error) {
	condition, parameters := "", []any{limit, "%" + trimmedNote + "%"}
	if afterID != "" {
		condition, parameters = "WHERE id > $3::text::"+t.idType, append(parameters, afterID)
	}
	relation := pgdb.QuoteIdent(m.config.Schema, t.name)
	rows, err := tx.Query(ctx, fmt.Sprintf(`
		SELECT id::text, _raw::text, _fingerprint, coalesce(_notes::text LIKE $2::text, false)
		FROM %s %s
		ORDER BY %s.id
		LIMIT $1::int`, relation, condition, pgdb.QuoteIdent(t.name)), parameters...)
	if err != nil {
		return nil, 0, "", err
	}
	var raw *string
	var print []byte
	var trimmed bool
	form, c := &canon{}, newCells(t, 1)
	_, err = pgx.ForEachRow(rows, []any{&next, &raw, &print, &trimmed}, func() error {
		seen++
		p, _, err := form.print([]byte(value(raw)), t.plan.Load())
		switch {
		case raw == nil, err != nil, string(p[:]) != string(print):
			edited = append(edited, Edited{ID: next, Raw: true})
		case !trimmed:
			c.add(next, []byte(*raw))
		}
		return nil
	})
	if err != nil {
		return nil, 0, "", err
	}
	ids, err := m.strays(ctx, tx, c)
	for _, id := range ids {
		edited = append(edited, Edited{ID: id})
	}
	if seen < limit {
		next = ""
	}
	return edited, seen, next, err
}

// cells are the values that the columns of some rows should have, by one or several
// readings of the record.
type cells struct {
	t    *table
	ids  [][]byte
	read [][][][]byte // by reading, column, row
}

func newCells(t *table, readings int) *cells {
	c := &cells{t: t, read: make([][][][]byte, readings)}
	for i := range c.read {
		c.read[i] = make([][][]byte, len(t.columns))
	}
	return c
}

func (c *cells) add(id string, readings ...[]byte) {
	c.ids = append(c.ids, []byte(id))
	for i, data := range readings {
		values, _ := c.t.values(data, map[string]source.Type{})
		for j, v := range values {
			c.read[i][j] = append(c.read[i][j], v)
		}
	}
}

// strays returns the ids of the rows that have a column which is what none of the
// readings says.
func (m *Mirror) strays(ctx context.Context, tx pgx.Tx, c *cells) (ids []string, err error) {
	if len(c.ids) == 0 || len(c.t.columns) == 0 {
		return nil, nil
	}
	parameters := [][]byte{appendArray(nil, c.ids)}
	arrays, aliases := []string{"$1::text[]"}, []string{"id"}
	wrong := make([]string, len(c.t.columns))
	for i, column := range c.t.columns {
		var all []string
		for k := range c.read {
			parameters = append(parameters, appendArray(nil, c.read[k][i]))
			alias := fmt.Sprintf("c%d_%d", i, k)
			arrays, aliases = append(arrays, fmt.Sprintf("$%d::text[]", len(parameters))), append(aliases, alias)
			all = append(all, fmt.Sprintf("t.%s IS DISTINCT FROM d.%s::%s", pgdb.QuoteIdent(column.name), alias, sqlType(column.typ)))
		}
		wrong[i] = "(" + strings.Join(all, " AND ") + ")"
	}
	sql := fmt.Sprintf("SELECT t.id::text FROM %s AS t JOIN unnest(%s) AS d(%s) ON t.id = d.id::%s WHERE %s",
		pgdb.QuoteIdent(m.config.Schema, c.t.name), strings.Join(arrays, ", "), strings.Join(aliases, ", "), c.t.idType, strings.Join(wrong, " OR "))
	result := tx.Conn().PgConn().ExecParams(ctx, sql, parameters, nil, nil, nil).Read()
	for _, row := range result.Rows {
		ids = append(ids, string(row[0]))
	}
	return ids, result.Err
}

// Compared is how one record's row stands to it.
type Compared struct {
	Row    Row  // what the mirror has; zero if it has nothing
	There  bool // it has a row
	Equal  bool // the row is what the record says; for a deleted record: there is none
	Edited bool // it would be but for what somebody changed by hand
	Parked bool // the table has refused a record of that id; see lockstep.sync_parked
}

// Compare compares whole records of one collection with their rows, in the records'
// order. It changes nothing.
func (m *Mirror) Compare(ctx context.Context, collection string, records []source.Record) ([]Compared, error) {
	all := make([]Compared, len(records))
	err := m.looking(ctx, collection, func(tx pgx.Tx, t *table) error {
		r := &comparison{m: m, tx: tx, t: t, all: all, byID: map[string][]int{}}
		form := &canon{}
		for i, record := range records {
			r.readings = append(r.readings, newReading(record, time.Time{}, t.plan.Load(), form))
			r.byID[r.readings[i].id] = append(r.byID[r.readings[i].id], i)
		}
		return r.run(ctx)
	})
	return all, err
}

type comparison struct {
	m        *Mirror
	tx       pgx.Tx
	t        *table
	readings []*reading
	all      []Compared
	byID     map[string][]int // by id, the places of its records
	odd      []int            // whose _raw is not what the fingerprint was made of, at first sight
	raws     map[int][]byte
	trimmed  map[int]bool
}

func (r *comparison) run(ctx context.Context) error {
	if err := r.rows(ctx); err != nil {
		return err
	}
	if err := r.normalise(ctx); err != nil {
		return err
	}
	c := newCells(r.t, 2)
	for i, d := range r.all {
		if d.Equal && d.There && !r.trimmed[i] {
			c.add(r.readings[i].id, r.raws[i], r.readings[i].data)
		}
	}
	strays, err := r.m.strays(ctx, r.tx, c)
	for _, id := range strays {
		for _, i := range r.byID[id] {
			r.edited(i)
		}
	}
	if err != nil {
		return err
	}
	return r.parked(ctx)
}

// edited notes a record whose row would be equal.
func (r *comparison) edited(i int) {
	if r.all[i].Equal {
		r.all[i].Equal, r.all[i].Edited = false, true
	}
}

// rows reads what there is.
func (r *comparison) rows(ctx context.Context) error {
	var ids []string
	for i, n := range r.readings {
		r.all[i].Equal = n.origin.Deleted
		if n.id != "" && len(n.id) <= longestID && r.t.fits(n.id) == "" {
			ids = append(ids, n.id)
		}
	}
	rows, err := r.tx.Query(ctx, fmt.Sprintf(`
		SELECT id::text, _updated_at, _synced_at, _fingerprint, _raw::text, coalesce(_notes::text LIKE $2::text, false)
		FROM %s
		WHERE id = ANY ($1::text[]::%s[])`, pgdb.QuoteIdent(r.m.config.Schema, r.t.name), r.t.idType), ids, "%"+trimmedNote+"%")
	if err != nil {
		return err
	}
	r.raws, r.trimmed = map[int][]byte{}, map[int]bool{}
	form := &canon{}
	var id string
	var version, synced *time.Time
	var print []byte
	var raw *string
	var trimmed bool
	_, err = pgx.ForEachRow(rows, []any{&id, &version, &synced, &print, &raw, &trimmed}, func() error {
		row := Row{ID: id, Version: value(version).UTC(), SyncedAt: value(synced).UTC()}
		copy(row.Fingerprint[:], print)
		p, _, failed := form.print([]byte(value(raw)), r.t.plan.Load())
		for _, i := range r.byID[id] {
			n := r.readings[i]
			r.all[i].Row, r.all[i].There = row, true
			r.all[i].Equal = !n.origin.Deleted && n.bad == "" && len(print) == len(n.print) && n.print == row.Fingerprint
			r.raws[i], r.trimmed[i] = []byte(value(raw)), trimmed
			switch {
			case raw == nil:
				r.edited(i)
			case failed != nil || p != row.Fingerprint:
				r.odd = append(r.odd, i)
			}
		}
		return nil
	})
	return err
}

// normalise compares _raw with the record where the two write it in different ways,
// as jsonb does with numbers: in jsonb's way.
func (r *comparison) normalise(ctx context.Context) error {
	var places []int
	var data []string
	for _, i := range r.odd {
		if r.all[i].Equal {
			places, data = append(places, i), append(data, string(r.readings[i].data))
		}
	}
	if len(places) == 0 {
		return nil
	}
	rows, err := r.tx.Query(ctx, "SELECT d.data::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS d(data, n) ORDER BY d.n", data)
	if err != nil {
		return err
	}
	form := &canon{}
	var text string
	_, err = pgx.ForEachRow(rows, []any{&text}, func() error {
		i := places[0]
		places = places[1:]
		theirs, _, failed := form.print([]byte(text), r.t.plan.Load())
		mine, _, failedToo := form.print(r.raws[i], r.t.plan.Load())
		if failed != nil || failedToo != nil || theirs != mine {
			r.edited(i)
		}
		return nil
	})
	return err
}

// parked says which of the ids the table has refused a record of.
func (r *comparison) parked(ctx context.Context) error {
	const query = `
		SELECT id
		FROM lockstep.sync_parked
		WHERE sync_id = $1::uuid AND collection = $2::text AND id = ANY ($3::text[])`
	byKey := map[string]string{}
	for i, n := range r.readings {
		if !r.all[i].Equal {
			byKey[parkedKey(n.id)] = n.id
		}
	}
	if len(byKey) == 0 {
		return nil
	}
	keys := make([]string, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	rows, err := r.tx.Query(ctx, query, r.m.id, r.t.collection.Name, keys)
	if err != nil {
		return err
	}
	var key string
	_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
		for _, i := range r.byID[byKey[key]] {
			r.all[i].Parked = true
		}
		return nil
	})
	return err
}
