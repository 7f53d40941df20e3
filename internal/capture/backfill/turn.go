package backfill

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// turn does the next thing of a job, such as one page, and reports whether there
// was something to do.
func (r *Runner) turn(ctx context.Context, j *job) bool {
	j.turning.Lock()
	defer j.turning.Unlock()
	turning, stop := context.WithCancel(ctx)
	defer stop()
	if !j.begins(stop) {
		return false
	}
	err := r.step(turning, j)
	j.mu.Lock()
	j.stop, j.slow = nil, time.Time{}
	j.rate.count(time.Now(), j.rec.Rows)
	j.mu.Unlock()
	if err == nil {
		j.tries = 0
		j.setWait("")
		return true
	}
	// Whatever went wrong, a page may be on its way.
	j.unsure, j.work, j.scan, j.told = true, nil, nil, false
	if turning.Err() == nil {
		r.postpone(ctx, j, err)
	}
	return false
}

func (j *job) begins(stop context.CancelFunc) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	idle := j.rec.State == Paused || j.rec.State.Ended() && j.dirty == nil
	if j.want > 0 || idle || time.Now().Before(j.next) {
		return false
	}
	j.stop = stop
	return true
}

// postpone notes what the job waits for, and tries again later.
func (r *Runner) postpone(ctx context.Context, j *job, err error) {
	if errors.Is(err, lockstep.ErrFenced) {
		r.log.ErrorContext(ctx, "a backfill goes on elsewhere, and ends here", j.rec.attrs(obs.KeyError, err)...)
		r.forget(j)
		j.next = time.Now().Add(r.tune.longest)
		return
	}
	var wait *waitError
	reason := err.Error()
	quiet := errors.As(err, &wait)
	if quiet {
		reason = wait.reason
	}
	if quiet && wait.cause == nil {
		j.next = time.Now().Add(r.tune.poll)
	} else {
		j.next = time.Now().Add(min(r.tune.poll/4<<min(j.tries, 10), r.tune.longest))
		j.tries++
	}
	if !j.setWait(reason) {
		return
	}
	if time.Since(j.saved) > time.Second && j.dirty == nil {
		j.change(func(*Record) {})
	}
	r.log.InfoContext(ctx, "a backfill waits", j.rec.attrs(obs.KeyReason, reason)...)
}

// step is one turn.
func (r *Runner) step(ctx context.Context, j *job) error {
	if err := r.save(ctx, j); err != nil || j.rec.State.Ended() {
		return err
	}
	source, err := r.cfg.Database(j.rec.Database)
	if err != nil {
		return fmt.Errorf("database %s is not captured now: %w", j.rec.Database, err)
	}
	c := &Consumer{}
	if !j.rec.Gap {
		found, err := r.cfg.Consumers.Lookup(j.rec.ConsumerID)
		if errors.Is(err, lockstep.ErrNotFound) {
			r.meters.forget(j.rec.ConsumerID)
			return r.end(ctx, j, Cancelled, "the consumer was deleted")
		}
		if err != nil {
			return err
		}
		c = &found
		if reason := r.holds(c, time.Now()); reason != "" {
			return &waitError{reason: reason}
		}
	}
	at := j.current()
	switch {
	case at >= 0:
		return r.table(ctx, j, &source, c, at)
	case j.rec.Gap:
		return r.finishRepair(ctx, j, &source)
	}
	return r.finish(ctx, j)
}

// current returns the table at hand, or -1 when all are done.
func (j *job) current() int {
	for i := range j.rec.Tables {
		if !j.rec.Tables[i].State.Ended() {
			return i
		}
	}
	return -1
}

// finish ends a job whose tables are all done.
func (r *Runner) finish(ctx context.Context, j *job) error {
	failed := j.failures()
	switch {
	case len(failed) == 0:
		return r.end(ctx, j, Completed, "")
	case len(failed) == len(j.rec.Tables):
		return r.end(ctx, j, Failed, "no table could be read: "+few(failed))
	}
	return r.end(ctx, j, Completed, fmt.Sprintf("%d of %d tables could not be read: %s", len(failed), len(j.rec.Tables), few(failed)))
}

// failures lists the tables that could not be read, with the reasons.
func (j *job) failures() []string {
	var list []string
	for _, t := range j.rec.Tables {
		if t.State == Failed {
			list = append(list, t.Name+": "+t.Reason)
		}
	}
	return list
}

// few names at most three of a list.
func few(list []string) string {
	if len(list) > 3 {
		return strings.Join(list[:3], "; ") + fmt.Sprintf("; and %d more", len(list)-3)
	}
	return strings.Join(list, "; ")
}

// failTable ends one table; the job goes on with the next one.
func (r *Runner) failTable(ctx context.Context, j *job, i int, reason string) error {
	j.change(func(rec *Record) { rec.Tables[i].State, rec.Tables[i].Reason = Failed, reason }, i)
	j.work, j.unsure = nil, true
	r.log.WarnContext(ctx, "a table cannot be backfilled", j.rec.attrs(obs.KeyTable, j.rec.Tables[i].Name, obs.KeyReason, reason)...)
	return r.save(ctx, j)
}
