package console

import "testing"

// A node that has just begun has no empty hour before it, but five minutes are shown.
func TestAChartBeginsWithItsFirstSample(t *testing.T) {
	t.Parallel()
	one := 1.0
	for _, c := range []struct{ samples, missing, want int }{{360, 0, 360}, {360, 200, 160}, {360, 355, leastShown}, {360, 360, leastShown}, {10, 9, 10}, {0, 0, 0}} {
		at, values := make([]int64, c.samples), make([]*float64, c.samples)
		for i := c.missing; i < c.samples; i++ {
			values[i] = &one
		}
		var ch chart
		ch.add(at, "a", values)
		ch.begin()
		if len(ch.At) != c.want || len(ch.Series[0].Values) != c.want {
			t.Errorf("%d samples of which %d are missing: %d are shown, want %d", c.samples, c.missing, len(ch.At), c.want)
		}
	}
}
