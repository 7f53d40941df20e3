package demo

import (
	"slices"
	"time"
)

const samples = 4096 // times kept for the percentiles

// times are the newest of many lengths of time.
type times struct {
	list []time.Duration // a ring
	at   int
}

func (t *times) add(d time.Duration) {
	if len(t.list) < samples {
		t.list = append(t.list, d)
		return
	}
	t.list[t.at%samples] = d
	t.at++
}

// percentiles returns the 50th and the 99th; without any they are 0.
func (t *times) percentiles() (p50, p99 time.Duration) {
	sorted := slices.Sorted(slices.Values(t.list))
	if len(sorted) == 0 {
		return 0, 0
	}
	return sorted[len(sorted)/2], sorted[len(sorted)*99/100]
}
