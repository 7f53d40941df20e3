package deliver

import (
	"encoding/binary"
	"slices"
)

// epochHead says where an epoch began, and with it what the one before left behind:
// what lies at or above head, and what is left open below it, was not settled by a
// token of an earlier epoch.
type epochHead struct {
	epoch uint32
	head  uint64
	open  []uint64 // ascending
	// The rest of long queues, which is not told one by one.
	keys, tables []savedScope
}

// openLimit bounds how many changes all epochs together remember as left open: they
// are part of every save. Of those beyond it a late ack is taken for the one that
// settled the change.
const openLimit = 16_384

// beganWith makes the epoch that follows on what was saved.
func beganWith(epoch uint32, s state) epochHead {
	e := epochHead{epoch: epoch, head: s.head, keys: slices.Clone(s.keys), tables: slices.Clone(s.tables)}
	for _, entry := range s.entries {
		e.open = append(e.open, entry.seq)
	}
	return e
}

// boundEpochs lets the oldest epochs forget what was left open, until the limit is kept.
func boundEpochs(list []epochHead) {
	n := 0
	for i, e := range slices.Backward(list) {
		if n += len(e.open) + len(e.keys) + len(e.tables); n > openLimit {
			list[i].open, list[i].keys, list[i].tables = nil, nil, nil
		}
	}
}

// leftOpen reports whether the change of a token was unsettled when its epoch ended:
// whatever settled it came later.
func (w *window) leftOpen(t token) bool {
	for _, e := range w.epochs {
		if e.epoch <= t.epoch {
			continue
		}
		if t.seq >= e.head {
			return true
		}
		if _, found := slices.BinarySearch(e.open, t.seq); found {
			return true
		}
		return slices.ContainsFunc(e.keys, func(k savedScope) bool { return k.hash == t.key && t.seq >= k.from }) ||
			slices.ContainsFunc(e.tables, func(k savedScope) bool { return uint32(k.hash) == t.table && t.seq >= k.from })
	}
	return t.seq >= w.head
}

func appendEpochs(b []byte, list []epochHead) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, e := range list {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(e.epoch)), e.head)
	}
	return b
}

func appendLeftOpen(b []byte, list []epochHead) []byte {
	for _, e := range list {
		b = binary.AppendUvarint(b, uint64(len(e.open)))
		last := uint64(0)
		for _, seq := range e.open {
			b = binary.AppendUvarint(b, seq-last)
			last = seq
		}
		b = appendScopes(appendScopes(b, e.keys), e.tables)
	}
	return b
}

// leftOpen reads into the epochs what appendLeftOpen has written of them.
func (r *stateReader) leftOpen(list []epochHead) {
	for i := range list {
		last := uint64(0)
		list[i].open = each(r, 1, func() uint64 { last += r.uint(); return last })
		list[i].keys, list[i].tables = r.scopes(), r.scopes()
		if !slices.IsSorted(list[i].open) {
			r.bad = true
		}
	}
}
