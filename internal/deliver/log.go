package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"lockstep"
)

// Log is one database's changes, as the stream holds them.
type Log interface {
	// Last is the end of what is durable; First the oldest seq that is there.
	Last() lockstep.Mark
	First() uint64
	// BatchOf returns the batch holding seq: *lockstep.RetentionError when it is gone,
	// *DamageError when it cannot be read.
	BatchOf(ctx context.Context, seq uint64) (*lockstep.Batch, error)
	// SeqAt returns the first seq whose transaction committed at or after t.
	SeqAt(ctx context.Context, t time.Time) (uint64, error)
	// Reader returns the batches from the one holding seq on, and waits at the end.
	Reader(from uint64) Reader
}

// Reader gives batches in order. It is used by one goroutine.
type Reader interface {
	Next(ctx context.Context) (*lockstep.Batch, error)
	Close()
}

// States keeps the consumers' states by id, each on disk when Save returns. A Save
// with another revision than the last fails with lockstep.ErrFenced.
type States interface {
	Load(ctx context.Context, id string) (value []byte, revision uint64, err error)
	Save(ctx context.Context, id string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, id string) error
	// Note remembers, apart from the state and without waiting for the disk, up to which
	// seq the consumer has settled everything as of its last save, and the era of it: an
	// older state of the same era lacks something, but says nothing wrong.
	Note(id string, floor, era uint64)
	// Lost returns what was noted last, zeros for nothing, and an error when what Load
	// returned is not what was saved last: damage took it, or left an older one. It
	// holds until the next Save.
	Lost(id string) (floor, era uint64, err error)
}

// Dead keeps the dead letters, each on disk when Put returns.
type Dead interface {
	Put(ctx context.Context, consumer string, l Letter) error // replaces one of the same seq
	Get(ctx context.Context, consumer string, seq uint64) (Letter, error)
	// PutSome is Put for many. After an error nothing is known about any of them.
	PutSome(ctx context.Context, consumer string, letters []Letter) error
	// List returns letters by ascending seq, those behind after. It may return fewer than
	// limit and a next all the same, when they are large.
	List(ctx context.Context, consumer string, after uint64, limit int) (letters []Letter, next uint64, err error)
	// ListBefore returns letters by descending seq, those below before; 0: the newest.
	ListBefore(ctx context.Context, consumer string, before uint64, limit int) (letters []Letter, next uint64, err error)
	// Find is List for letters that may be of a key: whose Key is that one, or has another
	// upper half.
	Find(ctx context.Context, consumer string, key, after uint64, limit int) (letters []Letter, next uint64, err error)
	// Behind counts the letters with seqs above seq.
	Behind(ctx context.Context, consumer string, seq uint64) (uint64, error)
	Delete(ctx context.Context, consumer string, seq uint64) error
	DeleteSome(ctx context.Context, consumer string, seqs []uint64) error // those that there are
	DeleteAll(ctx context.Context, consumer string) error
	Count(ctx context.Context, consumer string) (uint64, error)
}

// The states of a letter.
const (
	StateParked   = "parked"   // out of the way of its key
	StateBlocked  = "blocked"  // its key waits for a person
	StateRetrying = "retrying" // on its way again; the letter goes when it is settled
)

// Letter is a change in the dead letters.
type Letter struct {
	Seq      uint64
	Database string
	Reason   string
	State    string
	Attempts int
	At       time.Time
	Table    string
	PKs      json.RawMessage
	Message  json.RawMessage // as delivered, without consumer and token; empty when retention was faster
	Batch    []byte          // a sealed batch of this one change, so that a retry outlives retention
	Key      uint64          // see letterKey; 0: unknown
}

// DamageError says that the stored changes First to Last are damaged.
type DamageError struct {
	First, Last uint64
	Err         error
}

// Error implements error.
func (e *DamageError) Error() string {
	return fmt.Sprintf("changes %d to %d are damaged: %v", e.First, e.Last, e.Err)
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }
