package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Report is what a benchmark found out, and under which conditions.
type Report struct {
	Bench      string    `json:"bench"`
	About      string    `json:"about"` // what was measured, in one sentence
	At         time.Time `json:"at"`    // when it began
	Took       float64   `json:"took_seconds"`
	Quick      bool      `json:"quick"` // a quick run: its figures say nothing
	Conditions []string  `json:"conditions"`
	Machine    Machine   `json:"machine"`
	Figures    []Figure  `json:"figures"`
}

// Spread is how several runs came out.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Figure is one measured quantity over all runs.
type Figure struct {
	Case string `json:"case"` // what was done
	Name string `json:"name"` // what was counted
	Unit string `json:"unit"` // empty: a ratio
	Spread
	Runs  []float64 `json:"runs"`            // in the order in which they were taken
	Floor *Spread   `json:"floor,omitempty"` // of a ratio: the peer against itself, in the same run
	Aim   string    `json:"aim,omitempty"`
	// Reached says whether the median fulfils the aim; nil: there is none that a
	// number decides.
	Reached *bool `json:"reached,omitempty"`
}

func spread(runs []float64) Spread {
	sorted := slices.Sorted(slices.Values(runs))
	n := len(sorted)
	if n == 0 {
		return Spread{}
	}
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

func figure(of, name, unit string, runs []float64) Figure {
	return Figure{Case: of, Name: name, Unit: unit, Spread: spread(runs), Runs: runs}
}

// atLeast states the aim and whether the median reaches it.
func (f Figure) atLeast(aim float64, text string) Figure {
	reached := f.Median >= aim
	f.Aim, f.Reached = text, &reached
	return f
}

// below states the aim and whether the median stays under it.
func (f Figure) below(aim float64, text string) Figure {
	reached := f.Median < aim
	f.Aim, f.Reached = text, &reached
	return f
}

// surelyBelow states the aim, where the median of as many runs is for sure (in 19 cases
// of 20), and whether all of that stays under the aim. Reached is left open where it
// does not say: more rounds are needed.
func (f Figure) surelyBelow(aim float64, text string) Figure {
	low, high, known := medianRange(f.Runs)
	if f.Aim = text; !known {
		f.Aim += " (too few rounds to decide)"
		return f
	}
	f.Aim += fmt.Sprintf(" (median in %.2f to %.2f)", low, high)
	if reached := high < aim; reached || low >= aim {
		f.Reached = &reached
	}
	return f
}

// medianRange returns between which runs the median of whatever they are samples of lies
// with at least 95 %, by the sign test: it assumes nothing of how they are spread. Below
// six runs it is not known.
func medianRange(runs []float64) (low, high float64, known bool) {
	n := len(runs)
	// term is how likely it is that just k of n runs lie below the median, tail that no
	// more than k do.
	term := math.Pow(.5, float64(n))
	tail, k := term, 0
	for ; k < n && 2*tail <= .05; k++ {
		term *= float64(n-k) / float64(k+1)
		tail += term
	}
	if k == 0 {
		return 0, 0, false
	}
	sorted := slices.Sorted(slices.Values(runs))
	return sorted[k-1], sorted[n-k], true
}

// beside adds the noise floor.
func (f Figure) beside(floor []float64) Figure {
	s := spread(floor)
	f.Floor = &s
	return f
}

// plan is one benchmark.
type plan struct {
	name       string
	about      string
	conditions func(Options) []string
	measure    func(context.Context, Options) ([]Figure, error)
}

// run carries out the plan.
func (o Options) run(ctx context.Context, p plan) (Report, error) {
	o, err := o.filled()
	if err != nil {
		return Report{}, err
	}
	r := Report{Bench: p.name, About: p.about, At: time.Now().UTC(), Quick: o.Quick, Conditions: p.conditions(o), Machine: o.machine()}
	if r.Figures, err = p.measure(ctx, o); err != nil {
		return Report{}, fmt.Errorf("bench %s: %w", p.name, err)
	}
	r.Took = time.Since(r.At).Seconds()
	return r, nil
}

// Number writes a number as people read it: with as many digits as say something,
// and thousands apart.
func Number(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		text := strconv.FormatFloat(v, 'f', 0, 64)
		for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		return text
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
