package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lockstep"
)

// The kinds of pages, as their progress tells.
const (
	pageRows    = "rows"   // rows along the key
	pageAgain   = "again"  // rows read again
	pageDeletes = "delete" // of a repair
)

// progressOf is what a page of a job notes in the log.
func progressOf(id, kind string, table int) string {
	return id + " " + kind + " " + strconv.Itoa(table)
}

// scan gathers what the log holds of a job's pages. It goes on where it stopped.
type scan struct {
	id      string
	next    uint64         // the next seq to look at
	tables  map[int]*found // by the place of the table in the job
	deletes uint64
	ends    []closingMark
}

// found is what was sent of one table.
type found struct {
	rows  map[string]bool // keys, as pkeys writes them
	last  []byte          // the last one
	again map[string]bool
	// deleted are the keys of deletes.
	deleted map[string]bool
}

func newScan(id string, from uint64) *scan {
	return &scan{id: id, next: from, tables: map[int]*found{}}
}

// through looks at the log up to a seq that is in it.
func (s *scan) through(ctx context.Context, log Log, to uint64) error {
	if s.next > to {
		return nil
	}
	reader := log.Reader(max(s.next, 1))
	defer reader.Close()
	for s.next <= to {
		batch, err := reader.Next(ctx)
		var gone *lockstep.RetentionError
		var damaged *DamageError
		switch {
		case errors.As(err, &gone):
			s.next = gone.First
			reader.Seek(gone.First)
			continue
		case errors.As(err, &damaged):
			s.next = damaged.Last + 1
			reader.Seek(s.next)
			continue
		case err != nil:
			return fmt.Errorf("look for pages in the stream: %w", err)
		}
		s.look(batch)
		s.next = batch.Mark.Seq + 1
	}
	return nil
}

// look notes the pages of the job in a batch.
func (s *scan) look(b *lockstep.Batch) {
	for number, t := range b.Tables() {
		kind, place, ok := s.mine(t.Progress)
		if !ok && t.Progress == "" {
			s.lookForEnds(b, number)
		}
		if !ok {
			continue
		}
		f := s.tables[place]
		if f == nil {
			f = &found{rows: map[string]bool{}, again: map[string]bool{}, deleted: map[string]bool{}}
			s.tables[place] = f
		}
		for _, i := range b.OfTable(number) {
			record := b.Record(int(i))
			switch {
			case record.Seq() < s.next:
			case kind == pageDeletes:
				s.deletes++
				f.deleted[string(record.PKs())] = true
			case kind == pageAgain:
				f.again[string(record.PKs())] = true
			default:
				f.last = record.PKs()
				f.rows[string(f.last)] = true
			}
		}
	}
}

// lookForEnds notes the closing marks among the changes of a table, or of all.
func (s *scan) lookForEnds(b *lockstep.Batch, number int) {
	for _, i := range b.OfTable(number) {
		s.end(b.Record(int(i)))
	}
}

func (s *scan) mine(progress string) (kind string, table int, ok bool) {
	rest, mine := strings.CutPrefix(progress, s.id+" ")
	kind, number, two := strings.Cut(rest, " ")
	table, err := strconv.Atoi(number)
	return kind, table, mine && two && err == nil
}

// pkeys is a key as the log writes it: a JSON array of its texts.
func pkeys(key [][]byte) string {
	b := []byte{'['}
	for i, v := range key {
		if i > 0 {
			b = append(b, ',')
		}
		if v == nil {
			b = append(b, "null"...)
			continue
		}
		b = lockstep.AppendJSONString(b, v)
	}
	return string(append(b, ']'))
}

// parseKey is the inverse of pkeys; false for what is no key of n columns.
func parseKey[T string | []byte](text T, n int) ([][]byte, bool) {
	var values []*string
	if json.Unmarshal([]byte(text), &values) != nil || len(values) != n {
		return nil, false
	}
	key := make([][]byte, n)
	for i, v := range values {
		if v == nil {
			return nil, false
		}
		key[i] = []byte(*v)
	}
	return key, true
}
