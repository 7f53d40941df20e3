package deliver

import (
	"fmt"

	"pgregory.net/rapid"
)

// checkBooks compares what the window keeps in step with what it could count.
func checkBooks(t *rapid.T, w *window) {
	var counts [blocked + 1]int
	n, avail := 0, 0
	last := uint64(0)
	for s := w.first; s != none; s = w.entries[s].aNext {
		e := w.entries[s]
		if e.seq <= last && last != 0 {
			t.Fatalf("not in order: %d after %d", e.seq, last)
		}
		last = e.seq
		counts[e.phase]++
		n++
	}
	for _, k := range w.keyOf {
		kk := w.keys[k]
		length, busy := int32(0), int32(0)
		for s := kk.head; s != none; s = w.entries[s].kNext {
			length++
			if w.entries[s].phase == leased {
				busy++
			}
		}
		if length != kk.n || busy != kk.busy {
			t.Fatalf("key %d: %d changes and %d out, the books say %d and %d", kk.hash, length, busy, kk.n, kk.busy)
		}
		if kk.spot == inReady {
			avail += int(kk.n)
		}
	}
	overflow := uint64(0)
	for _, k := range w.overKeys {
		overflow += w.keys[k].overN
	}
	for _, tt := range w.overTabs {
		overflow += w.tables[tt].overN
	}
	counts[free] = w.counts[free]
	if counts != w.counts || n != w.n || avail != w.avail || overflow != w.overflow {
		t.Fatalf("counted %v, %d, %d ready, %d not kept; the books say %v, %d, %d, %d", counts, n, avail, overflow, w.counts, w.n, w.avail, w.overflow)
	}
}

func dump(w *window) string {
	text := fmt.Sprintf("head %d, %d unsettled, %d overflow, holds %v, avail %d:", w.head, w.n, w.overflow, w.holds, w.avail)
	for s := w.first; s != none; s = w.entries[s].aNext {
		e := w.entries[s]
		text += fmt.Sprintf(" %d(key %d phase %d flags %d at %d)", e.seq, w.keys[e.key].hash, e.phase, e.flags, e.at)
	}
	return text
}
