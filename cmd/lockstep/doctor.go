package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"lockstep/internal/config"
	"lockstep/internal/doctor"
	"lockstep/internal/stream"
)

type doctorCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"The configuration; default lockstep.yml here, or the defaults when there is none."`
	JSON   bool   `name:"json" help:"The same as -o json."`
}

// Help tells what the exit code means.
func (doctorCmd) Help() string {
	return `Checks the databases, the stream, the data directory, the address and this machine, and changes nothing.
With -q only what warns or fails is written.

Exit code: 0 nothing fails (there may be warnings), 1 something fails, 2 the configuration is bad,
3 this machine lacks something without which a node cannot start.`
}

// Run checks everything and writes what was found to standard output.
func (d *doctorCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	cfg, err := config.Load(d.Config, configOptions(s))
	if problems, ok := errors.AsType[config.Problems](err); ok {
		_, _ = fmt.Fprintln(s.err, problems.Error())
		return usageError{errQuiet}
	}
	if err != nil {
		return err
	}
	o := doctor.Options{Config: cfg, Gaps: func(ctx context.Context, database string) ([]string, error) {
		return openGaps(ctx, c, cfg, database)
	}}
	if u := cfg.Stream.URL.Reveal(); u != "" {
		o.Stream = func(ctx context.Context) error { return tryStream(ctx, u) }
	}
	r := doctor.Run(ctx, o)
	if ctx.Err() != nil {
		return context.Canceled
	}
	if d.JSON {
		p.format = "json"
	}
	if p.format != "table" {
		err = p.result(r, table{})
	} else {
		v := diagnosis{palette: plainPalette(), quiet: p.quiet}
		if s.colours(s.out) {
			v.palette = terminalPalette()
		}
		_, err = io.WriteString(s.out, v.text(r))
	}
	if err != nil {
		return err
	}
	if failed := r.Err(); failed != nil {
		// Everything is said; only the exit code is left.
		return fmt.Errorf("%w: %w", errQuiet, failed)
	}
	return nil
}

// defaultServer is what --server is when nobody names another; see [cli].
const defaultServer = "http://127.0.0.1:7300"

// tryStream logs in to an external stream, which makes nothing there.
func tryStream(ctx context.Context, url string) error {
	server, err := stream.Open(ctx, stream.Config{URL: url, Logger: quiet()})
	if err != nil {
		return err
	}
	return server.Close() //nolint:contextcheck // closing must not depend on the caller's context
}

// openGaps asks the node for what may be missing in the stream of a database: the
// node that --server names, else the one that the configuration describes.
func openGaps(ctx context.Context, c *cli, cfg *config.Config, database string) ([]string, error) {
	asked := *c
	if asked.Server == defaultServer {
		asked.Server = "http://" + cfg.Listen
	}
	for _, t := range cfg.Tokens {
		if asked.Token == "" && slices.Contains(t.Scopes, "admin") {
			asked.Token = t.Token.Reveal()
		}
	}
	api, err := asked.client()
	if err != nil {
		return nil, err
	}
	answer, err := api.Database(ctx, database)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, g := range answer.Gaps {
		where := "in every table"
		if len(g.Tables) > 0 {
			where = "in " + count(len(g.Tables), "table")
		}
		out = append(out, fmt.Sprintf("%s, %s, found %s", g.Reason, where, g.At.UTC().Format(time.RFC3339)))
	}
	return out, nil
}

// palette is how words look.
type palette struct{ good, bad, doubt, faint, bold, end string }

func plainPalette() palette { return palette{} }

func terminalPalette() palette {
	return palette{good: "\x1b[32m", bad: "\x1b[31m", doubt: "\x1b[33m", faint: "\x1b[2m", bold: "\x1b[1m", end: "\x1b[0m"}
}

// diagnosis writes a report for people.
type diagnosis struct {
	palette
	quiet bool
}

func (d diagnosis) text(r doctor.Report) string {
	var b strings.Builder
	widest := 0
	for _, f := range r.Findings {
		widest = max(widest, width(f.ID))
	}
	target := ""
	for i, f := range r.Findings {
		if d.quiet && (f.Status == doctor.Pass || f.Status == doctor.Skip) {
			continue
		}
		if f.Target != target {
			if b.Len() > 0 {
				b.WriteString("\n")
			}
			b.WriteString(d.bold + printable(f.Target) + d.end + "\n")
			target = f.Target
		}
		if more := alike(r.Findings[i:]); more > 1 {
			if i == 0 || r.Findings[i-1].Summary != f.Summary {
				fmt.Fprintf(&b, "  %s  %-*s  %s\n", d.mark(f.Status), widest, count(more, "check"), printable(f.Summary))
			}
			continue
		}
		if i > 0 && f.Status == doctor.Skip && r.Findings[i-1].Summary == f.Summary {
			continue
		}
		fmt.Fprintf(&b, "  %s  %s%s  %s\n", d.mark(f.Status), f.ID, strings.Repeat(" ", widest-width(f.ID)), printable(f.Summary))
		if f.Status == doctor.Pass || f.Status == doctor.Skip {
			continue
		}
		// Of several findings of one check the last one tells why it matters.
		last := i+1 == len(r.Findings) || r.Findings[i+1].ID != f.ID || r.Findings[i+1].Status == doctor.Pass
		d.advise(&b, f, last)
	}
	if b.Len() > 0 && !d.quiet {
		b.WriteString("\n")
	}
	if !d.quiet {
		b.WriteString(d.last(r) + "\n")
	}
	return b.String()
}

// alike returns how many checks from the first on were skipped for one reason.
func alike(all []doctor.Finding) int {
	n := 0
	for n < len(all) && all[n].Status == doctor.Skip && all[n].Target == all[0].Target && all[n].Summary == all[0].Summary {
		n++
	}
	return n
}

// advise writes what to do, as lines that can be copied, and why.
func (d diagnosis) advise(b *strings.Builder, f doctor.Finding, last bool) {
	for line := range strings.Lines(f.Remedy) {
		b.WriteString("          " + printable(strings.TrimRight(line, "\n")) + "\n")
	}
	if last {
		b.WriteString("        " + d.faint + "why: " + printable(f.Why) + d.end + "\n")
	}
}

func (d diagnosis) mark(s doctor.Status) string {
	switch s {
	case doctor.Pass:
		return d.good + "ok  " + d.end
	case doctor.Warn:
		return d.doubt + "warn" + d.end
	case doctor.Fail:
		return d.bad + "FAIL" + d.end
	case doctor.Skip:
	}
	return d.faint + "skip" + d.end
}

func (d diagnosis) last(r doctor.Report) string {
	n := r.Counts
	colour := d.good
	switch {
	case n.Fail > 0:
		colour = d.bad
	case n.Warn > 0:
		colour = d.doubt
	}
	return fmt.Sprintf("%s%d ok, %s, %d failed, %d skipped%s", colour, n.Pass, count(n.Warn, "warning"), n.Fail, n.Skip, d.end)
}
