package mirror

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// remembered is how many confirmations are remembered at least.
const remembered = 10_000

// recent remembers when rows were last looked at and found unchanged, which is not
// written. Without it a page that was read before such a look and comes after it
// would win. Only requests that are under way at once can meet so; a bounded memory
// is enough, and a restart, which ends all requests, may lose it.
type recent struct {
	now, before map[uint64]time.Time
}

func recentKey(collection, id string) uint64 {
	sum := sha256.Sum256([]byte(collection + "\x00" + id))
	return binary.BigEndian.Uint64(sum[:8])
}

func (r *recent) note(key uint64, at time.Time) {
	if r.now == nil || len(r.now) >= remembered {
		r.now, r.before = map[uint64]time.Time{}, r.now
	}
	r.now[key] = at
}

// last returns when the row was last confirmed; zero: not remembered.
func (r *recent) last(key uint64) time.Time {
	return latest(r.now[key], r.before[key])
}
