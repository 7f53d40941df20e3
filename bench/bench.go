// Package bench measures Lockstep's hot paths beside a peer or a physical limit
// taken in the same run. README.md tells the method.
//
//  1. Figures are counted where the changes arrive, never by a metric of ours.
//  2. Every ratio comes from runs that alternate; the noise floor (the peer against
//     itself) is printed beside it.
//  3. Nothing outside a temporary directory and loopback is touched.
package bench

import (
	"io"
	"os"
	"slices"

	"lockstep/internal/pgdb/cluster"
)

// Options says how much to measure and where to write the report.
type Options struct {
	Rows   int    // changes per run; default 200,000
	Rounds int    // runs of each side; default 5
	PGBin  string // where Postgres' programs are; default: found on the machine
	Out    io.Writer
}

func (o *Options) defaults() error {
	if o.Rows == 0 {
		o.Rows = 200_000
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Out == nil {
		o.Out = os.Stdout
	}
	bin, err := cluster.FindBin(o.PGBin)
	o.PGBin = bin
	return err
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}
