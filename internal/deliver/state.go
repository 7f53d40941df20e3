package deliver

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"lockstep"
)

// state is what a consumer saves. Everything that matched below head is settled,
// except the entries and what the scopes say.
type state struct {
	node            uint64 // tells one opening of the consumer from another
	epoch, minEpoch uint32
	head            uint64
	acked, parked   uint64 // totals, for people
	entries         []savedEntry
	keys, tables    []savedScope
	parkedKeys      []savedParked
	fresh           []savedFresh
	gaps            []savedGap
	spent           []uint64
	winners         []winner
	epochs          []epochHead
	// The end of the log when it was saved: a log that ends before has lost something.
	end    uint64
	endLSN lockstep.LSN
	// What the clock said, in whole milliseconds: a restart under another clock tells by
	// it what was left of a wait. 0: unknown.
	clock int64
}

// mark says where the log ends.
func (s *state) mark(end lockstep.Mark) { s.end, s.endLSN = end.Seq, end.CommitLSN }

// floor returns a seq up to which everything is settled.
func (s *state) floor() uint64 {
	low := s.head
	if len(s.entries) > 0 {
		low = min(low, s.entries[0].seq)
	}
	for _, scopes := range [][]savedScope{s.keys, s.tables} {
		for _, scope := range scopes {
			low = min(low, scope.from)
		}
	}
	return low - min(low, 1)
}

// waitEnd says when a wait that was saved with the end at is over by a clock that says
// now. A clock that went on ends it where it was to end; one that was set back must not
// stretch it beyond what was left of it.
func (s *state) waitEnd(at, now int64) int64 {
	if at == 0 || s.clock == 0 {
		return at
	}
	return min(at, now+max(at-s.clock, 0))
}

type savedEntry struct {
	seq, key, table uint64
	attempts        uint32
	at              int64 // not before; 0: at once. Saved in whole milliseconds
	flags           flags
	blocked         bool
}

// savedScope is a key or a table whose changes from a seq on are unsettled.
type savedScope struct{ hash, table, from, n uint64 }

type savedParked struct{ key, first, n uint64 }

type savedFresh struct{ key, seq uint64 }

type savedGap struct {
	seq, first, missed uint64
	cause              gapCause
}

// The layout: version 2; then the fields in order, integers as varints, hashes as 8
// bytes little endian, lists led by their length; CRC-32C of all of it at the end.
// Version 1 has no end of the log, version 2 no clock and nothing that epochs left open.
const (
	stateVersion = 3
	savedFlags   = isBarrier | isWhole | isGap | hasLetter | isLate | again | unchecked

	// Bits of an entry's flags in the state beyond savedFlags.
	savedBlocked  = 1 << 10
	savedKeyIsSeq = 1 << 11
	savedAttempts = 1 << 12
	savedAt       = 1 << 13
)

// errNewerState says that another version of the program wrote a state.
var errNewerState = fmt.Errorf("it was written by a newer version: %w", lockstep.ErrCorrupt)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// append encodes the state into b, which is empty but may have room. Entries must be
// in ascending seq.
func (s *state) append(b []byte) []byte {
	b = append(b, stateVersion)
	b = binary.LittleEndian.AppendUint64(b, s.node)
	for _, n := range []uint64{uint64(s.epoch), uint64(s.minEpoch), s.head, s.acked, s.parked} {
		b = binary.AppendUvarint(b, n)
	}
	b = s.appendEntries(b)
	b = appendScopes(b, s.keys)
	b = appendScopes(b, s.tables)
	b = binary.AppendUvarint(b, uint64(len(s.parkedKeys)))
	for _, p := range s.parkedKeys {
		b = binary.LittleEndian.AppendUint64(b, p.key)
		b = binary.AppendUvarint(binary.AppendUvarint(b, p.first), p.n)
	}
	b = binary.AppendUvarint(b, uint64(len(s.fresh)))
	for _, f := range s.fresh {
		b = binary.AppendUvarint(binary.LittleEndian.AppendUint64(b, f.key), f.seq)
	}
	b = binary.AppendUvarint(b, uint64(len(s.gaps)))
	for _, g := range s.gaps {
		b = append(binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, g.seq), g.first), g.missed), byte(g.cause))
	}
	b = binary.AppendUvarint(b, uint64(len(s.spent)))
	for _, seq := range s.spent {
		b = binary.AppendUvarint(b, seq)
	}
	b = binary.AppendUvarint(b, uint64(len(s.winners)))
	for _, n := range s.winners {
		b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, n.seq), uint64(n.epoch)), n.delivery)
	}
	b = appendEpochs(b, s.epochs)
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.end), uint64(s.endLSN))
	b = appendLeftOpen(binary.AppendUvarint(b, uint64(s.clock/1e6)), s.epochs)
	return withChecksum(b)
}

func (s *state) appendEntries(b []byte) []byte {
	var tables []uint64
	number := map[uint64]uint64{}
	for _, e := range s.entries {
		if _, ok := number[e.table]; !ok {
			number[e.table] = uint64(len(tables))
			tables = append(tables, e.table)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(tables)))
	for _, t := range tables {
		b = binary.LittleEndian.AppendUint64(b, t)
	}
	b = binary.AppendUvarint(b, uint64(len(s.entries)))
	last := uint64(0)
	for _, e := range s.entries {
		b = binary.AppendUvarint(b, e.seq-last)
		last = e.seq
		f := uint64(e.flags & savedFlags)
		if e.blocked {
			f |= savedBlocked
		}
		if e.key == e.seq {
			f |= savedKeyIsSeq
		}
		if e.attempts > 0 {
			f |= savedAttempts
		}
		if e.at > 0 {
			f |= savedAt
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, f), number[e.table])
		if e.key != e.seq {
			b = binary.LittleEndian.AppendUint64(b, e.key)
		}
		if e.attempts > 0 {
			b = binary.AppendUvarint(b, uint64(e.attempts))
		}
		if e.at > 0 {
			b = binary.AppendUvarint(b, uint64(e.at/1e6))
		}
	}
	return b
}

func appendScopes(b []byte, scopes []savedScope) []byte {
	b = binary.AppendUvarint(b, uint64(len(scopes)))
	for _, s := range scopes {
		b = binary.LittleEndian.AppendUint64(b, s.hash)
		b = binary.LittleEndian.AppendUint64(b, s.table)
		b = binary.AppendUvarint(binary.AppendUvarint(b, s.from), s.n)
	}
	return b
}

// parseState is the inverse of append. Damaged bytes give an error that wraps
// lockstep.ErrCorrupt; they never panic.
func parseState(b []byte) (state, error) {
	var s state
	if len(b) < 5 {
		return s, fmt.Errorf("saved state is cut off: %w", lockstep.ErrCorrupt)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli()) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return s, fmt.Errorf("checksum of the saved state differs: %w", lockstep.ErrCorrupt)
	}
	if b[0] == 0 || b[0] > stateVersion {
		return s, fmt.Errorf("saved state is of version %d, this program knows 1 to %d: %w", b[0], stateVersion, errNewerState)
	}
	r := stateReader{b: body[1:]}
	s.node = r.hash()
	s.epoch, s.minEpoch = uint32(r.uint()), uint32(r.uint())
	s.head, s.acked, s.parked = r.uint(), r.uint(), r.uint()
	s.entries = r.entries()
	s.keys, s.tables = r.scopes(), r.scopes()
	s.parkedKeys = each(&r, 10, func() savedParked { return savedParked{r.hash(), r.uint(), r.uint()} })
	s.fresh = each(&r, 9, func() savedFresh { return savedFresh{r.hash(), r.uint()} })
	s.gaps = each(&r, 4, func() savedGap { return savedGap{r.uint(), r.uint(), r.uint(), gapCause(r.uint() & 1)} })
	s.spent = each(&r, 1, r.uint)
	s.winners = each(&r, 3, func() winner { return winner{seq: r.uint(), epoch: uint32(r.uint()), delivery: r.uint()} })
	s.epochs = each(&r, 2, func() epochHead { return epochHead{epoch: uint32(r.uint()), head: r.uint()} })
	if b[0] > 1 {
		s.end, s.endLSN = r.uint(), lockstep.LSN(r.uint())
	}
	if b[0] > 2 {
		s.clock = r.time()
		r.leftOpen(s.epochs)
	}
	if r.bad || len(r.b) > 0 || !slices.IsSortedFunc(s.entries, func(a, b savedEntry) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	}) {
		return state{}, fmt.Errorf("saved state is damaged: %w", lockstep.ErrCorrupt)
	}
	return s, nil
}

// stateReader reads fields off a slice and remembers running short.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

// time reads milliseconds since 1970.
func (r *stateReader) time() int64 {
	ms := r.uint()
	if ms > math.MaxInt64/1_000_000 {
		r.bad, r.b = true, nil
		return 0
	}
	return int64(ms) * 1e6
}

func (r *stateReader) hash() uint64 {
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return 0
	}
	n := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return n
}

// each reads a list whose items take at least size bytes.
func each[T any](r *stateReader, size int, read func() T) []T {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.bad, r.b = true, nil
		return nil
	}
	if n == 0 {
		return nil
	}
	list := make([]T, n)
	for i := range list {
		list[i] = read()
	}
	return list
}

func (r *stateReader) scopes() []savedScope {
	return each(r, 18, func() savedScope { return savedScope{r.hash(), r.hash(), r.uint(), r.uint()} })
}

func (r *stateReader) entries() []savedEntry {
	tables := each(r, 8, r.hash)
	last := uint64(0)
	return each(r, 3, func() savedEntry {
		e := savedEntry{seq: last + r.uint()}
		last = e.seq
		f := r.uint()
		e.flags, e.blocked = flags(f)&savedFlags, f&savedBlocked != 0
		t := r.uint()
		if t >= uint64(len(tables)) {
			r.bad = true
			return e
		}
		e.table, e.key = tables[t], e.seq
		if f&savedKeyIsSeq == 0 {
			e.key = r.hash()
		}
		if f&savedAttempts != 0 {
			e.attempts = uint32(r.uint())
		}
		if f&savedAt != 0 {
			e.at = r.time()
		}
		return e
	})
}

// withChecksum appends the checksum of a state's bytes.
func withChecksum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}
