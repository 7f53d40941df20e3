package wal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"lockstep"
	"lockstep/internal/capture/publish"
)

// Snapshot is what a reading transaction saw: pg_current_snapshot(). The zero
// Snapshot saw nothing.
type Snapshot struct {
	Min, Max uint64   // transactions before Min are seen, those from Max on are not
	Running  []uint64 // of those between, not seen; ascending
}

// ParseSnapshot reads the text form of a pg_snapshot, such as 10:20:10,14.
func ParseSnapshot(text string) (Snapshot, error) {
	var s Snapshot
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("%q is not a snapshot: expected the form 10:20:10,14: %w", text, lockstep.ErrInvalid)
	}
	var failed [2]error
	s.Min, failed[0] = strconv.ParseUint(parts[0], 10, 64)
	s.Max, failed[1] = strconv.ParseUint(parts[1], 10, 64)
	if err := errors.Join(failed[:]...); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: %w: %w", text, err, lockstep.ErrInvalid)
	}
	if parts[2] == "" {
		return s, nil
	}
	for field := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("snapshot %q: %w: %w", text, err, lockstep.ErrInvalid)
		}
		s.Running = append(s.Running, xid)
	}
	return s, nil
}

// Sees reports whether the snapshot saw what the transaction did. The stream names
// transactions by the low half of their number: the one nearest to Max is meant.
func (s Snapshot) Sees(xid uint32) bool {
	if s.Max == 0 {
		return false
	}
	full := s.Max&^math.MaxUint32 | uint64(xid)
	switch {
	case full > s.Max && full-s.Max > 1<<31:
		if full < 1<<32 {
			return true // of a time before the counter began: long over
		}
		full -= 1 << 32
	case full < s.Max && s.Max-full > 1<<31:
		full += 1 << 32
	}
	if full < s.Min {
		return true
	}
	if full >= s.Max {
		return false
	}
	_, running := slices.BinarySearch(s.Running, full)
	return !running
}

// Page is rows of one table that a transaction read, to be put between the changes.
type Page struct {
	// Table describes the table as the reader saw it: OID, names, Identity, KeyKind,
	// Columns and KeyColumns; Rows and Reason are not looked at. For Delete, Columns
	// are those of the key only.
	Table publish.TableMessage
	// Consumer and Progress become the members of [lockstep.Table].
	Consumer string
	Progress string
	Extra    string          // fragment of each row's metadata, such as `,"backfill":{"id":"…"}`
	Action   lockstep.Action // Read or Delete
	// Snapshot is of the transaction that read. Zero (for Delete): every change of a
	// key since the low watermark overrides its row.
	Snapshot Snapshot
	// Values are row after row, one per column: Postgres' text under the settings
	// that capture pins (see package publish); nil is NULL.
	Values [][]byte
}

// rows returns how many rows the page has.
func (p *Page) rows() int {
	if len(p.Table.Columns) == 0 {
		return 0
	}
	return len(p.Values) / len(p.Table.Columns)
}

// maxProgress is what a batch can carry, see [lockstep.Table].
const maxProgress = math.MaxUint16

func (p *Page) check(oid uint32) error {
	switch {
	case p.Table.OID != oid:
		return fmt.Errorf("a page of the table with oid %d where %d was announced", p.Table.OID, oid)
	case p.Action != lockstep.Read && p.Action != lockstep.Delete:
		return fmt.Errorf("a page with action %s: only read and delete", p.Action)
	case len(p.Table.Columns) == 0 && len(p.Values) > 0, len(p.Table.Columns) > 0 && len(p.Values)%len(p.Table.Columns) != 0:
		return fmt.Errorf("a page of %d values in rows of %d columns", len(p.Values), len(p.Table.Columns))
	case len(p.Progress) > maxProgress || len(p.Consumer) > maxProgress:
		return fmt.Errorf("a page with a progress of %d bytes: at most %d", len(p.Progress), maxProgress)
	}
	return nil
}

// Interleaved is what became of a page.
type Interleaved struct {
	Written    int // rows put into the log
	Overridden int // rows left out, because a newer change of the key lies in the log before them
	// Again are those of the overridden rows, by their index in the page and
	// ascending, whose newer change does not carry the whole row (a value stored out
	// of line and unchanged is not sent): read them again.
	Again []int
	Seq   uint64 // of the last change in the log at that place
}
