package stream

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLetterSetIsASortedMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		set, want := &letterSet{}, map[uint64]letterEntry{}
		seq := rapid.Uint64Range(1, 9000)
		for at := range rapid.Uint64Range(1, 60).Draw(t, "steps") {
			at++
			first := seq.Draw(t, "seq")
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				for i := range rapid.SampledFrom([]uint64{1, 3, 1500}).Draw(t, "many") {
					e := letterEntry{first + i*2, at, at ^ i}
					set.put(e)
					set.put(letterEntry{e.seq, at - 1, 7}) // an older one changes nothing
					want[e.seq] = e
				}
			case 2:
				for i := range rapid.SampledFrom([]uint64{1, 3, 1500}).Draw(t, "many") {
					set.remove(first+i, want[first+i].at-min(want[first+i].at, 1)) // not what replaced it
					if i%3 == 0 {
						set.remove(first+i, at)
						delete(want, first+i)
					}
				}
			case 3:
				lives := func(at uint64) bool { return at%5 != 0 }
				set.keep(lives)
				maps.DeleteFunc(want, func(_ uint64, e letterEntry) bool { return !lives(e.at) })
			}
		}
		seqs := slices.Sorted(maps.Keys(want))
		var got, listed []letterEntry
		set.all(func(e letterEntry) bool {
			got = append(got, e)
			return true
		})
		for _, s := range seqs {
			e, _ := set.get(s)
			listed = append(listed, want[s])
			if e != want[s] {
				t.Fatalf("letter %d is %v, want %v", s, e, want[s])
			}
		}
		if !slices.Equal(got, listed) || set.n != len(seqs) {
			t.Fatalf("the set has %d letters and says %d, want %d", len(got), set.n, len(seqs))
		}
		from, limit := seq.Draw(t, "from"), rapid.IntRange(1, 3000).Draw(t, "limit")
		above := slices.DeleteFunc(slices.Clone(seqs), func(s uint64) bool { return s <= from })
		below := slices.DeleteFunc(slices.Clone(seqs), func(s uint64) bool { return s >= from })
		slices.Reverse(below)
		check := func(what string, want, got []uint64, more bool) {
			if len(want) > limit != more || cmp.Diff(want[:min(limit, len(want))], got) != "" && len(want)+len(got) > 0 {
				t.Fatalf("%s %d: got %d, more %t; want %d", what, from, len(got), more, len(want))
			}
		}
		page, more := set.after(from, limit)
		check("after", above, page, more)
		page, more = set.before(from, limit)
		check("before", below, page, more)
		odd := func(key uint64) bool { return key%2 == 1 }
		page, more = set.search(from, limit, odd)
		check("odd after", slices.DeleteFunc(slices.Clone(above), func(s uint64) bool { return !odd(want[s].key) }), page, more)
		if n := set.behind(from); n != uint64(len(above)) {
			t.Fatalf("%d behind %d, want %d", n, from, len(above))
		}
	})
}
