package stream

import (
	"slices"
	"sort"
)

// letterEntry is what the index knows of a letter.
type letterEntry struct {
	seq uint64
	at  uint64 // the number of its message
	key uint64 // Letter.Key
}

// letterSet is one consumer's letters, sorted by seq, in blocks: adding and removing
// one moves at most a block. A letter takes 24 bytes.
type letterSet struct {
	blocks []*letterBlock // none is empty
	n      int
}

// letterBlock has the three members of its letters in a slice each: looking for a key
// then touches a third of the memory.
type letterBlock struct{ seqs, ats, keys []uint64 }

const blockLetters = 1024

// find returns where a seq is, or would be inserted.
func (s *letterSet) find(seq uint64) (block, at int, found bool) {
	block = sort.Search(len(s.blocks), func(i int) bool { return s.blocks[i].last() >= seq })
	if block == len(s.blocks) {
		return block, 0, false
	}
	at, found = slices.BinarySearch(s.blocks[block].seqs, seq)
	return block, at, found
}

func (b *letterBlock) last() uint64 { return b.seqs[len(b.seqs)-1] }

func (s *letterSet) get(seq uint64) (letterEntry, bool) {
	block, at, found := s.find(seq)
	if !found {
		return letterEntry{}, false
	}
	b := s.blocks[block]
	return letterEntry{b.seqs[at], b.ats[at], b.keys[at]}, true
}

// put adds a letter, or replaces one whose message is older.
func (s *letterSet) put(e letterEntry) {
	block, at, found := s.find(e.seq)
	if found {
		if b := s.blocks[block]; b.ats[at] < e.at {
			b.ats[at], b.keys[at] = e.at, e.key
		}
		return
	}
	s.n++
	if block == len(s.blocks) {
		if block == 0 || len(s.blocks[block-1].seqs) >= blockLetters {
			s.blocks = append(s.blocks, &letterBlock{})
		} else {
			block--
			at = len(s.blocks[block].seqs)
		}
	}
	b := s.blocks[block]
	if len(b.seqs) >= blockLetters {
		half := len(b.seqs) / 2
		upper := &letterBlock{slices.Clone(b.seqs[half:]), slices.Clone(b.ats[half:]), slices.Clone(b.keys[half:])}
		s.blocks = slices.Insert(s.blocks, block+1, upper)
		b.seqs, b.ats, b.keys = b.seqs[:half], b.ats[:half], b.keys[:half]
		if at > half {
			b, at = upper, at-half
		}
	}
	b.seqs, b.ats, b.keys = slices.Insert(b.seqs, at, e.seq), slices.Insert(b.ats, at, e.at), slices.Insert(b.keys, at, e.key)
}

// remove removes a letter whose message is that or an older one.
func (s *letterSet) remove(seq, upTo uint64) {
	block, at, found := s.find(seq)
	if !found || s.blocks[block].ats[at] > upTo {
		return
	}
	s.n--
	b := s.blocks[block]
	if len(b.seqs) == 1 {
		s.blocks = slices.Delete(s.blocks, block, block+1)
		return
	}
	b.seqs, b.ats, b.keys = slices.Delete(b.seqs, at, at+1), slices.Delete(b.ats, at, at+1), slices.Delete(b.keys, at, at+1)
}

// keep removes every letter whose message is not among those.
func (s *letterSet) keep(lives func(at uint64) bool) {
	s.n = 0
	for _, b := range s.blocks {
		n := 0
		for i, at := range b.ats {
			if lives(at) {
				b.seqs[n], b.ats[n], b.keys[n] = b.seqs[i], b.ats[i], b.keys[i]
				n++
			}
		}
		b.seqs, b.ats, b.keys = b.seqs[:n], b.ats[:n], b.keys[:n]
		s.n += n
	}
	s.blocks = slices.DeleteFunc(s.blocks, func(b *letterBlock) bool { return len(b.seqs) == 0 })
}

// all calls yield with every letter in the order of seqs.
func (s *letterSet) all(yield func(letterEntry) bool) {
	for _, b := range s.blocks {
		for i := range b.seqs {
			if !yield(letterEntry{b.seqs[i], b.ats[i], b.keys[i]}) {
				return
			}
		}
	}
}

// after returns up to limit seqs above seq, and whether there are more.
func (s *letterSet) after(seq uint64, limit int) (seqs []uint64, more bool) {
	return s.search(seq, limit, func(uint64) bool { return true })
}

// search is after for letters whose key suits.
func (s *letterSet) search(seq uint64, limit int, suits func(key uint64) bool) (seqs []uint64, more bool) {
	block, at, found := s.find(seq)
	if found {
		at++
	}
	for ; block < len(s.blocks); block, at = block+1, 0 {
		b := s.blocks[block]
		for i := at; i < len(b.keys); i++ {
			if !suits(b.keys[i]) {
				continue
			}
			if len(seqs) == limit {
				return seqs, true
			}
			seqs = append(seqs, b.seqs[i])
		}
	}
	return seqs, false
}

// before returns up to limit seqs below seq, 0: the highest, in descending order, and
// whether there are more.
func (s *letterSet) before(seq uint64, limit int) (seqs []uint64, more bool) {
	block, at := len(s.blocks), 0
	if seq > 0 {
		block, at, _ = s.find(seq)
	}
	for {
		for at > 0 {
			if len(seqs) == limit {
				return seqs, true
			}
			at--
			seqs = append(seqs, s.blocks[block].seqs[at])
		}
		if block == 0 {
			return seqs, false
		}
		block--
		at = len(s.blocks[block].seqs)
	}
}

// behind returns how many letters have seqs above seq.
func (s *letterSet) behind(seq uint64) uint64 {
	block, at, found := s.find(seq)
	if found {
		at++
	}
	n := -at
	for ; block < len(s.blocks); block++ {
		n += len(s.blocks[block].seqs)
	}
	return uint64(max(n, 0))
}
