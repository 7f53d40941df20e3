package publish

import (
	"cmp"
	"slices"
	"strings"

	"lockstep"
)

// Class says for which operations a table can be published, or is.
type Class string

// The classes, from best to worst.
const (
	Full       Class = "full"        // every operation
	InsertOnly Class = "insert_only" // INSERT and TRUNCATE; UPDATE and DELETE would fail or could not be told apart
	None       Class = "none"        // nothing: no events
)

// Joined says what became of the rows that a table had when it was taken in after
// capture began. It is known to the Reconciler that took the table in, and is empty
// for every other table.
type Joined string

// What became of the rows.
const (
	RowsSent    Joined = "rows_sent"    // in the log, at their exact place
	RowsMissing Joined = "rows_missing" // not in the log: the reason says why; a backfill brings them
)

// TableState is one relation that the patterns match, and how it is captured. A
// partitioned table stands for its partitions, which are then not listed.
type TableState struct {
	OID          uint32
	Schema, Name string
	Kind         string // table, partitioned table, view, materialized view, foreign table, sequence

	Class     Class // what its replica identity allows
	Published Class // what the publications list it for now; from Survey always None
	// Reason says what is not as it should be, and Remedy what a person can do:
	// SQL with the lock it takes. Both are empty for a table that is as it should be;
	// several are separated by "; " and by line breaks.
	Reason, Remedy string
	Note           string // what a captured table's changes lack, or what to expect of it

	// Identity is what old rows in its changes hold, for all its partitions together:
	// "d" the primary key, "i" the identity index's columns, "f" all columns,
	// "n" nothing. The letter in a Relation message is the partitioned table's own
	// and may promise more than its partitions deliver.
	Identity   string
	Key        lockstep.KeyKind
	KeyColumns []string // in the order of the index; empty for KeyRow

	Joined Joined
}

// What notes say of many tables, by the nature of Postgres. Notes are separated by
// [NoteSeparator].
const (
	NoteOldValues  = "old values are not known, and large values that an update leaves alone are absent: REPLICA IDENTITY FULL gives both"
	NotePartitions = "TRUNCATE of a single partition, and partitions that come or go with rows, have no events: they are found a moment later and told as a gap"
	NoteNoKey      = "no key: the whole row identifies it, and equal rows cannot be told apart"

	NoteSeparator = "; "
)

// WouldRefuse is part of the reason of tables whose updates and deletes a publication
// would make fail.
const WouldRefuse = ", so Postgres would refuse its updates and deletes"

// Unusual returns what a note says besides what holds for many tables.
func Unusual(note string) string {
	var left []string
	for part := range strings.SplitSeq(note, NoteSeparator) {
		if part != NoteOldValues && part != NotePartitions && part != NoteNoKey {
			left = append(left, part)
		}
	}
	return strings.Join(left, NoteSeparator)
}

// String returns schema.name, unquoted.
func (t TableState) String() string { return t.Schema + "." + t.Name }

// Degraded reports whether changes of the table are missing in the stream that
// would be there if Remedy were followed.
func (t TableState) Degraded() bool { return t.Class != Full || t.Published != t.Class }

func (t *TableState) add(f finding) {
	t.Reason = join(t.Reason, f.reason, "; ")
	t.Remedy = join(t.Remedy, f.remedy, "\n")
}

func (t *TableState) note(text string) { t.Note = join(t.Note, text, NoteSeparator) }

// PublicationState is one of the two publications, as it was found last.
type PublicationState struct {
	Name    string
	Exists  bool
	Managed bool // made of tables by name, and owned by this role: kept in order
	// Reason and Remedy are as in TableState.
	Reason, Remedy string
	// Danger lists tables (schema.name, unquoted) whose UPDATE or DELETE fails now
	// because of this publication, and which cannot be helped from here.
	Danger []string
}

func (p *PublicationState) add(f finding) {
	p.Reason = join(p.Reason, f.reason, "; ")
	p.Remedy = join(p.Remedy, f.remedy, "\n")
}

// finding is one thing that is not as it should be.
type finding struct{ reason, remedy string }

func join(have, more, separator string) string {
	if have == "" || more == "" {
		return have + more
	}
	return have + separator + more
}

// few names at most three of a list.
func few(names []string) string {
	slices.Sort(names)
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

func byName(a, b TableState) int {
	return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
}
