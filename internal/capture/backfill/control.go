package backfill

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// Pause stops a job where it is; Resume goes on from there. A paused job is returned
// as it is, an ended one is lockstep.ErrConflict.
func (r *Runner) Pause(ctx context.Context, id string) (Job, error) {
	return r.turnTo(ctx, id, "pause", Paused)
}

// Resume lets a paused job go on. One that runs is returned as it is, an ended one is
// lockstep.ErrConflict: a new one begins from the start.
func (r *Runner) Resume(ctx context.Context, id string) (Job, error) {
	return r.turnTo(ctx, id, "resume", Running)
}

// Cancel ends a job for good. What has gone out stays; one page more may. A cancelled
// job is returned as it is, another ended one is lockstep.ErrConflict.
func (r *Runner) Cancel(ctx context.Context, id string) (Job, error) {
	return r.turnTo(ctx, id, "cancel", Cancelled)
}

func (r *Runner) turnTo(ctx context.Context, id, verb string, to State) (Job, error) {
	if err := r.load(ctx); err != nil {
		return Job{}, fmt.Errorf("%s backfill %s: %w", verb, id, err)
	}
	j := r.job(id)
	if j == nil {
		rec, err := r.cfg.Store.Find(ctx, id)
		if err != nil {
			return Job{}, fmt.Errorf("%s backfill %s: %w", verb, id, err)
		}
		return settled(rec.Job, verb, to)
	}
	j.claim()
	defer j.turning.Unlock()
	v := j.view()
	if v.State.Ended() {
		return settled(v, verb, to)
	}
	if v.State == to || to == Running && v.State == Waiting {
		return v, nil
	}
	if err := r.save(ctx, j); err != nil {
		return v, fmt.Errorf("%s backfill %s: %w", verb, id, err)
	}
	before := v.State
	if err := r.enter(ctx, j, to, ""); err != nil {
		// It must not look done: what is stored says otherwise.
		if before == Waiting {
			before = Running
		}
		j.change(func(rec *Record) { rec.State, rec.EndedAt = before, time.Time{} })
		return j.view(), fmt.Errorf("%s backfill %s: %w", verb, id, err)
	}
	j.next, j.tries = time.Time{}, 0
	if to.Ended() {
		r.forget(j)
	}
	r.wake(v.Database)
	r.log.InfoContext(ctx, "a backfill is told to "+verb, v.attrs()...)
	return j.view(), nil
}

// settled answers for a job that has ended.
func settled(v Job, verb string, to State) (Job, error) {
	if v.State == to {
		return v, nil
	}
	return v, fmt.Errorf("%s backfill %s: it is %s: start a new one, which reads the tables from the beginning: %w", verb, v.ID, v.State, lockstep.ErrConflict)
}

// claim ends the turn that the job has at the moment, and takes turning.
func (j *job) claim() {
	j.mu.Lock()
	j.want++
	if j.stop != nil {
		j.stop()
	}
	j.mu.Unlock()
	j.turning.Lock()
	j.mu.Lock()
	j.want--
	j.mu.Unlock()
}

// enter changes the state and saves it. The caller holds turning.
func (r *Runner) enter(ctx context.Context, j *job, to State, reason string) error {
	var tables []int
	j.change(func(rec *Record) {
		rec.State, rec.Reason = to, reason
		if !to.Ended() {
			return
		}
		rec.EndedAt = time.Now().UTC().Truncate(time.Microsecond)
		for i := range rec.Tables {
			if t := &rec.Tables[i]; !t.State.Ended() {
				t.State = to
				tables = append(tables, i)
			}
		}
	})
	j.change(func(*Record) {}, tables...)
	j.setWait("")
	return r.save(ctx, j)
}

// Get returns a job, or an error that wraps lockstep.ErrNotFound.
func (r *Runner) Get(ctx context.Context, id string) (Job, error) {
	if j := r.job(id); j != nil {
		return j.view(), nil
	}
	rec, err := r.cfg.Store.Find(ctx, id)
	return ended(rec.Job), err
}

// ByNumber returns the n-th job of a consumer, or an error that wraps
// lockstep.ErrNotFound.
func (r *Runner) ByNumber(ctx context.Context, consumerID string, n int) (Job, error) {
	r.mu.Lock()
	for _, j := range r.jobs {
		if j.rec.ConsumerID == consumerID && j.rec.N == n {
			r.mu.Unlock()
			return j.view(), nil
		}
	}
	r.mu.Unlock()
	rec, err := r.cfg.Store.Number(ctx, consumerID, n)
	return ended(rec.Job), err
}

// List returns jobs, the newest first, at most 1,000. Those that have not ended are
// told without the control plane; the others not, where it is away.
func (r *Runner) List(ctx context.Context, f Filter) ([]Job, error) {
	var list []Job
	here := map[string]bool{}
	for _, j := range r.all() {
		v := j.view()
		here[v.ID] = true
		if f.matches(&v) {
			list = append(list, v)
		}
	}
	r.mu.Lock()
	enough := r.loaded && f.Active
	r.mu.Unlock()
	if !enough {
		stored, err := r.cfg.Store.List(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("list backfills: %w", err)
		}
		for _, rec := range stored {
			if !here[rec.ID] {
				list = append(list, ended(rec.Job))
			}
		}
	}
	slices.SortFunc(list, func(a, b Job) int { return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID)) })
	return list[:min(len(list), listed)], nil
}

// ended fills in what is not stored.
func ended(v Job) Job {
	v.Left = -1
	return v
}

func (r *Runner) job(id string) *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[strings.ToLower(id)]
}

func (r *Runner) all() []*job {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*job, 0, len(r.jobs))
	for _, j := range r.jobs {
		list = append(list, j)
	}
	return list
}

// active returns the jobs of a database, the oldest first.
func (r *Runner) active(database string) []*job {
	var list []*job
	for _, j := range r.all() {
		if j.rec.Database == database {
			list = append(list, j)
		}
	}
	slices.SortFunc(list, func(a, b *job) int {
		return cmp.Or(a.rec.CreatedAt.Compare(b.rec.CreatedAt), strings.Compare(a.rec.ID, b.rec.ID))
	})
	return list
}

// end logs and enters a final state.
func (r *Runner) end(ctx context.Context, j *job, to State, reason string) error {
	err := r.enter(ctx, j, to, reason)
	v := j.view()
	key := v.attrs(obs.KeyCount, v.Rows, obs.KeyDuration, v.EndedAt.Sub(v.StartedAt).Round(time.Millisecond).String())
	switch to {
	case Completed:
		r.log.InfoContext(ctx, "a backfill is complete", key...)
	default:
		r.log.WarnContext(ctx, "a backfill has ended without reading everything", append(key, obs.KeyStatus, string(to), obs.KeyReason, reason)...)
	}
	return err
}
