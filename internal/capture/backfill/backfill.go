package backfill

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pattern"
)

// Config is what a [Runner] needs. Everything but Logger is required; Gaps only
// where gaps are to be repaired.
type Config struct {
	Store Store
	// Database returns a database of the configuration; lockstep.ErrNotFound for one
	// that is not captured.
	Database  func(name string) (Source, error)
	Consumers Consumers
	Gaps      *Gaps
	Logger    *slog.Logger
}

// Source is a captured database.
type Source struct {
	Pool        *pgxpool.Pool // of the database itself
	Patterns    pattern.Patterns
	Publication string // whose column lists and row filters hold for backfills too; empty: there are none
	Capture     Interleaver
	Log         Log
}

// Interleaver puts pages between the changes. *wal.Capture is one.
type Interleaver interface {
	Interleave(ctx context.Context, oid uint32, read func(ctx context.Context, low uint64) (wal.Page, error)) (wal.Interleaved, error)
	InterleaveEach(ctx context.Context, oid uint32, read func(ctx context.Context, low uint64) (wal.Page, error), placed func(wal.Interleaved) error) error
	EndGap(ctx context.Context, end wal.GapEnd) (seq uint64, err error)
}

// Log is the changes of a database, see *stream.Log.
type Log interface {
	Last() lockstep.Mark
	First() uint64
	Reader(from uint64) Reader
}

// Reader gives batches in order, see *stream.Reader. Changes that are gone give a
// *lockstep.RetentionError, damaged ones a *DamageError.
type Reader interface {
	Next(ctx context.Context) (*lockstep.Batch, error)
	Seek(from uint64)
	Close()
}

// DamageError says that stored changes are damaged; a reader goes on behind Last.
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

// Consumers finds consumers.
type Consumers interface {
	// Lookup takes an id or a name. lockstep.ErrNotFound means that the consumer was
	// deleted, and ends its backfills: as long as consumers are not known yet, the
	// error must be another one.
	Lookup(idOrName string) (Consumer, error)
}

// Consumer is who gets the rows.
type Consumer struct {
	ID, Name, Database string
	Selects            func(schema, name string) bool // nil: every table
	Standing           func() Standing                // nil: pages never wait for it
}

func (c *Consumer) selects(schema, name string) bool {
	return c.Selects == nil || c.Selects(schema, name)
}

// Standing is how much a consumer has to do.
type Standing struct {
	Pending uint64 // changes that wait to be handed out; an upper bound will do
	Acked   uint64 // ever; it only grows
	Paused  bool
}

// tuning is what tests set otherwise.
type tuning struct {
	poll      time.Duration // between looks at what jobs wait for
	longest   time.Duration // between attempts
	few       uint64        // changes that may wait for a consumer whose workers are there
	ahead     uint64        // the same when they are not
	present   time.Duration // workers that acked something since are there
	memory    int           // bytes of keys while deletes are looked for
	rereads   int           // attempts at rows that change all the time
	sweepPage int           // keys in a page of deletes
	most      int           // rows in a page
	stride    time.Duration // of the pages that follow each other without a save
}

// Runner runs backfills. Run it once; the other methods may be called at any time
// from any goroutine, before and after Run too.
type Runner struct {
	cfg    Config
	id     string // of this process, among those that save jobs
	tune   tuning
	log    *slog.Logger
	meters meters
	fresh  chan struct{} // a database has its first job

	starting sync.Mutex // one Start at a time, and the load of what goes on
	mu       sync.Mutex // guards what follows
	loaded   bool
	jobs     map[string]*job // those that have not ended
	workers  map[string]chan struct{}
}

// New opens nothing.
func New(cfg Config) *Runner {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{
		cfg: cfg, id: uuid.NewString(), log: cfg.Logger, fresh: make(chan struct{}, 1),
		tune: tuning{
			poll: 250 * time.Millisecond, longest: 10 * time.Second,
			few: 10_000, ahead: 1_000_000, present: 10 * time.Second,
			memory: 48 << 20, rereads: 30, sweepPage: mostAgain, most: maxLimit, stride: 500 * time.Millisecond,
		},
		jobs: map[string]*job{}, workers: map[string]chan struct{}{},
	}
}
