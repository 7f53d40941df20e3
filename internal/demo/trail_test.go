package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"lockstep/client"
)

// still is an owner who changes nothing; a record's mark is its field "m".
type still struct{}

func (still) edit(context.Context, int) (edit, error) { return edit{}, errNothing }

func (still) mark(record json.RawMessage) string {
	var r struct{ M string }
	_ = json.Unmarshal(record, &r)
	return r.M
}

// delivery is a change of a record as the worker gets it, committed at a time.
func delivery(id, mark string, attempt int, committed time.Time) client.Delivery {
	d := client.Delivery{Attempt: attempt}
	d.Record = json.RawMessage(fmt.Sprintf(`{"upstream_id":%q,"data":{"m":%q}}`, id, mark))
	d.Metadata.CommitTimestamp = committed.UTC().Format(time.RFC3339Nano)
	return d
}

func TestATrailTimesEachEditOnce(t *testing.T) {
	t.Parallel()
	var shown []arrival
	trail := newTrail(nil, "stripe", "customers")
	trail.owner, trail.show = still{}, func(a arrival) { shown = append(shown, a) }
	trail.begin()
	at := time.Now().Add(time.Second).Truncate(time.Microsecond)
	after := func(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }

	trail.made(edit{id: "a", mark: "1"}, at)
	trail.arrived(delivery("b", "1", 1, after(100)), after(101)) // another record
	trail.arrived(delivery("a", "0", 1, after(110)), after(111)) // another change of this one
	trail.arrived(delivery("a", "1", 1, after(200)), after(203))
	trail.arrived(delivery("a", "1", 2, after(200)), after(900)) // it comes again
	trail.arrived(delivery("c", "2", 1, after(300)), after(301)) // faster than its owner's answer
	trail.made(edit{id: "c", mark: "2"}, after(302))
	trail.made(edit{id: "d", mark: "3"}, after(400)) // overtaken
	trail.made(edit{id: "d", mark: "4"}, after(500))
	if open := trail.open(); open != 1 {
		t.Errorf("%d edits have not arrived, want 1", open)
	}
	trail.arrived(delivery("d", "4", 1, after(600)), after(650))

	want := []struct{ row, worker time.Duration }{{200 * time.Millisecond, 3 * time.Millisecond}, {0, time.Millisecond}, {100 * time.Millisecond, 50 * time.Millisecond}}
	for i, w := range want {
		if i >= len(shown) || shown[i].toRow != w.row || shown[i].toWorker != w.worker {
			t.Fatalf("arrivals %+v, want %v", shown, want)
		}
	}
	if p50, p99 := trail.toWork.percentiles(); len(shown) != 3 || trail.open() != 0 || len(trail.toWork.list) != 5 || p50 != time.Millisecond || p99 != 50*time.Millisecond {
		t.Errorf("%d arrivals, %d open, times to the worker %v (p50 %s, p99 %s)", len(shown), trail.open(), trail.toWork.list, p50, p99)
	}
}

func TestTimesKeepTheNewest(t *testing.T) {
	t.Parallel()
	var list times
	for i := range 3 * samples {
		list.add(time.Duration(i))
	}
	if p50, p99 := list.percentiles(); len(list.list) != samples || p50 != 2*samples+samples/2 || p99 != 2*samples+samples*99/100 {
		t.Errorf("%d kept, p50 %d, p99 %d", len(list.list), p50, p99)
	}
}
