package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

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
	mu     sync.Mutex
	report doctor.Report
	said   map[string]bool // findings that are in the log
}

// doctorStage examines the node at its start and from time to time, and logs what is
// new.
func (e *Engine) doctorStage() stage.Stage {
	return stage.Stage{Name: "doctor", Run: func(ctx context.Context) error {
		pause := examineAfter
		for {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
			pause = examineEvery
			report := doctor.Run(ctx, doctor.Options{Config: e.cfg, Online: true, URLs: e.privateURLs(), Gaps: e.gapsInWords})
			if ctx.Err() != nil {
				return nil
			}
			e.examined.take(report).Log(ctx, e.Logger.With(obs.KeyStage, "doctor"))
		}
	}}
}

// take keeps the report and returns what of it was not there the last time.
func (x *examination) take(r doctor.Report) doctor.Report {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report = r
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
			part.Reason = fmt.Sprintf("%s: %s; %s", f.Target, f.Summary, f.Remedy)
		}
	}
	if failed > 1 {
		part.Reason = fmt.Sprintf("%d checks fail, see lockstep doctor; %s", failed, part.Reason)
	}
	return part, len(x.report.Findings) > 0
}

func (e *Engine) privateURLs() map[string]string {
	urls := map[string]string{}
	for _, d := range e.databases {
		if d.URL == "" {
			urls[d.Name] = d.url
		}
	}
	return urls
}

func (e *Engine) gapsInWords(_ context.Context, database string) ([]string, error) {
	var words []string
	for _, d := range e.databases {
		if d.Name != database {
			continue
		}
		if why := d.gapReason(); why != "" {
			words = append(words, why)
		}
	}
	return words, nil
}
