package wal

import (
	"slices"

	"lockstep/internal/capture/publish"
)

// maxTruncations is far more than what a database truncates between two surveys of
// package publish: 128 KB.
const maxTruncations = 1 << 14

// truncation is a table that the stream said was truncated, and by which transaction.
type truncation struct{ oid, xid uint32 }

// truncations are the latest that were met in this process, also those that the log
// had already. It is of Run's goroutine and of the decoders that follow each other.
type truncations struct {
	latest []truncation
	next   int // where the next one goes, once there are as many as are kept
}

func (t *truncations) met(oid, xid uint32) {
	now := truncation{oid, xid}
	if len(t.latest) < maxTruncations {
		t.latest = append(t.latest, now)
		return
	}
	t.latest[t.next] = now
	t.next = (t.next + 1) % maxTruncations
}

// forget is for another timeline, which gives the numbers of transactions again.
func (t *truncations) forget() { t.latest, t.next = nil, 0 }

// explain reports whether the stream has told of all that happened to the table: what
// emptied its partitions was TRUNCATE of the table itself. A TRUNCATE after a SAVEPOINT
// is not known by the number that the catalog has of it, and explains nothing.
func (t *truncations) explain(found publish.GapTable) bool {
	if len(found.TruncatedBy) == 0 {
		return false
	}
	for _, xid := range found.TruncatedBy {
		if !slices.Contains(t.latest, truncation{found.OID, xid}) {
			return false
		}
	}
	return true
}
