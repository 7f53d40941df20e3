// Package doctor checks before and while Lockstep runs whether everything that it
// needs is as it should be: the databases, the stream, the data directory, the
// address, this machine.
//
// # Guarantees
//
//  1. Each [Finding] says what was found, why it matters, and what to do: SQL or a
//     command that can be copied.
//  2. Checks change nothing anywhere: no slot, publication, row or setting. On disk one
//     temporary file is written, which has no name any more when it is.
//  3. A check that fails, panics or hangs does not stop the others. Each check has a
//     time limit, and so have all of them together.
//  4. What could not be found out is said to be so, never taken for good.
//  5. No finding holds a password, a token or a key.
package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"lockstep"
	"lockstep/internal/config"
	"lockstep/internal/obs"
)

// Status says how a check came out.
type Status string

// How a check comes out.
const (
	Pass Status = "pass"
	Warn Status = "warn" // it works, and will hurt one day
	Fail Status = "fail" // it does not work, or data is being lost
	Skip Status = "skip" // not checked; the summary says why
)

// Finding is what one check has found. A check may find several things.
type Finding struct {
	ID      string `json:"id"`     // of the check: stable, lower case with underscores
	Target  string `json:"target"` // what was checked, such as database app
	Status  Status `json:"status"`
	Summary string `json:"summary"`          // what was found
	Why     string `json:"why"`              // why it matters
	Remedy  string `json:"remedy,omitempty"` // SQL or commands, line by line; comments begin with -- or #
	// Fixable says that [Fix] can do something about it.
	Fixable bool `json:"fixable,omitempty"`

	// Environment says that the machine lacks something without which a node cannot
	// start at all: exit code 3.
	Environment bool `json:"-"`
}

// Counts is how many findings there are of each status.
type Counts struct {
	Pass int `json:"pass"`
	Warn int `json:"warn"`
	Fail int `json:"fail"`
	Skip int `json:"skip"`
}

// Report is what the checks have found: targets one after the other, and each
// target's checks always in the same order.
type Report struct {
	OK       bool      `json:"ok"` // nothing fails
	Counts   Counts    `json:"counts"`
	Findings []Finding `json:"findings"`
}

// Err returns nil when nothing fails. Otherwise it says how much does, and wraps
// [lockstep.ErrEnvironment] when the machine lacks something.
func (r Report) Err() error {
	if r.OK {
		return nil
	}
	err := fmt.Errorf("%d of %d checks failed", r.Counts.Fail, len(r.Findings))
	for _, f := range r.Findings {
		if f.Status == Fail && f.Environment {
			return fmt.Errorf("%w: %w", err, lockstep.ErrEnvironment)
		}
	}
	return err
}

// Log writes one line for each finding that warns or fails.
func (r Report) Log(ctx context.Context, log *slog.Logger) {
	for _, f := range r.Findings {
		level := slog.LevelWarn
		switch f.Status {
		case Pass, Skip:
			continue
		case Fail:
			level = slog.LevelError
		case Warn:
		}
		log.Log(ctx, level, "doctor: "+f.Summary, "check", f.ID, obs.KeyTarget, f.Target, obs.KeyReason, f.Why, obs.KeyRemedy, f.Remedy)
	}
}

// Options says what is checked. Only Config is required.
type Options struct {
	Config *config.Config

	// Online is true for checks by the running node itself: its own lock, port and
	// private Postgres are as they should be, and its disk is not measured.
	Online bool
	// URLs are those of private databases that run, by name. What is not in it is
	// found by the files in the data directory.
	URLs map[string]string
	// Stream logs in to an external stream and asks for what it needs there, without
	// making anything. nil: only the server's greeting is looked at.
	Stream func(context.Context) error
	// Gaps tells which gaps are open for a database, in words, when a node can be
	// asked. nil: not checked.
	Gaps func(ctx context.Context, database string) ([]string, error)
	// Publish brings the publications of a database in order, as a running node does.
	// nil: publications are not fixed from here.
	Publish func(ctx context.Context, database string) error
	// Timeout bounds all checks together; default one minute.
	Timeout time.Duration

	limits *limits // tests set it; nil: the defaults
}

// limits are the thresholds that judge what was found.
type limits struct {
	check       time.Duration // for one check
	survey      time.Duration // for a check that reads every table
	grace       time.Duration // for a check to come back after its time
	measure     time.Duration // how long the disk is measured
	transaction time.Duration // age from which an open transaction is told
	skew        time.Duration // between the clocks
	retained    int64         // bytes of WAL
	slowSync    time.Duration // of one fsync
	monitor     string        // port at which a NATS server shows its settings
	now         func() time.Time
}

func defaultLimits() *limits {
	return &limits{
		check: 5 * time.Second, survey: 20 * time.Second, grace: 2 * time.Second, measure: 500 * time.Millisecond,
		transaction: time.Minute, skew: 2 * time.Second, retained: 1 << 30, slowSync: 20 * time.Millisecond,
		monitor: "8222", now: time.Now,
	}
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.limits == nil {
		o.limits = defaultLimits()
	}
	return o
}

// Check does every check that needs nothing but a configuration.
func Check(ctx context.Context, cfg *config.Config) Report { return Run(ctx, Options{Config: cfg}) }

// Run does every check. It returns within Options.Timeout and a few seconds, also
// when ctx ends: what was not checked then is skipped or warned of.
func Run(ctx context.Context, o Options) Report {
	o = o.withDefaults()
	return o.run(ctx, o.groups())
}

func (o Options) groups() []group {
	groups := []group{o.dataDir(), o.listen(), o.stream(), o.machine()}
	if private, needed := o.private(); needed {
		groups = append(groups, private)
	}
	for _, d := range o.Config.Databases {
		groups = append(groups, o.database(d, thorough))
	}
	return groups
}

// Databases does the checks of the databases alone, and of those only what takes a
// few queries: no table is looked at. It is for readiness at start.
func Databases(ctx context.Context, o Options) Report {
	o = o.withDefaults()
	var groups []group
	for _, d := range o.Config.Databases {
		groups = append(groups, o.database(d, fast))
	}
	return o.run(ctx, groups)
}
