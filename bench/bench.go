// Package bench measures Lockstep's hot paths beside a peer or a physical limit
// taken in the same run. README.md tells the method.
//
//  1. Figures are counted where the changes arrive, never by a metric of ours. A run
//     in which a change is missing or comes again after its ack has no result but an
//     error.
//  2. Every ratio comes from runs that alternate; the noise floor (the peer against
//     itself) is beside it.
//  3. Nothing outside a temporary directory and loopback is touched, and nothing is
//     left behind.
package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/cluster"
)

// Options says how much to measure. The zero value of a number is its default; the
// quick run's default stands behind it in parentheses.
type Options struct {
	Quick       bool // small numbers, to see that everything works: its figures say nothing
	Rows        int  // changes per run; 200,000 (20,000); rounded up to a multiple of 2,000
	Rounds      int  // runs of each side; 5 (2)
	Backlog     int  // changes of a backlog; 1,000,000 (40,000); rounded up likewise
	Transaction int  // rows of the large transaction; 5,000,000 (100,000)
	// Parts are what of Send is measured; none: all of [SendParts].
	Parts []string

	PGBin   string // where Postgres' programs are; default: found on the machine
	Version string // of lockstep, for the report
	Binary  string // the lockstep program, for what measures a process of its own
	Dir     string // where the temporary directory is made; default: the system's
	// Within runs the node in this process instead of one of its own, so that a
	// profile of this process shows it. Its CPU time then includes the client's.
	Within bool

	Progress io.Writer // one line per step; default: none
}

func (o Options) filled() (Options, error) {
	fill(&o.Rows, o.pick(200_000, 20_000))
	fill(&o.Rounds, o.pick(5, 2))
	fill(&o.Backlog, o.pick(1_000_000, 40_000))
	fill(&o.Transaction, o.pick(5_000_000, 100_000))
	if o.Rows < 1 || o.Rounds < 1 || o.Backlog < 1 || o.Transaction < 1 {
		return o, fmt.Errorf("rows, rounds, backlog and transaction must be at least 1: %w", lockstep.ErrInvalid)
	}
	for _, part := range o.Parts {
		if !slices.Contains(SendParts(), part) {
			return o, fmt.Errorf("there is no part %q: use %s: %w", part, strings.Join(SendParts(), ", "), lockstep.ErrInvalid)
		}
	}
	// Shares of it are still whole transactions of 100.
	o.Rows, o.Backlog = roundUp(o.Rows, 2000), roundUp(o.Backlog, 2000)
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	var err error
	o.PGBin, err = cluster.FindBin(o.PGBin)
	return o, err
}

func (o Options) pick(full, quick int) int {
	if o.Quick {
		return quick
	}
	return full
}

// fewer is the number of rounds of what takes long or measures no ratio.
func (o Options) fewer() int { return max(o.Rounds/2, 1) }

func (o Options) say(format string, args ...any) {
	fmt.Fprintf(o.Progress, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func fill(n *int, value int) {
	if *n == 0 {
		*n = value
	}
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
