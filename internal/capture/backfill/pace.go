package backfill

import "time"

// pace finds the size of a page by how long the pages before took.
type pace struct {
	limit int // rows of the next page
	most  int
}

// What a page aims at.
const (
	firstLimit  = 500
	maxLimit    = 50_000
	targetTime  = 100 * time.Millisecond
	targetBytes = 2 << 20
)

func newPace(most int) pace { return pace{min(firstLimit, most), most} }

// took learns from a page of that many rows: it grows to four times at most, and shrinks to
// what would have been right.
func (p *pace) took(rows, bytes int, d time.Duration) {
	factor := 4.0
	if d > 0 {
		factor = min(factor, float64(targetTime)/float64(d))
	}
	if bytes > 0 {
		factor = min(factor, float64(targetBytes)/float64(bytes))
	}
	size := p.limit
	if factor < 1 && rows > 0 {
		size = min(size, rows) // a page that was cut says more than its limit
	}
	p.limit = min(max(int(float64(size)*factor), 1), p.most)
}

// tooLong is called when a page did not end in time; it reports whether a smaller
// one may.
func (p *pace) tooLong() bool {
	if p.limit == 1 {
		return false
	}
	p.limit = max(p.limit/10, 1)
	return true
}

// rate is how many rows went out lately.
type rate struct {
	at    time.Time
	rows  uint64
	value float64 // per second
}

// rateOver is how long a rate looks back, about.
const rateOver = 5 * time.Second

// count takes in the number of rows so far.
func (r *rate) count(now time.Time, rows uint64) {
	if r.at.IsZero() || rows < r.rows {
		r.at, r.rows = now, rows
		return
	}
	d := now.Sub(r.at)
	if d < 100*time.Millisecond {
		return
	}
	fresh := float64(rows-r.rows) / d.Seconds()
	weight := min(1, d.Seconds()/rateOver.Seconds())
	if r.value == 0 {
		weight = 1
	}
	r.value += (fresh - r.value) * weight
	r.at, r.rows = now, rows
}

// left is how long the rest takes at this rate; -1: unknown.
func (r *rate) left(rows, total uint64) time.Duration {
	if r.value <= 0 || total == 0 || rows > total {
		return -1
	}
	return time.Duration(float64(total-rows) / r.value * float64(time.Second)).Round(time.Second)
}
