package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/doctor"
	"lockstep/internal/obs"
	"lockstep/internal/stage"
)

const (
	// examineAfter lets capture connect first: a node that just starts is no patient.
	examineAfter = 3 * time.Second
	examineEvery = 10 * time.Minute
)

// examination is what the doctor found last. What it finds stops nothing: whether
// capture moves decides readiness.
type examination struct {
	turn chan struct{} // full while the node is examined or something is fixed

	mu     sync.Mutex
	report doctor.Report
	began  time.Time       // when the report was begun
	said   map[string]bool // findings that are in the log
}

// doctorStage examines the node at its start, from time to time, and when a gap was found
// or closed, and logs what is new.
func (e *Engine) doctorStage() stage.Stage {
	return stage.Stage{Name: "doctor", Run: func(ctx context.Context) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		due, known := time.Now().Add(examineAfter), 0
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			gaps := e.countGaps()
			first := e.examined.none()
			if now := time.Now(); now.Before(due) && (first || gaps == known) {
				continue
			}
			due, known = time.Now().Add(examineEvery), gaps
			_, _ = e.examine(ctx) // it fails only when ctx ends
		}
	}}
}

// countGaps counts the places of all databases where changes may be missing.
func (e *Engine) countGaps() (n int) {
	for _, d := range e.databases.all() {
		n += len(d.gaps.List(d.Name))
	}
	return n
}

// patient is the running node, for its doctor.
func (e *Engine) patient() doctor.Options {
	cfg := *e.cfg
	cfg.Databases = slices.Clone(cfg.Databases)
	for _, d := range e.databases.all() {
		if d.managedBy == managedByAPI && d.broken == "" {
			cfg.Databases = append(cfg.Databases, d.Database)
		}
	}
	return doctor.Options{
		Config: &cfg, Online: true, URLs: e.privateURLs(), Gaps: e.gapsInWords, Publish: e.publishNow,
	}
}

// publishNow brings the publications of a database in order, when it is captured.
func (e *Engine) publishNow(ctx context.Context, database string) error {
	d := e.database(database)
	if d == nil || d.reconciler == nil {
		return fmt.Errorf("database %q is not captured: %w", database, lockstep.ErrNotFound)
	}
	_, _, err := d.reconciler.Ensure(ctx)
	return err
}

// examine looks at everything and returns what it found. Whoever
// waited for another one that began after it was asked for takes that one's report. It
// fails only when ctx ends: what is found then is not worth keeping.
func (e *Engine) examine(ctx context.Context) (doctor.Report, error) {
	x, asked := &e.examined, time.Now()
	release, err := x.enter(ctx)
	if err != nil {
		return doctor.Report{}, err
	}
	defer release()
	if last, began := x.last(); began.After(asked) {
		return last, nil
	}
	began := time.Now()
	report := doctor.Run(ctx, e.patient())
	if ctx.Err() != nil {
		return doctor.Report{}, context.Cause(ctx)
	}
	x.take(report, began).Log(ctx, e.Logger.With(obs.KeyStage, "doctor"))
	return report, nil
}

// enter waits until nobody else examines or fixes.
func (x *examination) enter(ctx context.Context) (release func(), err error) {
	select {
	case x.turn <- struct{}{}:
		return func() { <-x.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (x *examination) last() (r doctor.Report, began time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.report, x.began
}

// none reports whether nothing was examined yet.
func (x *examination) none() bool {
	_, began := x.last()
	return began.IsZero()
}

// physician is the doctor in the words of the API.
type physician struct{ *Engine }

// Last implements [api.Doctor].
func (p physician) Last() api.DoctorReport { return p.view() }

// Examine implements [api.Doctor].
func (p physician) Examine(ctx context.Context) (api.DoctorReport, error) {
	if _, err := p.examine(ctx); err != nil {
		return api.DoctorReport{}, err
	}
	return p.view(), nil
}

// Fix implements [api.Doctor].
func (p physician) Fix(ctx context.Context, id, target string) ([]api.DoctorDone, error) {
	release, err := p.examined.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	done, err := doctor.Fix(ctx, p.patient(), id, target)
	if err != nil {
		return nil, err
	}
	out := make([]api.DoctorDone, len(done))
	for i, d := range done {
		out[i] = api.DoctorDone(d)
	}
	return out, nil
}

func (p physician) view() api.DoctorReport {
	r, began := p.examined.last()
	out := api.DoctorReport{OK: r.OK, Counts: api.DoctorCounts(r.Counts), Findings: make([]api.DoctorFinding, len(r.Findings))}
	if !began.IsZero() {
		at := began.UTC()
		out.At = &at
	}
	for i, f := range r.Findings {
		out.Findings[i] = api.DoctorFinding{ID: f.ID, Target: f.Target, Status: string(f.Status), Summary: f.Summary, Why: f.Why, Remedy: f.Remedy, Fixable: f.Fixable}
	}
	return out
}

// take keeps the report and returns what of it was not there the last time.
func (x *examination) take(r doctor.Report, began time.Time) doctor.Report {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report, x.began = r, began
	said := map[string]bool{}
	fresh := r
	fresh.Findings = nil
	for _, f := range r.Findings {
		id := f.Target + "\x00" + f.ID + "\x00" + string(f.Status)
		said[id] = true
		if !x.said[id] {
			fresh.Findings = append(fresh.Findings, f)
		}
	}
	x.said = said
	return fresh
}

// part is the doctor's line in readiness; false as long as nothing was examined.
func (x *examination) part() (api.Part, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	part := api.Part{Name: "doctor", Ready: true}
	failed := 0
	for _, f := range x.report.Findings {
		if f.Status != doctor.Fail {
			continue
		}
		failed++
		if failed == 1 {
			part.Reason = f.Target + ": " + f.Summary
			if !strings.Contains(f.Summary, f.Remedy) {
				part.Reason += "; " + f.Remedy
			}
		}
	}
	if failed > 1 {
		part.Reason = fmt.Sprintf("%d checks fail, see lockstep doctor; %s", failed, part.Reason)
	}
	return part, len(x.report.Findings) > 0
}

func (e *Engine) privateURLs() map[string]string {
	urls := map[string]string{}
	for _, d := range e.databases.all() {
		if d.URL == "" && d.broken == "" {
			urls[d.Name] = d.url
		}
	}
	return urls
}

func (e *Engine) gapsInWords(_ context.Context, database string) ([]string, error) {
	var words []string
	for _, d := range e.databases.all() {
		if d.Name != database {
			continue
		}
		if why := d.gapReason(); why != "" {
			words = append(words, why)
		}
	}
	return words, nil
}
