package mirror

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// deed is what must be done about one id.
type deed struct {
	*stand
	id string
	// row is what now.row shall be; nil until it is needed: rows of a COPY are made
	// while Postgres works on those before.
	row *row
}

// rowOf makes the row, if it has not been made.
func (b *brew) rowOf(g *group, d *deed) *row {
	if d.row == nil {
		d.row = g.t.encode(b.m.id, d.winner, g.wanted)
	}
	return d.row
}

// write brings the table to what was decided, in as few statements as there are
// kinds of deeds: deletions first, so that what is unique is free for others.
func (b *brew) write(ctx context.Context, g *group) error {
	var removals, updates, inserts []deed
	for _, id := range g.ids {
		s := g.stands[id]
		if s.winner == nil {
			continue
		}
		d := deed{stand: s, id: id}
		switch {
		case !s.now.row:
			removals = append(removals, d)
		case s.before.row:
			updates = append(updates, d)
		default:
			inserts = append(inserts, d)
		}
	}
	var done []deed
	for _, step := range []struct {
		deeds []deed
		do    func(context.Context, *group, []deed) error
	}{{removals, b.remove}, {updates, b.update}, {inserts, b.insert}} {
		taken, err := b.step(ctx, g, step.deeds, step.do)
		if err != nil {
			return err
		}
		done = append(done, taken...)
	}
	for _, d := range done {
		b.count(d)
	}
	if err := b.bury(ctx, g, done); err != nil {
		return err
	}
	if err := b.unpark(ctx, g, done); err != nil {
		return err
	}
	return b.parkBad(ctx, g)
}

// count counts a deed that was done.
func (b *brew) count(d deed) {
	switch {
	case !d.now.row && d.before.row:
		b.result.Deleted++
	case !d.now.row:
		b.result.Unchanged++ // only the tombstone is new
	case d.before.row:
		b.result.Updated++
	case d.before.dead:
		b.result.Resurrected++
	default:
		b.result.Inserted++
	}
	if d.now.row {
		b.result.Noted += d.row.noted
	}
}

// step does deeds at once, or carefully: see [brew.halve].
func (b *brew) step(ctx context.Context, g *group, deeds []deed, do func(context.Context, *group, []deed) error) (done []deed, err error) {
	switch {
	case len(deeds) == 0:
		return nil, nil
	case b.manner != brisk:
		return b.halve(ctx, g, deeds, do)
	}
	return deeds, do(ctx, g, deeds)
}

// query runs a statement with parameters in Postgres' text form, and returns how
// many rows it has written.
func (b *brew) query(ctx context.Context, sql string, parameters ...[]byte) (rows int64, err error) {
	result := b.conn.PgConn().ExecParams(ctx, sql, parameters, nil, nil, nil).Read()
	return result.CommandTag.RowsAffected(), result.Err
}

func (b *brew) remove(ctx context.Context, g *group, deeds []deed) error {
	var ids [][]byte
	for _, d := range deeds {
		if d.before.row {
			ids = append(ids, []byte(d.id))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := b.query(ctx, g.t.sql.remove, appendArray(nil, ids)) // those gone meanwhile are gone
	return err
}

func (b *brew) update(ctx context.Context, g *group, deeds []deed) error {
	columns := make([][]byte, len(b.rowOf(g, &deeds[0]).cells))
	cells := make([][]byte, len(deeds))
	for i := range columns {
		for j := range deeds {
			cells[j] = b.rowOf(g, &deeds[j]).cells[i]
		}
		columns[i] = appendArray(nil, cells)
	}
	n, err := b.query(ctx, g.t.sql.update, columns...)
	if err == nil && n != int64(len(deeds)) {
		return errMoved
	}
	return err
}

func (b *brew) insert(ctx context.Context, g *group, deeds []deed) error {
	_, err := b.conn.PgConn().CopyFrom(ctx, &copyText{b: b, g: g, deeds: deeds}, g.t.sql.insert)
	if refused, ok := asRefusal(err); ok && refused.Code == "23505" && b.manner == brisk {
		return errMoved // perhaps a person's row; if not, the careful way finds out
	}
	return err
}

// copyText is rows in COPY's text format, each made when it is read.
type copyText struct {
	b     *brew
	g     *group
	deeds []deed
	next  int
	text  []byte // of the rows made, what has not been read
	space []byte
}

// Read implements io.Reader.
func (c *copyText) Read(p []byte) (n int, err error) {
	if len(c.text) == 0 {
		c.text = c.space[:0]
		for len(c.text) < len(p) && c.next < len(c.deeds) {
			c.text = appendCopy(c.text, c.b.rowOf(c.g, &c.deeds[c.next]).cells)
			c.next++
		}
		if c.space = c.text; len(c.text) == 0 {
			return 0, io.EOF
		}
	}
	n = copy(p, c.text)
	c.text = c.text[n:]
	return n, nil
}

// appendCopy writes a row in COPY's text format.
func appendCopy(dst []byte, cells [][]byte) []byte {
	for i, c := range cells {
		if i > 0 {
			dst = append(dst, '\t')
		}
		if c == nil {
			dst = append(dst, '\\', 'N')
			continue
		}
		for {
			at := special(c)
			if at < 0 {
				dst = append(dst, c...)
				break
			}
			dst = append(append(dst, c[:at]...), '\\')
			switch c[at] {
			case '\n':
				dst = append(dst, 'n')
			case '\r':
				dst = append(dst, 'r')
			case '\t':
				dst = append(dst, 't')
			default:
				dst = append(dst, '\\')
			}
			c = c[at+1:]
		}
	}
	return append(dst, '\n')
}

// special returns where the first character is that COPY's text format escapes; -1:
// nowhere.
func special(c []byte) int {
	at := -1
	for _, s := range [...]byte{'\\', '\n', '\r', '\t'} {
		if i := bytes.IndexByte(c, s); i >= 0 {
			c, at = c[:i], i
		}
	}
	return at
}

// appendArray writes an array of texts as Postgres reads it.
func appendArray(dst []byte, elements [][]byte) []byte {
	dst = append(dst, '{')
	for i, e := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		if e == nil {
			dst = append(dst, "NULL"...)
			continue
		}
		dst = appendArrayElement(dst, e)
	}
	return append(dst, '}')
}

// bury writes the tombstones of what was deleted, and takes away those of what is
// back.
func (b *brew) bury(ctx context.Context, g *group, done []deed) error {
	const write = `
		INSERT INTO lockstep.tombstone AS t (sync_id, collection, id, version, gone_at, seen_at, reason)
		SELECT $1::uuid, $2::text, *
		FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[])
		ON CONFLICT (sync_id, collection, id) DO UPDATE
		SET version = excluded.version, gone_at = excluded.gone_at, seen_at = excluded.seen_at, reason = excluded.reason`
	const lift = `
		DELETE FROM lockstep.tombstone
		WHERE sync_id = $1::uuid AND collection = $2::text AND id = ANY ($3::text[])`
	var ids, reasons, back []string
	var versions, gone, seen []*time.Time
	for _, d := range done {
		switch {
		case !d.now.row:
			t := d.now.tomb
			ids, reasons = append(ids, d.id), append(reasons, postgresText(t.reason))
			versions, gone, seen = append(versions, nullable(t.version)), append(gone, nullable(t.gone)), append(seen, &t.seen)
		case d.before.dead:
			back = append(back, d.id)
		}
	}
	batch := &pgx.Batch{}
	if len(ids) > 0 {
		batch.Queue(write, b.m.id, g.t.collection.Name, ids, versions, gone, seen, reasons)
	}
	if len(back) > 0 {
		batch.Queue(lift, b.m.id, g.t.collection.Name, back)
	}
	if batch.Len() == 0 {
		return nil
	}
	b.m.tombs[g.t.collection.Name] = true
	return b.conn.SendBatch(ctx, batch).Close()
}

func nullable(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func asRefusal(err error) (*pgconn.PgError, bool) {
	return asType[*pgconn.PgError](err)
}

// unpark forgets the parked records of what was written: they are older.
func (b *brew) unpark(ctx context.Context, g *group, done []deed) error {
	const remove = `
		DELETE FROM lockstep.sync_parked
		WHERE sync_id = $1::uuid AND collection = $2::text AND id = ANY ($3::text[])`
	if !b.m.parked {
		return nil
	}
	var ids []string
	for _, d := range done {
		ids = append(ids, parkedKey(d.id))
	}
	if b.manner == retrying {
		for _, id := range g.ids {
			if g.stands[id].winner == nil { // the mirror has something newer
				ids = append(ids, parkedKey(id))
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := b.conn.Exec(ctx, remove, b.m.id, g.t.collection.Name, ids)
	return err
}

// parkBad parks the records that no row can be made of.
func (b *brew) parkBad(ctx context.Context, g *group) error {
	var bad []parking
	for _, r := range g.readings {
		if reason := firstOf(r.bad, g.t.fits(r.id)); reason != "" {
			bad = append(bad, parking{r, reason})
		}
	}
	slices.SortStableFunc(bad, func(a, b parking) int { return bytes.Compare([]byte(a.reading.id), []byte(b.reading.id)) })
	if len(bad) == 0 {
		return nil
	}
	return b.park(ctx, g, bad, fmt.Sprintf("%d records that no row can be made of, such as: %s", len(bad), bad[0].reason))
}
