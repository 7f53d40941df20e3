package mirror_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"lockstep/internal/mirror"
	"lockstep/source"
)

// life is what really happened to a record: at each second it has a version, or does
// not exist.
type life struct {
	versioned bool  // the API says when a record changed
	changes   []int // seconds; negative: it was deleted at that second
}

// drawLife draws a life that ends at second 100 at the latest.
func drawLife(t *rapid.T) life {
	l := life{versioned: rapid.Bool().Draw(t, "versioned")}
	at, alive := 0, false
	for range rapid.IntRange(1, 6).Draw(t, "changes") {
		at += rapid.IntRange(2, 15).Draw(t, "later")
		if alive && rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
			l.changes, alive = append(l.changes, -at), false
		} else {
			l.changes, alive = append(l.changes, at), true
		}
	}
	return l
}

// at is the version that exists at a second; 0: none.
func (l life) at(second int) (version int) {
	for _, c := range l.changes {
		if max(c, -c) <= second {
			version = max(c, 0)
		}
	}
	return version
}

// content is what a version says: now and then what another one said too.
func content(version int) string { return fmt.Sprintf(`{"v":%d}`, version%3) }

// sight is one look at the record, as an API gives it.
type sight struct {
	at     int
	record source.Record
}

// look is what list or object show at a second.
func (l life) look(at int, rank source.Rank) (s sight, ok bool) {
	version := l.at(at)
	if version == 0 {
		return sight{at, gone("r", 0)}, rank == source.RankObject && at > l.changes[0] // not listed: nothing is heard
	}
	r := record("r", 0, content(version))
	if r.Rank = rank; l.versioned {
		r.Version = day(version)
	}
	return sight{at, r}, true
}

// event is what the API's log told of a change, when it was read later.
func (l life) event(change, at int) sight {
	if change < 0 {
		return sight{at, gone("r", -change)}
	}
	r := record("r", change, content(change))
	r.Rank = source.RankEvent
	return sight{at, r}
}

// Whatever is seen of a record, in whatever order and however often it is applied,
// the mirror ends with what was true last, if that was seen at all.
func TestLooksConvergeInAnyOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		l := drawLife(t)
		const end = 120
		var sights []sight
		last, _ := l.look(end, source.RankObject)
		sights = append(sights, last)
		for range rapid.IntRange(0, 8).Draw(t, "looks") {
			rank := rapid.SampledFrom([]source.Rank{source.RankList, source.RankObject}).Draw(t, "rank")
			if s, ok := l.look(rapid.IntRange(1, end-1).Draw(t, "at"), rank); ok {
				sights = append(sights, s)
			}
		}
		if l.versioned {
			for _, c := range l.changes {
				if rapid.Bool().Draw(t, "told") {
					sights = append(sights, l.event(c, max(c, -c)+rapid.IntRange(0, 10).Draw(t, "late")))
				}
			}
		}
		order := rapid.SliceOfN(rapid.IntRange(0, len(sights)-1), 0, 2*len(sights)).Draw(t, "repeated")
		order = append(order, rapid.Permutation(slices.Collect(iota(len(sights)))).Draw(t, "order")...)
		n++
		id := fmt.Sprint("r", n)
		for _, i := range order {
			r := sights[i].record
			r.ID = id
			if _, err := f.Apply(f.t.Context(), mirror.Change{Collection: "thing", Records: []source.Record{r}, At: day(sights[i].at)}); err != nil {
				t.Fatal(err)
			}
		}
		got, want := f.query("SELECT _raw::text FROM api.thing WHERE id = '"+id+"'"), l.at(end)
		switch {
		case want == 0 && len(got) != 0:
			t.Fatalf("life %v: deleted, and there is %v", l.changes, got)
		case want != 0 && (len(got) != 1 || got[0][0] != fmt.Sprintf(`{"v": %d}`, want%3)):
			t.Fatalf("life %v: got %v, want v %d", l.changes, got, want%3)
		}
	})
}

func iota(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// Re-reading everything after everything was applied changes nothing.
func TestConvergedIsStable(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	pages := []mirror.Change{
		{Collection: "customer", At: day(10), Records: []source.Record{customer("a", 5, 1), customer("b", 6, 2), gone("c", 7)}},
		{Collection: "customer", At: day(20), Records: []source.Record{customer("a", 15, 3), gone("b", 12), customer("c", 4, 4)}},
		{Collection: "customer", At: day(30), Records: []source.Record{customer("d", 0, 5), gone("e", 0), customer("c", 25, 6)}},
	}
	for _, p := range pages {
		f.apply(p)
	}
	state := func() string {
		return fmt.Sprint(f.query("SELECT xmin, * FROM api.customer ORDER BY id"), f.query("SELECT xmin, * FROM lockstep.tombstone ORDER BY id"))
	}
	before := state()
	for range 3 {
		for _, p := range slices.Backward(pages) {
			f.apply(p)
		}
	}
	if after := state(); after != before {
		t.Errorf("rows were written again:\n%s\n%s", before, after)
	}
}
