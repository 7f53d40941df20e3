package backfill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
)

var (
	// errNothing: a page without rows needs no place in the log.
	errNothing  = errors.New("the page has no rows")
	errIdentity = errors.New("its replica identity is another one than when it was looked at")
)

const keyChanged = "its key was changed while it was being read, so that what was read and what was not cannot be told apart: start a new backfill"

// reading is one page on its way.
type reading struct {
	r      *Runner
	job    *job
	source *Source
	to     *Consumer
	at     int
	state  publish.TableState

	low   uint64
	slice slice
	rows  *rows
	sent  []int // rows of the page, by their index in rows; nil: all of them
	fault error // why there is no page; it survives what capture makes of it
}

func (j *job) setSlow(t time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.slow = t
}

// prepare does what needs no place between the changes.
func (p *reading) prepare(ctx context.Context) error {
	j := p.job
	if err := p.describe(ctx); err != nil {
		return err
	}
	if !j.unsure {
		return nil
	}
	if j.scan == nil {
		j.scan = newScan(j.rec.ID, j.rec.Seq+1)
	}
	return j.scan.through(ctx, p.source.Log, p.source.Log.Last().Seq)
}

// describe finds what the survey said of the table.
func (p *reading) describe(ctx context.Context) error {
	j, oid := p.job, p.job.rec.Places[p.at].OID
	if j.tables == nil {
		states, err := survey(ctx, p.source)
		if err != nil {
			return err
		}
		j.tables = make(map[uint32]publish.TableState, len(states))
		for _, t := range states {
			j.tables[t.OID] = t
		}
	}
	t, ok := j.tables[oid]
	if !ok {
		return p.missing(ctx, oid)
	}
	if reason := unreadable(t); reason != "" {
		return &tableError{reason}
	}
	p.state = t
	return nil
}

// missing says why a table is not among the captured ones any more.
func (p *reading) missing(ctx context.Context, oid uint32) error {
	const query = `
SELECT c.oid::regclass::text
FROM pg_catalog.pg_class c
WHERE c.oid = $1::oid`
	rows, err := p.source.Pool.Query(ctx, query, oid)
	if err != nil {
		return err
	}
	defer rows.Close()
	name := ""
	for rows.Next() {
		if err := rows.Scan(&name); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if name == "" {
		return explain(p.job.rec.Tables[p.at].Name, errDropped)
	}
	return &tableError{"it is now " + name + ", which is not captured by itself: add it to tables of the database in the configuration, or start a new backfill of the table that it is a part of"}
}

// fill reads the rows of the page; none are errNothing.
func (p *reading) fill(ctx context.Context) (wal.Page, error) {
	found, err := p.slice.read(ctx, p.source.Pool)
	if err != nil {
		return wal.Page{}, err
	}
	p.rows = found
	if err := p.check(); err != nil {
		return wal.Page{}, err
	}
	values := p.take()
	if len(values) == 0 {
		return wal.Page{}, errNothing
	}
	return p.page(values), nil
}

// locate finds where in the table the job is. What is in the log up to the low
// watermark is all that ever will be of earlier pages.
func (p *reading) locate(ctx context.Context) error {
	j := p.job
	if j.unsure {
		if err := j.scan.through(ctx, p.source.Log, p.low); err != nil {
			return err
		}
		j.work, j.unsure = nil, false
	}
	if j.work == nil || j.work.table != p.at {
		j.work = j.resumed(p.at, len(p.state.KeyColumns))
	}
	if j.rec.Places[p.at].Key == "" && j.work.looked == 0 {
		j.work.looked = p.low // what lies before is in the rows
	}
	return nil
}

// resumed is the work on a table as the record and the log have it.
func (j *job) resumed(at, keys int) *work {
	place := &j.rec.Places[at]
	w := &work{table: at, cursor: place.Cursor, again: place.Again, done: place.Done, looked: place.Looked, look: true}
	if j.scan == nil || j.scan.tables[at] == nil {
		return w
	}
	f := j.scan.tables[at]
	w.rows = uint64(len(f.rows) + len(f.again))
	w.again = without(w.again, f.again)
	if until, ok := parseKey(f.last, keys); ok {
		w.replay = &replay{sent: f.rows, until: until}
	}
	return w
}

// without returns those keys that are not in the set.
func without(keys [][][]byte, gone map[string]bool) [][][]byte {
	var rest [][][]byte
	for _, k := range keys {
		if !gone[pkeys(k)] {
			rest = append(rest, k)
		}
	}
	return rest
}

// mostAgain is how many rows are read again at a time.
const mostAgain = 200

// aim says what to read rows of.
func (p *reading) aim() {
	p.slice = slice{
		oid: p.state.OID, schema: p.state.Schema, name: p.state.Name, keys: p.state.KeyColumns,
		publication: p.source.Publication, where: p.job.rec.Where, limit: p.job.pace.limit,
	}
}

// choose says which rows to read; false: there are none.
func (p *reading) choose() bool {
	w := p.job.work
	p.aim()
	switch {
	case w.replay != nil:
		p.slice.after, p.slice.until = w.cursor, w.replay.until
	case len(w.again) > 0:
		p.slice.these = w.again[:min(len(w.again), mostAgain)]
	case w.done:
		return false
	default:
		p.slice.after = w.cursor
	}
	return true
}

// check compares what was read with what the job began with.
func (p *reading) check() error {
	s, t := p.rows.shape, &p.state
	if t.Kind == "table" && t.Class == publish.Full && string(s.identity) != t.Identity {
		return errIdentity
	}
	if began := p.job.rec.Places[p.at].Key; began != "" && began != s.fingerprint(t.Key.String()) {
		return &tableError{keyChanged}
	}
	if !p.job.rec.Gap && !p.to.selects(s.schema, s.name) {
		return &tableError{"it is now " + s.schema + "." + s.name + ", which the consumer does not select: add it to the consumer's tables and start a new backfill"}
	}
	return nil
}

// take returns the values of the rows to be sent.
func (p *reading) take() [][]byte {
	rows, replay := p.rows, p.job.work.replay
	if replay == nil {
		return rows.values
	}
	p.sent = make([]int, 0, rows.count)
	var values [][]byte
	for i := range rows.count {
		if row := rows.row(i); !replay.sent[pkeys(rows.shape.keyOfRow(row))] {
			p.sent = append(p.sent, i)
			values = append(values, row...)
		}
	}
	return values
}

func (p *reading) page(values [][]byte) wal.Page {
	s, kind := p.rows.shape, pageRows
	if p.slice.these != nil {
		kind = pageAgain
	}
	return wal.Page{
		Table: publish.TableMessage{
			OID: p.state.OID, Schema: s.schema, Name: s.name, KeyKind: p.state.Key.String(), Identity: p.state.Identity,
			Columns: s.columns, KeyColumns: p.state.KeyColumns,
		},
		Consumer: p.job.rec.ConsumerID,
		Progress: progressOf(p.job.rec.ID, kind, p.at),
		Extra:    extraOf(p.job.rec.ID),
		Action:   lockstep.Read,
		Snapshot: p.rows.snapshot,
		Values:   values,
	}
}

// extraOf is what each row's metadata tells of the backfill.
func extraOf(id string) string { return `,"backfill":{"id":"` + id + `"}` }

// learn sets the size of the next page.
func (p *reading) learn() {
	j, rows := p.job, p.rows
	j.pace.took(rows.count, rows.bytes, rows.took)
	if p.slice.these != nil || rows.cut && j.pace.limit > rows.count {
		j.pace.limit = max(min(j.pace.limit, rows.count), 1)
	}
}

// apply notes what a page has come to.
func (p *reading) apply(result wal.Interleaved) {
	w, rows := p.job.work, p.rows
	w.rows += uint64(result.Written)
	w.overridden += uint64(result.Overridden)
	var again [][][]byte
	for _, i := range result.Again {
		if p.sent != nil {
			i = p.sent[i]
		}
		again = append(again, cloneKey(rows.shape.keyOfRow(rows.row(i))))
	}
	if p.slice.these != nil {
		p.reread(again)
	} else {
		p.advance(again)
	}
	if w.replay == nil { // only the end of the replay says that the record may forget the log
		p.commit(max(result.Seq, p.low))
	}
}

// cloneKey copies a key out of the memory of its page.
func cloneKey(key [][]byte) [][]byte {
	c := make([][]byte, len(key))
	for i, v := range key {
		c[i] = bytes.Clone(v)
	}
	return c
}

// advance moves the cursor behind a page.
func (p *reading) advance(again [][][]byte) {
	w, rows := p.job.work, p.rows
	w.again = append(w.again, again...)
	if rows.last != nil {
		w.cursor = rows.last
	}
	switch {
	case !rows.end:
	case w.replay != nil:
		w.cursor, w.replay = w.replay.until, nil
	default:
		w.done = true
	}
}

// reread takes what was read again off the list.
func (p *reading) reread(again [][][]byte) {
	w, rows := p.job.work, p.rows
	asked := p.slice.these
	w.look = w.look || rows.count < len(asked) // a key may have changed once more
	if rows.cut {                              // the others were not come to, or are gone: ask once more
		got := map[string]bool{}
		for i := range rows.count {
			got[pkeys(rows.shape.keyOfRow(rows.row(i)))] = true
		}
		again = append(again, without(asked, got)...)
	}
	w.again = append(append([][][]byte{}, w.again[len(asked):]...), again...)
	w.tries++
	if len(again) == 0 {
		w.tries = 0
	}
	p.job.next = time.Now().Add(min(time.Duration(w.tries)*10*time.Millisecond, time.Second))
}

// commit puts the work into the record.
func (p *reading) commit(seq uint64) {
	j, w := p.job, p.job.work
	note := ""
	if w.tries > p.r.tune.rereads && len(w.again) > 0 {
		note = fmt.Sprintf("%d rows changed again and again while they were read, without values that are stored out of line: ALTER TABLE … REPLICA IDENTITY FULL sends these with each change", len(w.again))
		w.again, w.tries = nil, 0
	}
	s := p.rows.shape
	j.change(func(rec *Record) {
		place, t := &rec.Places[p.at], &rec.Tables[p.at]
		place.Schema, place.Name, t.Name = s.schema, s.name, s.schema+"."+s.name
		place.Key = s.fingerprint(p.state.Key.String())
		place.Cursor, place.Again, place.Done, place.Looked = w.cursor, w.again, w.done, w.looked
		t.State, t.Rows = Running, t.Rows+w.rows
		if note != "" {
			t.Reason = note
		}
		rec.Rows, rec.Overridden, rec.Seq = rec.Rows+w.rows, rec.Overridden+w.overridden, max(rec.Seq, seq)
	}, p.at)
	w.rows, w.overridden = 0, 0
	j.scan = nil
}

// failed sorts the errors of a page.
func (p *reading) failed(ctx context.Context, err error) error {
	j, name := p.job, p.job.rec.Tables[p.at].Name
	var table *tableError
	switch {
	case errors.As(err, &table):
		return p.r.failTable(ctx, j, p.at, table.reason)
	case errors.Is(err, errDropped):
		return p.r.failTable(ctx, j, p.at, explain(name, errDropped).Error())
	case errors.Is(err, errNoKey):
		return p.r.failTable(ctx, j, p.at, keyChanged)
	case errors.Is(err, errMoved) || errors.Is(err, errIdentity):
		j.tables = nil
		return &waitError{"table " + name + " is being altered", err}
	case errors.Is(err, lockstep.ErrInvalid):
		return p.r.failTable(ctx, j, p.at, err.Error())
	case errors.Is(err, lockstep.ErrUnavailable):
		return &waitError{"waits for capture: " + err.Error(), err}
	case sqlState(err) == stateCancelled && !j.pace.tooLong() && j.tries > 5:
		return p.r.failTable(ctx, j, p.at, fmt.Sprintf("one row of its key's order is not found within %s: is the index of its key in order, and can the condition be told quickly?", statementTimeout))
	}
	err = explain(name, err)
	if errors.As(err, &table) {
		return p.r.failTable(ctx, j, p.at, table.reason)
	}
	return err
}
