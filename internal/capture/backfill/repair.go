package backfill

import (
	"context"
	"fmt"
	"slices"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
	"lockstep/internal/obs"
)

// startRepair begins the repair of a database's open gaps.
func (r *Runner) startRepair(ctx context.Context, q Request) (Job, error) {
	source, err := r.cfg.Database(q.Database)
	if err != nil {
		return Job{}, fmt.Errorf("repair the gaps of database %q: %w", q.Database, err)
	}
	if err := r.cfg.Gaps.Load(ctx, q.Database); err != nil {
		return Job{}, err
	}
	if q.Where != "" || len(q.Tables) > 0 || q.Consumer != "" {
		return Job{}, fmt.Errorf("repair the gaps of database %s: a repair is for every consumer, of the tables that the gaps name, and without a condition: %w", q.Database, lockstep.ErrInvalid)
	}
	if len(r.cfg.Gaps.List(q.Database)) == 0 {
		return Job{}, fmt.Errorf("repair the gaps of database %s: no gap is open: %w", q.Database, lockstep.ErrConflict)
	}
	for _, j := range r.active(q.Database) {
		if v := j.view(); v.Gap && !v.State.Ended() {
			return Job{}, fmt.Errorf("repair the gaps of database %s: backfill %s is at it (%s): wait for it, or resume it: %w", q.Database, v.ID, v.State, lockstep.ErrConflict)
		}
	}
	states, err := survey(ctx, &source)
	if err != nil {
		return Job{}, err
	}
	plan := newRecord(Job{Database: q.Database, Origin: q.Origin, Gap: true}, &source)
	if err := plan.widen(ctx, &source, states, r.cfg.Gaps.List(q.Database)); err != nil {
		return Job{}, err
	}
	return r.begin(ctx, plan.Record)
}

// widen adds the tables that the gaps concern, and lets those be read anew that a
// gap came upon after their reading had begun. Every change is a table in the list.
func (p *plan) widen(ctx context.Context, source *Source, states []publish.TableState, gaps []OpenGap) error {
	for _, g := range gaps {
		for i := range p.Places {
			if place := &p.Places[i]; place.Gaps < g.Number && g.concerns(place) {
				place.Position = Position{Gaps: g.Number}
				p.Tables[i].State, p.Tables[i].Reason = Waiting, ""
			}
		}
		for _, t := range states {
			if t.Class == publish.None || !g.concerns(&Place{OID: t.OID, Schema: t.Schema, Name: t.Name}) || p.has(t.OID) {
				continue
			}
			if err := p.repair(ctx, source, t); err != nil {
				return err
			}
			p.Places[len(p.Places)-1].Gaps = g.Number
		}
		for _, t := range g.Tables {
			gone := publish.TableState{OID: t.OID, Schema: t.Schema, Name: t.Name}
			if !p.named(&Place{OID: t.OID, Schema: t.Schema, Name: t.Name}) {
				p.add(gone, TableProgress{State: Failed, Reason: "it is not there any more, or not captured"})
				p.Places[len(p.Places)-1].Gaps = g.Number
			}
		}
	}
	return nil
}

func (p *plan) has(oid uint32) bool {
	for i := range p.Places {
		if p.Places[i].OID == oid {
			return true
		}
	}
	return false
}

func (p *plan) named(at *Place) bool {
	for i := range p.Places {
		if p.Places[i].OID == at.OID || p.Places[i].Schema == at.Schema && p.Places[i].Name == at.Name {
			return true
		}
	}
	return false
}

// repair adds one table; one that cannot be read does not keep the others from it.
func (p *plan) repair(ctx context.Context, source *Source, t publish.TableState) error {
	if refused := unreadable(t); refused != "" {
		p.add(t, TableProgress{State: Failed, Reason: refused})
		return nil
	}
	total, err := estimate(ctx, source, t, "")
	if err != nil && away(err) && sqlState(err) != stateLocked {
		return unavailable(fmt.Errorf("look at table %s: %w", t, err))
	}
	p.add(t, TableProgress{State: Waiting, Total: total}) // what it is refused for is told when it is read
	return nil
}

// finishRepair is what comes after the rows: what came up meanwhile, deletes, and
// the closing marks.
func (r *Runner) finishRepair(ctx context.Context, j *job, source *Source) error {
	if err := r.cfg.Gaps.Load(ctx, j.rec.Database); err != nil {
		return err
	}
	if err := r.told(ctx, j, source); err != nil {
		return err
	}
	gaps := r.cfg.Gaps.List(j.rec.Database)
	if more, err := r.widened(ctx, j, source, gaps); more || err != nil {
		return err
	}
	if len(gaps) == 0 {
		return r.finish(ctx, j)
	}
	if j.sweep == nil {
		return r.beginSweep(ctx, j, source)
	}
	if !j.sweep.done {
		return r.sweepOn(ctx, j, source)
	}
	failed := j.failures()
	for _, g := range gaps {
		end := wal.GapEnd{
			Gap:      wal.Gap{Reason: g.Reason, Tables: g.Tables, From: g.From, To: g.To},
			Complete: j.sweep.complete && len(failed) == 0, Reads: j.rec.Rows, Deletes: j.rec.Deletes, Unrepaired: failed,
		}
		if _, err := source.Capture.EndGap(ctx, end); err != nil {
			return &waitError{"waits for capture: " + err.Error(), err}
		}
		if err := r.cfg.Gaps.Close(ctx, j.rec.Database, g); err != nil {
			return err
		}
		r.log.InfoContext(ctx, "a gap is repaired", j.rec.attrs(obs.KeyReason, g.Reason, "complete", end.Complete, "reads", end.Reads, "deletes", end.Deletes)...)
	}
	return nil // the next turn looks whether another one has come
}

// widened takes in gaps that came while the job was at work.
func (r *Runner) widened(ctx context.Context, j *job, source *Source, gaps []OpenGap) (bool, error) {
	if !slices.ContainsFunc(gaps, func(g OpenGap) bool { return g.Number > j.widest }) {
		return false, nil
	}
	states, err := survey(ctx, source)
	if err != nil {
		return false, err
	}
	p := &plan{j.rec.clone()}
	if err := p.widen(ctx, source, states, gaps); err != nil {
		return false, err
	}
	all := make([]int, len(p.Places))
	for i := range all {
		all[i] = i
	}
	if !slices.ContainsFunc(p.Tables, func(t TableProgress) bool { return !t.State.Ended() }) {
		all = nil
	}
	seq := source.Log.Last().Seq
	if all != nil {
		j.change(func(rec *Record) {
			rec.Places, rec.Tables, rec.Total = p.Places, p.Tables, p.Total
			rec.Seq = max(rec.Seq, seq) // pages of an earlier reading are not of this one
		}, all...)
		j.tables, j.sweep, j.work, j.scan = nil, nil, nil, nil
	}
	for _, g := range gaps {
		j.widest = max(j.widest, g.Number)
	}
	return true, r.save(ctx, j)
}

// beginSweep counts the deletes that an earlier process wrote and did not note; they
// are in the log, so they are no candidates any more.
func (r *Runner) beginSweep(ctx context.Context, j *job, source *Source) error {
	s := newSweep(&j.rec, source.Log, r.tune.memory)
	if j.unsure {
		written := newScan(j.rec.ID, j.rec.Seq+1)
		if err := written.through(ctx, source.Log, s.to); err != nil {
			return err
		}
		j.change(func(rec *Record) { rec.Deletes, rec.Seq = rec.Deletes+written.deletes, max(rec.Seq, s.to) })
		j.scan = nil
	}
	j.sweep = s
	return r.save(ctx, j)
}

// began notes which gaps were known before the first page of a table.
func (r *Runner) began(j *job, at int) {
	if !j.rec.Gap || j.rec.Places[at].Key != "" || r.cfg.Gaps == nil {
		return
	}
	for _, g := range r.cfg.Gaps.List(j.rec.Database) {
		if g.concerns(&j.rec.Places[at]) && g.Number > j.rec.Places[at].Gaps {
			j.mu.Lock()
			j.rec.Places[at].Gaps = g.Number
			j.mu.Unlock()
		}
	}
}
