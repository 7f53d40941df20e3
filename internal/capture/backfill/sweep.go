package backfill

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
	"lockstep/internal/obs"
)

// sweep finds the keys that the log knew before the gaps and has no word of since:
// candidates for a delete. It reads the log once for each part of the keys that
// fits into memory.
type sweep struct {
	log      Log
	memory   int
	to       uint64 // the end of the log when it began
	byOID    map[uint32]int
	byName   map[string]int
	usable   []bool // tables of which deletes can be told
	seed     maphash.Seed
	todo     []part
	complete bool
	done     bool

	part  part
	next  uint64 // of the log; 0: the part is not begun
	size  int
	keys  map[string]uint64 // table and key → seq of the last change that says it is there
	gapAt []uint64          // by table: where the last gap began; 0: there was none
	cutAt []uint64          // by table: the last TRUNCATE
	gone  map[int][]string  // candidates that are to be looked at, by table
}

// part is the keys whose hash leaves the rest when divided.
type part struct{ divisor, rest uint64 }

// entrySize is what a key takes beside its bytes.
const entrySize = 64

// scanTime is how long a turn of a sweep reads.
const scanTime = 200 * time.Millisecond

func newSweep(rec *Record, log Log, memory int) *sweep {
	s := &sweep{
		log: log, memory: memory, to: log.Last().Seq, seed: maphash.MakeSeed(),
		byOID: map[uint32]int{}, byName: map[string]int{}, usable: make([]bool, len(rec.Places)),
		todo: []part{{1, 0}}, complete: log.First() == 1,
	}
	for i, at := range rec.Places {
		s.byOID[at.OID], s.byName[at.Schema+"\x00"+at.Name] = i, i
		s.usable[i] = rec.Tables[i].State == Completed
	}
	return s
}

// sweepOn does one turn of the sweep: some of the log, or one page of deletes.
func (r *Runner) sweepOn(ctx context.Context, j *job, source *Source) error {
	s := j.sweep
	for at, keys := range s.gone {
		return r.deletes(ctx, j, source, at, keys)
	}
	if s.next == 0 && len(s.todo) == 0 {
		s.done = true
		return nil
	}
	if s.next == 0 {
		s.part, s.todo = s.todo[len(s.todo)-1], s.todo[:len(s.todo)-1]
		s.begin()
	}
	if err := s.read(ctx); err != nil {
		return err
	}
	if s.next > s.to {
		s.collect()
	}
	return nil
}

func (s *sweep) begin() {
	s.next, s.size = max(s.log.First(), 1), 0
	s.complete = s.complete && s.next == 1
	s.keys = map[string]uint64{}
	s.gapAt, s.cutAt = make([]uint64, len(s.usable)), make([]uint64, len(s.usable))
}

// read reads the log for a while.
func (s *sweep) read(ctx context.Context) error {
	reader := s.log.Reader(s.next)
	defer reader.Close()
	for until := time.Now().Add(scanTime); s.next <= s.to && time.Now().Before(until); {
		batch, err := reader.Next(ctx)
		var gone *lockstep.RetentionError
		var damaged *DamageError
		switch {
		case errors.As(err, &gone):
			// What was read before is known still; what went by unread is not, and it
			// may have been the last word of a key.
			s.begin()
			s.complete = false
			return nil
		case errors.As(err, &damaged):
			s.complete = false
			s.next = damaged.Last + 1
			reader.Seek(s.next)
			continue
		case err != nil:
			return fmt.Errorf("look for deleted keys in the stream: %w", err)
		}
		s.look(batch)
		s.next = batch.Mark.Seq + 1
	}
	return nil
}

// look takes in a batch.
func (s *sweep) look(b *lockstep.Batch) {
	tables := b.Tables()
	places := make([]int, len(tables))
	for i := range tables {
		places[i] = s.place(&tables[i])
	}
	for i := range b.Len() {
		record := b.Record(i)
		at := places[record.TableNumber()]
		if record.Seq() < s.next || at == notOurs {
			continue
		}
		if record.Action().Whole() {
			s.whole(record, at)
			continue
		}
		if at >= 0 && s.usable[at] {
			s.row(record, at)
		}
	}
	if s.size > s.memory && len(s.keys) > 1 {
		s.split()
	}
}

// What place returns beside the places of tables.
const (
	everyTable = -1
	notOurs    = -2
)

func (s *sweep) place(t *lockstep.Table) int {
	if t.OID == 0 && t.Name == "" {
		return everyTable
	}
	if at, ok := s.byOID[t.OID]; ok {
		return at
	}
	if at, ok := s.byName[t.Schema+"\x00"+t.Name]; ok {
		return at
	}
	return notOurs
}

// whole takes in what concerns a whole table.
func (s *sweep) whole(record lockstep.Record, at int) {
	first, end := at, at+1
	if at == everyTable {
		first, end = 0, len(s.usable)
	}
	for i := first; i < end; i++ {
		switch {
		case record.Action() == lockstep.Truncate:
			s.cutAt[i] = record.Seq()
		case !bytes.Contains(record.Extra(), []byte(`"gap":{"state":"end"`)):
			// The latest counts: everything that is there was read since.
			s.gapAt[i] = record.Seq()
		}
	}
}

func (s *sweep) row(record lockstep.Record, at int) {
	if record.Table().Consumer != "" && s.gapAt[at] != 0 {
		return // the others have not heard of it
	}
	key := string(append(binary.AppendUvarint(nil, uint64(at)), record.PKs()...))
	if maphash.String(s.seed, key)%s.part.divisor != s.part.rest {
		return
	}
	_, known := s.keys[key]
	switch {
	case record.Action() != lockstep.Delete:
		s.keys[key] = record.Seq()
		if !known {
			s.size += len(key) + entrySize
		}
	case known:
		delete(s.keys, key)
		s.size -= len(key) + entrySize
	}
}

// split goes on with half of the keys; the others are for another reading.
func (s *sweep) split() {
	half := part{2 * s.part.divisor, s.part.rest}
	s.todo = append(s.todo, part{half.divisor, half.rest + s.part.divisor})
	s.part = half
	kept := make(map[string]uint64, len(s.keys)/2)
	s.size = 0
	for key, seq := range s.keys {
		if maphash.String(s.seed, key)%half.divisor == half.rest {
			kept[key] = seq
			s.size += len(key) + entrySize
		}
	}
	s.keys = kept
}

// collect ends a part: what is left with a last word from before its table's gap.
func (s *sweep) collect() {
	s.gone = map[int][]string{}
	for key, seq := range s.keys {
		table, n := binary.Uvarint([]byte(key))
		if at := int(table); seq < s.gapAt[at] && seq > s.cutAt[at] {
			s.gone[at] = append(s.gone[at], key[n:])
		}
	}
	s.keys, s.next = nil, 0
}

// take removes the keys that have been seen to from the candidates.
func (s *sweep) take(at, n int) {
	s.gone[at] = s.gone[at][n:]
	if len(s.gone[at]) == 0 {
		delete(s.gone, at)
	}
}

// deletes puts one page of deletes into the log, of those candidates that are not in
// the table.
func (r *Runner) deletes(ctx context.Context, j *job, source *Source, at int, all []string) error {
	p := &reading{r: r, job: j, source: source, at: at}
	all = all[:min(len(all), r.tune.sweepPage)]
	err := p.prepare(ctx)
	var result wal.Interleaved
	if err == nil {
		result, err = source.Capture.Interleave(ctx, j.rec.Places[at].OID, func(ctx context.Context, low uint64) (wal.Page, error) {
			page, err := p.missingKeys(ctx, low, all)
			p.fault = err
			return page, err
		})
		if p.fault != nil && err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
			err = p.fault
		}
	}
	if err != nil && !errors.Is(err, errNothing) {
		if ctx.Err() != nil {
			return err
		}
		if err := p.failed(ctx, err); err != nil {
			return err
		}
		// Its deletes cannot be told.
		delete(j.sweep.gone, at)
		j.sweep.usable[at] = false
		return nil
	}
	j.sweep.take(at, len(all))
	before := uint64(0)
	if j.scan != nil {
		before = j.scan.deletes
	}
	j.scan = nil
	j.change(func(rec *Record) {
		rec.Deletes += before + uint64(result.Written)
		rec.Seq = max(rec.Seq, p.low, result.Seq)
	})
	return r.save(ctx, j)
}

// missingKeys makes a page of those keys that are not in the table.
func (p *reading) missingKeys(ctx context.Context, low uint64, all []string) (wal.Page, error) {
	p.low = low
	j := p.job
	sent := map[string]bool{}
	if j.unsure {
		if err := j.scan.through(ctx, p.source.Log, low); err != nil {
			return wal.Page{}, err
		}
		if f := j.scan.tables[p.at]; f != nil {
			sent = f.deleted
		}
		j.unsure = false
	}
	p.aim()
	keys := map[string][][]byte{}
	for _, text := range all {
		key, ok := parseKey(text, len(p.state.KeyColumns))
		if !ok {
			j.sweep.complete = false // it had another key then
			p.r.log.DebugContext(ctx, "a key of another time is passed over", j.rec.attrs(obs.KeyTable, j.rec.Tables[p.at].Name)...)
			continue
		}
		if !sent[text] {
			keys[text] = key
			p.slice.these = append(p.slice.these, key)
		}
	}
	if len(p.slice.these) == 0 {
		return wal.Page{}, errNothing
	}
	p.slice.keysOnly = true
	found, err := p.slice.read(ctx, p.source.Pool)
	if err != nil {
		return wal.Page{}, err
	}
	p.rows = found
	if err := p.check(); err != nil {
		return wal.Page{}, err
	}
	for i := range found.count {
		delete(keys, pkeys(found.row(i)))
	}
	if len(keys) == 0 {
		return wal.Page{}, errNothing
	}
	return p.deletePage(keys), nil
}

func (p *reading) deletePage(keys map[string][][]byte) wal.Page {
	s := p.rows.shape
	columns := make([]publish.Column, len(s.key))
	for i, k := range s.key {
		columns[i] = s.columns[k.place]
	}
	page := wal.Page{
		Table: publish.TableMessage{
			OID: p.state.OID, Schema: s.schema, Name: s.name, KeyKind: p.state.Key.String(), Identity: p.state.Identity,
			Columns: columns, KeyColumns: p.state.KeyColumns,
		},
		Progress: progressOf(p.job.rec.ID, pageDeletes, p.at),
		Extra:    extraOf(p.job.rec.ID),
		Action:   lockstep.Delete,
	}
	for _, key := range keys {
		page.Values = append(page.Values, key...)
	}
	return page
}
