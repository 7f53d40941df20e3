package backfill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/obs"
)

// told closes the gaps whose closing mark an earlier attempt, or an earlier process,
// has written and did not hear of, or did not come to note: the log tells.
func (r *Runner) told(ctx context.Context, j *job, source *Source) error {
	if j.told {
		return nil
	}
	ends, err := j.closingMarks(ctx, source)
	if err != nil {
		return err
	}
	for _, g := range r.cfg.Gaps.List(j.rec.Database) {
		if !slices.ContainsFunc(ends, func(e closingMark) bool { return e.of(&g) }) {
			continue
		}
		if err := r.cfg.Gaps.Close(ctx, j.rec.Database, g); err != nil {
			return err
		}
		r.log.InfoContext(ctx, "a gap was repaired already", j.rec.attrs(obs.KeyReason, g.Reason)...)
	}
	j.told = true
	return nil
}

// closingMark is what the log says of the end of a gap.
type closingMark struct {
	table uint32 // oid; 0: every table
	Gap   struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
		From   uint64 `json:"from_lsn"` // null is 0
		To     uint64 `json:"to_lsn"`
	} `json:"gap"`
}

func (e *closingMark) of(g *OpenGap) bool {
	if e.Gap.Reason != g.Reason || e.Gap.From != uint64(g.From) || e.Gap.To != uint64(g.To) {
		return false
	}
	if len(g.Tables) == 0 {
		return e.table == 0
	}
	return slices.ContainsFunc(g.Tables, func(t lockstep.Table) bool { return t.OID == e.table })
}

// closingMarks returns those behind what the job's record knows of.
func (j *job) closingMarks(ctx context.Context, source *Source) (ends []closingMark, err error) {
	_, err = source.Capture.Interleave(ctx, 0, func(ctx context.Context, low uint64) (wal.Page, error) {
		s := newScan(j.rec.ID, j.rec.Seq+1)
		if err := s.through(ctx, source.Log, low); err != nil {
			return wal.Page{}, err
		}
		ends = s.ends
		return wal.Page{}, errNothing
	})
	if err != nil && !errors.Is(err, errNothing) {
		return nil, &waitError{"waits for capture: " + err.Error(), err}
	}
	return ends, nil
}

// end notes the closing mark of a gap.
func (s *scan) end(record lockstep.Record) {
	extra := record.Extra()
	if record.Action() != lockstep.Gap || record.Seq() < s.next || !bytes.HasPrefix(extra, []byte(`,"gap":{`)) {
		return
	}
	e := closingMark{table: record.Table().OID}
	if json.Unmarshal(fmt.Appendf(nil, "{%s}", extra[1:]), &e) == nil && e.Gap.State == "end" {
		s.ends = append(s.ends, e)
	}
}
