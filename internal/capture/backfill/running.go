package backfill

import (
	"context"
	"maps"
	"sync"
	"time"

	"lockstep/internal/capture/publish"
	"lockstep/internal/obs"
)

// job is one that has not ended, or has just.
type job struct {
	turning sync.Mutex // held for a turn, and by whoever changes the state in between

	mu   sync.Mutex // guards what follows
	rec  Record
	rate rate
	wait string // what it waits for; empty: nothing
	stop context.CancelFunc
	slow time.Time // since when capture has been waited for; zero: it is not
	want int       // who waits for turning to change the state

	// Of whoever holds turning.
	dirty  map[int]bool // tables that are not saved; the job itself when it is not nil
	saved  time.Time
	unsure bool // pages may be in the log that the record does not know
	scan   *scan
	work   *work
	pace   pace
	paced  int // the table that pace is about
	tries  int // failures since the last success
	next   time.Time
	tables map[uint32]publish.TableState // as surveyed; nil: not yet
	told   bool                          // the closing marks in the log are seen to, see told
	sweep  *sweep                        // of a repair; nil: deletes were not looked for
	widest uint64                        // of a repair: the number of the last gap that was taken in
}

func newJob(rec Record) *job {
	return &job{rec: rec, paced: -1}
}

// work is how far the table at hand has come beyond what is saved.
type work struct {
	table  int
	cursor [][]byte
	again  [][][]byte
	done   bool   // there is nothing behind cursor
	tries  int    // at the rows to be read again
	looked uint64 // how far the log was searched for changed keys, see moved
	look   bool   // there may be more of them
	looks  int    // how often it was
	// searchTo is the seq up to which it is being searched; 0: it is not.
	searchTo uint64
	replay   *replay // nil: nothing of the table is in the log beyond cursor

	rows, overridden uint64 // not yet in the record
}

// replay is what the log holds of pages that are not saved: rows up to until are
// read once more, without those that went out.
type replay struct {
	sent  map[string]bool
	until [][]byte
}

// view returns the job as it is now.
func (j *job) view() Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := j.rec.clone().Job
	v.RowsPerSecond, v.Left = j.rate.value, j.rate.left(v.Rows, v.Total)
	switch {
	case v.State.Ended() || v.State == Paused:
		v.RowsPerSecond, v.Left = 0, -1
	case j.wait != "":
		v.State, v.Reason, v.RowsPerSecond, v.Left = Waiting, j.wait, 0, -1
	case !j.slow.IsZero() && time.Since(j.slow) > 3*time.Second:
		v.State, v.Reason = Waiting, "waits for capture to come to the present: changes go first"
	}
	return v
}

// change changes the record; tables are those that it has changed.
func (j *job) change(f func(r *Record), tables ...int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.rec)
	if j.dirty == nil {
		j.dirty = map[int]bool{}
	}
	for _, i := range tables {
		j.dirty[i] = true
	}
}

func (j *job) setWait(reason string) (changed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	changed = j.wait != reason
	j.wait = reason
	return changed
}

// save writes what has changed. The caller holds turning.
func (r *Runner) save(ctx context.Context, j *job) error {
	if j.dirty == nil {
		return nil
	}
	tables := make([]int, 0, len(j.dirty))
	for i := range j.dirty {
		tables = append(tables, i)
	}
	j.mu.Lock()
	rec := j.rec.clone()
	rec.Writer = r.id
	if j.wait != "" && rec.State == Running {
		rec.State, rec.Reason = Waiting, j.wait
	}
	j.mu.Unlock()
	// What has begun to be saved is not given up because the turn is.
	if err := r.cfg.Store.Save(context.WithoutCancel(ctx), rec, tables); err != nil {
		return err
	}
	j.mu.Lock()
	j.rec.Revision++
	j.mu.Unlock()
	j.dirty, j.saved = nil, time.Now()
	return nil
}

// Run runs what is there and what comes, until ctx ends, and then returns nil. What
// it does not come to is gone on with by the next Run, in this process or another.
func (r *Runner) Run(ctx context.Context) error {
	for wait := r.tune.poll; ; wait = min(2*wait, r.tune.longest) {
		err := r.load(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		r.log.WarnContext(ctx, "backfills wait for the control plane", obs.KeyError, err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
	var group sync.WaitGroup
	defer group.Wait()
	started := map[string]bool{}
	for {
		for database, wake := range r.databases() {
			if !started[database] {
				started[database] = true
				group.Go(func() { r.work(ctx, database, wake) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.fresh:
		}
	}
}

// load reads the jobs that have not ended, once.
func (r *Runner) load(ctx context.Context) error {
	r.starting.Lock()
	defer r.starting.Unlock()
	return r.loadLocked(ctx)
}

func (r *Runner) loadLocked(ctx context.Context) error {
	r.mu.Lock()
	loaded := r.loaded
	r.mu.Unlock()
	if loaded {
		return nil
	}
	records, err := r.cfg.Store.Active(ctx)
	if err != nil {
		return err
	}
	for _, rec := range records {
		if rec.State == Waiting {
			rec.State, rec.Reason = Running, ""
		}
		j := newJob(rec)
		j.unsure = true
		r.add(j)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded = true
	return nil
}

// add takes a job in, and wakes its database's worker.
func (r *Runner) add(j *job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs[j.rec.ID] = j
	if r.workers[j.rec.Database] == nil {
		r.workers[j.rec.Database] = make(chan struct{}, 1)
		select {
		case r.fresh <- struct{}{}:
		default:
		}
	}
	r.wakeLocked(j.rec.Database)
}

func (r *Runner) wake(database string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked(database)
}

func (r *Runner) wakeLocked(database string) {
	select {
	case r.workers[database] <- struct{}{}:
	default:
	}
}

// databases returns those that have had a job, with what wakes their workers.
func (r *Runner) databases() map[string]chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]chan struct{}, len(r.workers))
	maps.Copy(all, r.workers)
	return all
}

// work gives the jobs of a database their turns, one page at a time.
func (r *Runner) work(ctx context.Context, database string, wake <-chan struct{}) {
	for ctx.Err() == nil {
		moved := false
		for _, j := range r.active(database) {
			if r.turn(ctx, j) {
				moved = true
			}
			if j.ended() {
				r.forget(j)
			}
		}
		if moved {
			continue
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-time.After(r.tune.poll):
		}
	}
}

func (j *job) ended() bool {
	j.turning.Lock()
	defer j.turning.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rec.State.Ended() && j.dirty == nil
}

func (r *Runner) forget(j *job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, j.rec.ID)
}
