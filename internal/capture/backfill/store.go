package backfill

import (
	"context"
	"slices"
)

// Store keeps jobs. Its methods may be called concurrently; those that reach for
// what is away give an error that wraps lockstep.ErrUnavailable.
type Store interface {
	// Active returns the jobs that have not ended, the oldest first.
	Active(ctx context.Context) ([]Record, error)
	// Create keeps a new job, and returns it with its N.
	Create(ctx context.Context, r Record) (Record, error)
	// Save keeps the job and those of its tables. It gives lockstep.ErrFenced when
	// another writer has saved the job since. After an error the same may be saved
	// once more, whether it was kept or not.
	Save(ctx context.Context, r Record, tables []int) error
	// Find returns a job, or an error that wraps lockstep.ErrNotFound.
	Find(ctx context.Context, id string) (Record, error)
	// Number returns the consumer's n-th job, or an error that wraps lockstep.ErrNotFound.
	Number(ctx context.Context, consumerID string, n int) (Record, error)
	// List returns jobs, the newest first, at most 1,000.
	List(ctx context.Context, f Filter) ([]Record, error)
	// Defined reports whether the consumer ever had a job with origin definition.
	Defined(ctx context.Context, consumerID string) (bool, error)
}

// Record is a job as it is kept.
type Record struct {
	Job
	Places []Place // one per table of the job
	// Seq is how far the log had come: pages of the job behind it are not in Places.
	Seq      uint64
	Revision int64  // as it is in the store; Save makes it one more
	Writer   string // who saves: one process
}

// Place is how far a table has been read.
type Place struct {
	OID    uint32
	Schema string
	Name   string
	Position
}

// Position is the part of a Place that nobody else looks at.
type Position struct {
	Key    string     `json:"key,omitempty"`    // what the key was when reading began
	Cursor [][]byte   `json:"cursor,omitempty"` // Postgres text of the last key that was read
	Again  [][][]byte `json:"again,omitempty"`  // keys of rows to be read again
	Done   bool       `json:"done,omitempty"`   // there is nothing behind Cursor
	Looked uint64     `json:"looked,omitempty"` // how far the log was searched for changed keys
	Gaps   uint64     `json:"gaps,omitempty"`   // the number of the last gap known when reading began
}

// clone returns a copy that shares nothing that is changed later.
func (r *Record) clone() Record {
	c := *r
	c.Tables = slices.Clone(r.Tables)
	c.Places = slices.Clone(r.Places)
	return c
}
