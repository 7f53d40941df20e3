package pull

import (
	"cmp"
	"slices"
	"time"

	"lockstep/source"
)

// mostIDs is how many ids of a sweep are in memory, of 24 bytes each.
const mostIDs = 2 << 20

// slice is the part of all ids that a sweep looks at, by their hashes: when there are
// too many, the next sweeps look at the others.
type slice struct{ part, parts uint64 } // parts is a power of two

func sliceOf(s swept) slice {
	parts := max(s.Parts, 1)
	return slice{part: s.Part % parts, parts: parts}
}

// covers reports whether an id is in it.
func (s slice) covers(h uint64) bool { return h&(s.parts-1) == s.part }

// half is one half of it.
func (s slice) half() slice { return slice{part: s.part, parts: s.parts * 2} }

// next is where the next sweep goes on; zero when this one looked at everything.
func (s slice) next() (part, parts uint64) {
	if s.parts == 1 {
		return 0, 0
	}
	return (s.part + 1) % s.parts, s.parts
}

// entry is an id's hash, and when its record changed, in microseconds. Two ids that
// have the same hash make one deletion in many millions go unseen.
type entry struct {
	hash    uint64
	version int64
}

// shelf is the mirror's rows as a sweep finds them.
type shelf struct {
	slice
	entries []entry
}

func (s *shelf) add(id string, version time.Time) {
	h := hash(id)
	for len(s.entries) >= mostIDs {
		s.slice = s.half()
		s.entries = slices.DeleteFunc(s.entries, func(e entry) bool { return !s.covers(e.hash) })
	}
	if s.covers(h) {
		s.entries = append(s.entries, entry{h, micros(version)})
	}
}

// sort must be called between the last add and the first lacks.
func (s *shelf) sort() {
	slices.SortFunc(s.entries, func(a, b entry) int { return cmp.Compare(a.hash, b.hash) })
}

// lacks reports whether the mirror has not what is listed, or an older version of it.
func (s *shelf) lacks(r *source.Record) bool {
	h := hash(r.ID)
	i, found := slices.BinarySearchFunc(s.entries, h, func(e entry, h uint64) int { return cmp.Compare(e.hash, h) })
	return s.covers(h) && (!found || micros(r.Version) > s.entries[i].version)
}

// micros is a time as Postgres keeps it; 0: not known.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// idSet is the ids that a scan has found, as hashes.
type idSet struct {
	slice
	hashes []uint64
	listed int // ids that were offered
}

// page adds the ids of a page. What is listed as deleted does not count.
func (s *idSet) page(page source.Page) {
	for i := range page.Records {
		if !page.Records[i].Deleted {
			s.listed++
			s.add(hash(page.Records[i].ID))
		}
	}
}

func (s *idSet) add(h uint64) {
	if len(s.hashes) >= mostIDs {
		s.sort()
		for len(s.hashes) > mostIDs/2 {
			s.slice = s.half()
			s.hashes = slices.DeleteFunc(s.hashes, func(h uint64) bool { return !s.covers(h) })
		}
	}
	if s.covers(h) {
		s.hashes = append(s.hashes, h)
	}
}

// sort must be called between the last add and the first has.
func (s *idSet) sort() {
	slices.Sort(s.hashes)
	s.hashes = slices.Compact(s.hashes)
}

func (s *idSet) has(h uint64) bool {
	_, found := slices.BinarySearch(s.hashes, h)
	return found
}
