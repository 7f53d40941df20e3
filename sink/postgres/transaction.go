package postgres

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/sink"
)

// Types of parameters (pg_type.dat).
const (
	byteaOID uint32 = 17
	int8OID  uint32 = 20
	textOID  uint32 = 25
)

// step is one statement of a transaction.
type step struct {
	sql    string
	params [][]byte
	binary bool
	rows   int // that it should write; 0: it is not counted
	deed   deed
}

// steps makes the statements for rows, one for each target, set of columns, and whether
// they are deleted. Deletes come first: they make room for what is unique.
func steps(rows []row) []step {
	type group struct {
		sign string
		rows []*row
	}
	groups := map[*target]map[string]*group{}
	var order []*group
	var last *group // rows that are alike mostly stand together
	for i := range rows {
		r := &rows[i]
		if last != nil && r.like(last.rows[0]) {
			last.rows = append(last.rows, r)
			continue
		}
		if groups[r.target] == nil {
			groups[r.target] = map[string]*group{}
		}
		sign := r.signature()
		g := groups[r.target][sign]
		if g == nil {
			g = &group{sign: sign}
			groups[r.target][sign] = g
			order = append(order, g)
		}
		g.rows = append(g.rows, r)
		last = g
	}
	slices.SortStableFunc(order, func(a, b *group) int { return -cmp.Compare(a.rows[0].deed, b.rows[0].deed) })
	list := locks(rows)
	for _, g := range order {
		first := g.rows[0]
		columns := make([]int, len(first.cells))
		for i, c := range first.cells {
			columns[i] = c.column
		}
		sql := first.target.statement(g.sign, func() string {
			if first.deed == removed && !first.target.generic {
				return first.target.remove(columns)
			}
			return first.target.upsert(columns, first.deed)
		})
		values := params(g.rows)
		if first.deed == removed && !first.target.generic {
			list = append(list, step{sql: first.target.statement("bury", first.target.bury), params: values[:2], binary: true})
		}
		list = append(list, step{sql: sql, params: values, binary: true, rows: len(g.rows), deed: first.deed})
	}
	return list
}

// locks are the statements that take the targets' locks, always in one order.
func locks(rows []row) []step {
	alone := map[*target]deed{}
	var order []*target
	for _, r := range rows {
		if r.target.generic {
			continue
		}
		if _, ok := alone[r.target]; !ok {
			order = append(order, r.target)
		}
		d := r.deed
		if r.target.guard == GuardTable {
			d = written // the rows of the side table are locked
		}
		alone[r.target] = max(alone[r.target], d)
	}
	slices.SortFunc(order, func(a, b *target) int { return cmp.Compare(a.lock, b.lock) })
	list := make([]step, 0, len(order)+1)
	for _, t := range order {
		list = append(list, step{sql: t.held(alone[t]), params: [][]byte{t.lockText()}})
	}
	return list
}

func (t *target) lockText() []byte { return strconv.AppendInt(nil, int64(int32(t.lock)), 10) }

// params are the arrays of a statement in binary form.
func params(rows []*row) [][]byte {
	hashes, seqs := arrayOf(byteaOID, len(rows), 20*len(rows)), arrayOf(int8OID, len(rows), 12*len(rows))
	for _, r := range rows {
		hashes = appendElement(hashes, r.hash[:])
		seqs = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(seqs, 8), r.seq)
	}
	list := [][]byte{hashes, seqs}
	for i := range rows[0].cells {
		size := 0
		for _, r := range rows {
			size += 4 + len(r.cells[i].text)
		}
		texts := arrayOf(textOID, len(rows), size)
		for _, r := range rows {
			if r.cells[i].null {
				texts = binary.BigEndian.AppendUint32(texts, 1<<32-1)
				continue
			}
			texts = appendElement(texts, r.cells[i].text)
		}
		list = append(list, texts)
	}
	return list
}

// arrayOf begins an array of one dimension; see array_recv.
func arrayOf(oid uint32, n, size int) []byte {
	dst := make([]byte, 0, 20+size)
	for _, word := range []uint32{1, 1, oid, uint32(n), 1} {
		dst = binary.BigEndian.AppendUint32(dst, word)
	}
	return dst
}

func appendElement(dst, text []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(text))), text...)
}

// truncating are the statements of a truncate.
func (t *target) truncating(m *sink.Message) []step {
	seq := strconv.AppendUint(nil, m.Seq, 10)
	list := []step{{sql: t.truncate(), params: [][]byte{seq}}}
	if t.generic {
		list[0].params = append(list[0].params, []byte(m.Schema+"."+m.Table))
		return list
	}
	return slices.Insert(list, 0, step{sql: t.held(removed), params: [][]byte{t.lockText()}})
}

// commit runs the statements in one transaction and one round trip, apart from those
// that are met for the first time, and counts.
func (p *Postgres) commit(ctx context.Context, c *conn, list []step) error {
	batch := &pgconn.Batch{}
	for _, s := range list {
		name, err := c.prepare(ctx, s.sql)
		if err != nil {
			return p.pool.judge(ctx, err, "prepare")
		}
		var formats []int16
		if s.binary {
			formats = []int16{pgconnBinary}
		}
		batch.ExecPrepared(name, s.params, formats, nil)
	}
	results, err := c.ExecBatch(ctx, batch).ReadAll()
	if err != nil {
		return p.pool.judge(ctx, err, "write")
	}
	if len(results) < len(list) {
		return p.pool.refusal(sink.Retry, "write: the connection broke", lockstep.ErrUnavailable)
	}
	for i, s := range list {
		wrote := uint64(results[i].CommandTag.RowsAffected())
		if s.rows == 0 {
			continue
		}
		p.written.Add(wrote)
		if s.deed == written && uint64(s.rows) > wrote {
			p.stale.Add(uint64(s.rows) - wrote)
		}
	}
	return nil
}

const pgconnBinary int16 = 1

// prepare returns the name of a prepared statement; the empty one is prepared anew each
// time, as too many are known already.
func (c *conn) prepare(ctx context.Context, sql string) (string, error) {
	if name, ok := c.prepared[sql]; ok {
		return name, nil
	}
	const most = 512
	if len(c.prepared) >= most {
		if _, err := c.Exec(ctx, "DEALLOCATE ALL").ReadAll(); err != nil {
			return "", err
		}
		clear(c.prepared)
	}
	name := "lockstep_" + strconv.Itoa(len(c.prepared))
	if _, err := c.Prepare(ctx, name, sql, nil); err != nil {
		return "", err
	}
	c.prepared[sql] = name
	return name, nil
}
