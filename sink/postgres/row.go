package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"lockstep"
	"lockstep/sink"
)

// row is what one change makes of one row of a target.
type row struct {
	target *target
	index  int // of the message
	seq    uint64
	hash   [16]byte // of the key
	deed   deed
	cells  []cell // ascending by column; of a deleted row the key's and SoftDelete's
}

// deed is what becomes of a row.
type deed byte

const (
	written deed = '+'
	removed deed = '-'
)

// cell is the text of one value.
type cell struct {
	column int
	null   bool
	text   []byte
}

// encoder makes rows of messages.
type encoder struct {
	p     *Postgres
	arena []byte // texts; what has been handed out is never written again
	slab  []cell // the same for cells
	key   []byte
}

// cells returns room for the cells of one row.
func (e *encoder) cells(n int) []cell {
	if cap(e.slab)-len(e.slab) < n {
		e.slab = make([]cell, 0, max(4096, n))
	}
	begin := len(e.slab)
	e.slab = e.slab[:begin+n]
	return e.slab[begin : begin : begin+n]
}

// row makes the row of a message. Errors are of kind Rejected and hold no data.
func (e *encoder) row(t *target, index int, m *sink.Message) (row, error) {
	r := row{target: t, index: index, seq: m.Seq, deed: written, cells: e.cells(len(t.columns))}
	if m.Action == lockstep.Delete {
		r.deed = removed
	}
	from := m.Record
	if len(from) == 0 || isNull(from) {
		return r, e.rejected(t, "the change carries no record")
	}
	if t.generic {
		var err error
		if from, err = record(m); err != nil {
			return r, e.rejected(t, "the record is no JSON object")
		}
	}
	err := members(from, func(quotedName, v []byte) error { return e.member(t, &r, m, quotedName, v) })
	switch {
	case errors.Is(err, errUnknown):
		return r, err
	case errors.As(err, new(*sink.Error)):
		return r, err
	case err != nil:
		return r, e.rejected(t, "the record is no JSON object")
	}
	if t.gone >= 0 {
		r.cells = append(r.cells, t.mark(r.deed, m.CommitTime))
	}
	r.cells = ordered(r.cells)
	return r, e.hash(t, &r)
}

// errUnknown says that the record has a member for which there is no column.
var errUnknown = errors.New("no such column")

// member adds the cell of one member of the record.
func (e *encoder) member(t *target, r *row, m *sink.Message, quotedName, v []byte) error {
	source := quotedName[1 : len(quotedName)-1]
	if bytes.IndexByte(source, '\\') >= 0 {
		var err error
		if source, err = unquote(quotedName); err != nil {
			return err
		}
	}
	i, ok := t.byName[string(source)]
	switch {
	case !ok && t.unknown(source, v):
		return errUnknown
	case !ok, i == t.gone, r.deed == removed && !t.generic && !slices.Contains(t.key, i):
		return nil
	case isNull(v) && t.columns[i].kind.form == document && !t.generic && slices.Contains(jsonNulls(m.Body), string(source)):
		r.cells = append(r.cells, cell{column: i, text: []byte("null")})
		return nil
	}
	c, err := e.cell(t, i, v)
	r.cells = append(r.cells, c)
	return err
}

// ordered sorts cells; of members that stand twice the last counts, as in jsonb.
func ordered(cells []cell) []cell {
	sorted := true
	for i := 1; i < len(cells) && sorted; i++ {
		sorted = cells[i-1].column < cells[i].column
	}
	if sorted {
		return cells
	}
	slices.SortStableFunc(cells, func(a, b cell) int { return a.column - b.column })
	out := cells[:0]
	for _, c := range cells {
		if n := len(out); n > 0 && out[n-1].column == c.column {
			out[n-1] = c
			continue
		}
		out = append(out, c)
	}
	return out
}

func (e *encoder) cell(t *target, i int, v []byte) (cell, error) {
	if isNull(v) {
		return cell{column: i, null: true}, nil
	}
	begin := len(e.arena)
	var err error
	if e.arena, err = t.columns[i].kind.append(e.arena, v); err != nil {
		return cell{}, e.rejected(t, "column "+quote(t.columns[i].name)+": "+err.Error())
	}
	return cell{column: i, text: e.arena[begin:len(e.arena):len(e.arena)]}, nil
}

// mark is the cell of SoftDelete.
func (t *target) mark(d deed, at time.Time) cell {
	c := cell{column: t.gone}
	switch {
	case t.columns[t.gone].truth && d == removed:
		c.text = []byte("true")
	case t.columns[t.gone].truth:
		c.text = []byte("false")
	case d == removed:
		c.text = at.UTC().AppendFormat(nil, "2006-01-02 15:04:05.000000+00")
	default:
		c.null = true
	}
	return c
}

// hash sets the hash of the key, by which rows are told apart.
func (e *encoder) hash(t *target, r *row) error {
	e.key = e.key[:0]
	for _, k := range t.key {
		at, ok := slices.BinarySearchFunc(r.cells, k, func(c cell, k int) int { return c.column - k })
		if !ok || r.cells[at].null {
			return e.rejected(t, "the record has no value for the key column "+quote(t.columns[k].name))
		}
		e.key = binary.BigEndian.AppendUint64(e.key, uint64(len(r.cells[at].text)))
		e.key = append(e.key, r.cells[at].text...)
	}
	sum := sha256.Sum256(e.key)
	copy(r.hash[:], sum[:])
	return nil
}

func (e *encoder) rejected(t *target, text string) error {
	return e.p.pool.refusal(sink.Rejected, "table "+t.name.String()+": "+text, nil)
}

// jsonNulls returns the columns whose null is JSON's, as the message's metadata has it;
// never nil.
func jsonNulls(body []byte) (list []string) {
	if !bytes.Contains(body, []byte(`"json_null"`)) {
		return list
	}
	if raw := find(find(body, "metadata"), "json_null"); raw != nil {
		_ = json.Unmarshal(raw, &list) // what is no list names nothing
	}
	return list
}

// collapse leaves one row of each key: ON CONFLICT takes no row twice, and the newest
// is what counts. What it does not carry, an older one may.
func collapse(rows []row) (kept []row, merged int) {
	type identity struct {
		target *target
		hash   [16]byte
	}
	at := make(map[identity]int, len(rows))
	for _, r := range rows {
		id := identity{r.target, r.hash}
		i, ok := at[id]
		if !ok {
			at[id] = len(kept)
			kept = append(kept, r)
			continue
		}
		merged++
		old := kept[i]
		if r.seq <= old.seq {
			continue
		}
		if r.deed == written && old.deed == written || r.target.generic {
			r.cells = ordered(append(slices.Clone(old.cells), r.cells...))
		}
		kept[i] = r
	}
	slices.SortFunc(kept, func(a, b row) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return kept, merged
}

// like reports whether one statement writes both rows.
func (r *row) like(other *row) bool {
	return r.target == other.target && r.deed == other.deed && len(r.cells) == len(other.cells) &&
		slices.EqualFunc(r.cells, other.cells, func(a, b cell) bool { return a.column == b.column })
}

// signature tells apart rows that need different statements.
func (r *row) signature() string {
	var b strings.Builder
	b.WriteByte(byte(r.deed))
	for _, c := range r.cells {
		b.WriteRune(rune(c.column))
	}
	return b.String()
}
