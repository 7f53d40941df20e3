package pull

import (
	"hash/fnv"

	"lockstep/source"
)

// circle finds lists whose cursors repeat, with Brent's algorithm: one cursor is
// remembered, at distances that double.
type circle struct {
	kept         uint64
	steps, limit int
}

// closes reports whether a list comes back to where it was.
func (c *circle) closes(next source.Cursor) bool {
	h := hash(next)
	if c.limit == 0 {
		*c = circle{kept: h, limit: 1}
		return false
	}
	if c.kept == h {
		return true
	}
	if c.steps++; c.steps >= c.limit {
		*c = circle{kept: h, limit: 2 * c.limit}
	}
	return false
}

// hash is the same in every process. The last step spreads what FNV leaves in the
// low bits.
func hash[T ~string | ~[]byte](text T) uint64 {
	f := fnv.New64a()
	_, _ = f.Write([]byte(text)) // never fails
	h := f.Sum64()
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}
