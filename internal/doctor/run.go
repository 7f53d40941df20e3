package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// verdict is a finding before the check's id, target and reason are put to it.
type verdict struct {
	status          Status
	summary, remedy string
	environment     bool
	fixable         bool
}

func pass(format string, args ...any) verdict {
	return verdict{status: Pass, summary: fmt.Sprintf(format, args...)}
}

func warn(remedy, format string, args ...any) verdict {
	return verdict{status: Warn, summary: fmt.Sprintf(format, args...), remedy: remedy}
}

func fail(remedy, format string, args ...any) verdict {
	return verdict{status: Fail, summary: fmt.Sprintf(format, args...), remedy: remedy}
}

func skip(format string, args ...any) verdict {
	return verdict{status: Skip, summary: fmt.Sprintf(format, args...)}
}

// lacking is a failure without which a node cannot start on this machine.
func lacking(remedy, format string, args ...any) verdict {
	v := fail(remedy, format, args...)
	v.environment = true
	return v
}

func one(v verdict) ([]verdict, error) { return []verdict{v}, nil }

// check looks at one thing.
type check struct {
	id    string
	why   string
	limit time.Duration // 0: limits.check
	run   func(context.Context) ([]verdict, error)
	// needed by the checks behind it in the group, which are skipped when it fails
	needed bool
	// fix does what a verdict with fixable asks for; nil: there is none.
	fix func(context.Context) ([]Done, error)
}

// group is the checks of one target, done one after the other.
type group struct {
	target string
	checks []check
	close  func() // may be nil
}

// run does the groups side by side.
func (o Options) run(ctx context.Context, groups []group) Report {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	found := make([][]Finding, len(groups))
	turns := make(chan struct{}, 8) // databases can be many
	var all sync.WaitGroup
	for i, g := range groups {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			found[i] = o.runGroup(ctx, g)
		})
	}
	all.Wait()
	r := Report{OK: true, Findings: slices.Concat(found...)}
	hide := o.hider()
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Target, f.Summary, f.Remedy = hide(f.Target), hide(f.Summary), hide(f.Remedy)
		r.count(f.Status)
	}
	return r
}

func (r *Report) count(s Status) {
	switch s {
	case Pass:
		r.Counts.Pass++
	case Warn:
		r.Counts.Warn++
	case Skip:
		r.Counts.Skip++
	case Fail:
		r.Counts.Fail++
		r.OK = false
	}
}

func (o Options) runGroup(ctx context.Context, g group) []Finding {
	if g.close != nil {
		defer g.close()
	}
	var out []Finding
	missing := ""
	for _, c := range g.checks {
		verdicts := []verdict{skip("not checked, because the check %s did not pass", missing)}
		if missing == "" {
			verdicts = o.runCheck(ctx, c)
		}
		for _, v := range verdicts {
			out = append(out, Finding{
				ID: c.id, Target: g.target, Status: v.status, Summary: v.summary, Why: c.why, Remedy: v.remedy, Environment: v.environment, Fixable: v.fixable,
			})
			if c.needed && missing == "" && (v.status == Fail || v.status == Skip) {
				missing = c.id
			}
		}
	}
	return out
}

// runCheck does one check within its time. A call of the operating system that does
// not come back (a network file system whose server is gone) cannot be ended: its
// goroutine is left behind, and that is said.
func (o Options) runCheck(ctx context.Context, c check) []verdict {
	limit := c.limit
	if limit == 0 {
		limit = o.limits.check
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan []verdict, 1)
	go func() { done <- guarded(ctx, c, limit) }()
	select {
	case v := <-done:
		return v
	case <-ctx.Done():
	}
	grace := time.NewTimer(o.limits.grace)
	defer grace.Stop()
	select {
	case v := <-done:
		return v
	case <-grace.C:
		return []verdict{c.unknown("it did not come back within %s", limit)}
	}
}

func guarded(ctx context.Context, c check, limit time.Duration) (out []verdict) {
	defer func() {
		if r := recover(); r != nil {
			out = []verdict{c.unknown("the check itself is broken: %v", r)}
		}
	}()
	out, err := c.run(ctx)
	switch {
	case err == nil:
		return out
	case errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return append(out, c.unknown("no answer within %s", limit))
	}
	return append(out, c.unknown("%s", reason(err)))
}

// unknown is the verdict of a check that could not be made. What others need must
// be known.
func (c check) unknown(format string, args ...any) verdict {
	v := warn("", "could not be checked: "+format, args...)
	if c.needed {
		v.status = Fail
	}
	return v
}

// reason is what an error says, in one line.
func reason(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("%s (SQLSTATE %s)", refused.Message, refused.Code)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return "the server gave no answer"
	}
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// hider returns a function that takes every secret of the configuration out of a
// text. Nothing should put one in; this is the second lock on that door.
func (o Options) hider() func(string) string {
	secrets := []string{o.Config.Key.Reveal()}
	for _, t := range o.Config.Tokens {
		secrets = append(secrets, t.Token.Reveal())
	}
	addresses := []string{o.Config.Stream.URL.Reveal()}
	for _, d := range o.Config.Databases {
		addresses = append(addresses, d.URL.Reveal())
		if d.URL == "" {
			addresses = append(addresses, o.privateURL(d.Name))
		}
	}
	for _, a := range addresses {
		secrets = append(secrets, passwords(a)...)
	}
	var pairs []string
	for _, s := range secrets {
		if len(s) > 3 { // shorter ones are parts of words
			pairs = append(pairs, s, "xxxxx")
		}
	}
	return strings.NewReplacer(pairs...).Replace
}

// passwords returns what is secret in an address: of Postgres, or of NATS, where a
// user without a password is a token.
func passwords(address string) []string {
	var out []string
	if c, err := pgconn.ParseConfig(address); err == nil && !slices.Contains([]string{c.User, c.Database, "postgres", "lockstep"}, c.Password) {
		out = append(out, c.Password) // one that is also a name would hide the name, and is none
	}
	for part := range strings.SplitSeq(address, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.User == nil || strings.HasPrefix(u.Scheme, "postgres") {
			continue
		}
		password, set := u.User.Password()
		if !set {
			password = u.User.Username()
		}
		out = append(out, password, url.QueryEscape(password))
	}
	return out
}
