// Package lockstep is the vocabulary of Lockstep: what a change is, how changes
// lie in a batch, and how a change reads as a message. Every stage meets the
// others through these types; the package imports the standard library only.
//
// # Guarantees
//
//  1. A change is identified by its database's system identifier and timeline,
//     the commit LSN of its transaction and its index in that transaction. The
//     LSN of a single change is never used: the rows of one COPY share it.
//  2. A change's seq is dense: it starts at 1 in each database and grows by one
//     per change, in commit order.
//  3. A batch is immutable once sealed. Views onto it ([Record]) share its
//     memory and stay valid as long as the batch is reachable.
//  4. Values are bytes from end to end. No value passes through float64 or a
//     decoded form on its way from Postgres to a consumer.
package lockstep

import "fmt"

// Action says what happened to a row, or to a whole table.
type Action uint8

// The actions of the wire contract. The codes are stored on disk, never reused.
const (
	Insert   Action = 1
	Update   Action = 2
	Delete   Action = 3
	Read     Action = 4 // an existing row, sent by a backfill
	Truncate Action = 5 // the whole table was emptied
	Gap      Action = 6 // changes may be missing here; see metadata.gap
)

func actionNames() [7]string {
	return [...]string{Insert: "insert", Update: "update", Delete: "delete", Read: "read", Truncate: "truncate", Gap: "gap"}
}

// String returns the action's name in messages and configuration.
func (a Action) String() string {
	names := actionNames()
	if a > 0 && int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction is the inverse of [Action.String].
func ParseAction(name string) (Action, error) {
	for a, n := range actionNames() {
		if n != "" && n == name {
			return Action(a), nil
		}
	}
	return 0, fmt.Errorf("unknown action %q: use insert, update, delete, read, truncate or gap", name)
}

// Whole reports whether the action concerns a whole table rather than a row.
// Such a change is a barrier: it waits for every earlier change of its table,
// and later ones of the table wait for it.
func (a Action) Whole() bool { return a == Truncate || a == Gap }

// KeyKind says which columns identify a row of a table.
type KeyKind uint8

// The kinds of key. The codes are stored on disk.
const (
	KeyPrimary  KeyKind = 1 // the primary key, in the order of its index
	KeyIdentity KeyKind = 2 // the replica identity index, in the order of the index
	KeyRow      KeyKind = 3 // nothing narrower than the whole row
)

// String returns the kind's name in messages.
func (k KeyKind) String() string {
	switch k {
	case KeyPrimary:
		return "primary_key"
	case KeyIdentity:
		return "replica_identity"
	case KeyRow:
		return "row"
	}
	return fmt.Sprintf("key_kind(%d)", uint8(k))
}

// Origin says who caused a transaction.
type Origin uint8

// The origins. The codes are stored on disk.
const (
	OriginUser    Origin = 0 // anybody but Lockstep
	OriginSync    Origin = 1
	OriginProxy   Origin = 2
	OriginBinding Origin = 3
)

// String returns the origin's name in messages.
func (o Origin) String() string {
	switch o {
	case OriginSync:
		return "sync"
	case OriginProxy:
		return "proxy"
	case OriginBinding:
		return "binding"
	case OriginUser:
	}
	return "user"
}

// LSN is a byte position in Postgres' write-ahead log.
type LSN uint64

// String formats the LSN as Postgres does, for example 0/16B3748.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN is the inverse of [LSN.String].
func ParseLSN(s string) (LSN, error) {
	var hi, lo uint32
	if n, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); err != nil || n != 2 {
		return 0, fmt.Errorf("%q is not a WAL position: expected the form 0/16B3748", s)
	}
	return LSN(hi)<<32 | LSN(lo), nil
}

// Table is a table as it was at one place of the stream. A Table is immutable.
type Table struct {
	OID    uint32 // pg_class.oid; 0 for a change that concerns no single table
	Schema string
	Name   string
	Key    KeyKind
	// Consumer is the id of the one consumer that the records are for: rows that a
	// backfill reads for it. Empty: they are for everybody.
	Consumer string
	// Progress is what whoever put the records there notes for itself, in the same
	// batch as the records; a backfill finds its place by it. At most 65,535 bytes.
	Progress string
}

// String returns schema.name, unquoted: for people and for logs.
func (t Table) String() string { return t.Schema + "." + t.Name }

// Tx is what the changes of one transaction have in common.
type Tx struct {
	CommitLSN   LSN
	CommitTime  int64 // microseconds since 1970-01-01 UTC
	XID         uint32
	Origin      Origin
	Annotations []byte // a JSON value, or empty for none
}

// Mark is a place between two changes: everything up to it is in the stream.
type Mark struct {
	Seq       uint64 // the last change's seq; 0 before the first
	SystemID  uint64 // of the Postgres cluster the change came from
	Timeline  uint32
	CommitLSN LSN // of the last change's transaction
	// Ordinal counts the messages of that transaction that Postgres sent, from 1.
	// A restart skips up to (CommitLSN, Ordinal). It is not CommitIdx: one
	// message may make two changes, or none.
	Ordinal   uint32
	CommitIdx uint32 // the last change's index in its transaction
	// EndLSN is how far the replication slot may be confirmed: the end of the last
	// transaction that is in the stream as a whole.
	EndLSN LSN
	// Complete says that the batch ends where its transaction ends.
	Complete bool
}
