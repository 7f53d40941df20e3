package backfill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
	"lockstep/internal/capture/wal"
)

// mostMoved is how many keys a search gathers before they are read again.
const mostMoved = 1000

// moved ends a table, or finds what is to be read again before: rows whose key was
// changed while the table was read, from one that had not been read to one behind
// the cursor. No page has seen them, and their insert lacks values that are stored out
// of line (it names them as unchanged), which nobody has heard of before.
func (r *Runner) moved(ctx context.Context, p *reading) error {
	w := p.job.work
	if w.look && w.looks <= r.tune.rereads {
		large, err := p.large(ctx)
		if err != nil {
			return err
		}
		w.look = large
	}
	if !w.look || w.looks > r.tune.rereads {
		p.finish()
		return nil
	}
	if w.searchTo == 0 {
		to, err := p.barrier(ctx)
		if err != nil {
			return err
		}
		w.searchTo = to
	}
	s := &search{oid: p.state.OID, keys: len(p.state.KeyColumns), next: w.looked + 1, seen: map[string]bool{}}
	gone, err := s.through(ctx, p.source.Log, w.searchTo)
	if err != nil {
		return err
	}
	w.looked, w.again = s.next-1, append(w.again, s.found...)
	if w.looked >= w.searchTo {
		w.searchTo, w.look = 0, false
		w.looks++
	}
	p.job.change(func(rec *Record) {
		rec.Places[p.at].Looked, rec.Places[p.at].Again = w.looked, w.again
		if gone {
			rec.Tables[p.at].Reason = "the stream does not hold all changes since its reading began: a row whose key was changed meanwhile may lack values that are stored out of line"
		}
	}, p.at)
	return nil
}

// large reports whether any value of the table is stored out of line.
func (p *reading) large(ctx context.Context) (bool, error) {
	const query = `
SELECT coalesce(sum(pg_catalog.pg_relation_size(c.reltoastrelid)), 0) > 0
FROM pg_catalog.pg_class c
WHERE c.reltoastrelid <> 0
  AND (c.oid = $1::oid OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree($1::oid::regclass) t))`
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	large := false
	err := p.source.Pool.QueryRow(ctx, query, p.state.OID).Scan(&large)
	if err != nil {
		return false, fmt.Errorf("look for values that are stored out of line: %w", err)
	}
	return large, nil
}

// barrier returns the seq of a change that lies behind everything that was committed
// before.
func (p *reading) barrier(ctx context.Context) (to uint64, err error) {
	_, err = p.source.Capture.Interleave(ctx, p.state.OID, func(_ context.Context, low uint64) (wal.Page, error) {
		to = low
		return wal.Page{}, errNothing
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return to, err
}

// finish says that a table was read to its end.
func (p *reading) finish() {
	j, w := p.job, p.job.work
	j.change(func(rec *Record) {
		place, t := &rec.Places[p.at], &rec.Tables[p.at]
		t.State, t.Rows = Completed, t.Rows+w.rows
		rec.Rows, rec.Overridden = rec.Rows+w.rows, rec.Overridden+w.overridden
		place.Position = Position{Gaps: place.Gaps, Done: true}
	}, p.at)
	j.work, j.scan = nil, nil
}

// search finds inserts of a table that lack values.
type search struct {
	oid   uint32
	keys  int    // columns of the key
	next  uint64 // the next seq to look at
	found [][][]byte
	seen  map[string]bool
}

// through searches up to a seq that is in the log, for a while. gone says that a part
// is not there any more.
func (s *search) through(ctx context.Context, log Log, to uint64) (gone bool, err error) {
	if s.next > to {
		return false, nil
	}
	reader := log.Reader(max(s.next, 1))
	defer reader.Close()
	for until := time.Now().Add(scanTime); s.next <= to && len(s.found) < mostMoved && time.Now().Before(until); {
		batch, err := reader.Next(ctx)
		var retained *lockstep.RetentionError
		var damaged *DamageError
		switch {
		case errors.As(err, &retained):
			gone, s.next = true, retained.First
			reader.Seek(s.next)
			continue
		case errors.As(err, &damaged):
			gone, s.next = true, damaged.Last+1
			reader.Seek(s.next)
			continue
		case err != nil:
			return gone, fmt.Errorf("look for changed keys in the stream: %w", err)
		}
		s.look(batch)
		s.next = batch.Mark.Seq + 1
	}
	return gone, nil
}

func (s *search) look(b *lockstep.Batch) {
	for number, t := range b.Tables() {
		if t.OID != s.oid || t.Progress != "" {
			continue
		}
		for _, i := range b.OfTable(number) {
			record := b.Record(int(i))
			if record.Action() != lockstep.Insert || record.Seq() < s.next || !bytes.Contains(record.Extra(), []byte(`"unchanged":[`)) || s.seen[string(record.PKs())] {
				continue
			}
			s.seen[string(record.PKs())] = true
			if key, ok := parseKey(record.PKs(), s.keys); ok {
				s.found = append(s.found, key)
			}
		}
	}
}
