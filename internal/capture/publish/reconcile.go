package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/obs"
	"lockstep/internal/pattern"
)

// Config is what a Reconciler needs. Zero values of what is optional are defaults.
type Config struct {
	Pool        *pgxpool.Pool // of the database to capture; stays the caller's
	Database    string        // the name in the configuration, for logs
	Publication string        // for tables with every operation; that for inserts is called Publication + InsertsSuffix
	Patterns    pattern.Patterns
	// Slot is the replication slot that reads the publications. While it does not
	// exist (or is lost), tables are taken in without their rows, as in Prepare.
	// Empty: Ensure always takes in new tables together with their rows.
	Slot string
	// JoinSecret ends the prefixes of the logical messages by which the rows of a
	// joining table travel: every role may write such messages, so only the secret
	// tells ours. Empty: tables join without their rows.
	JoinSecret string

	// Seen keeps what the tables looked like over restarts, so that what changed their
	// rows without events while nobody looked is found at the next start. Nil: it is
	// kept in memory alone.
	Seen Seen

	// Trigger says whether an event trigger takes in new tables; default: no.
	Trigger Trigger

	Interval        time.Duration // between rounds of Run; default 1 s
	LockTimeout     time.Duration // for altering a publication, which no write waits for; default 2 s
	JoinLockTimeout time.Duration // how long writes to a joining table may have to wait for its lock to be had; default 250 ms
	JoinAttempts    int           // at that lock, further and further apart, before a table is taken in without its rows; default 8
	JoinRows        int           // the most rows that a table joins with; default 10,000
	JoinBytes       int           // and their most bytes, as text; default 8 MB
	Logger          *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Interval = orElse(c.Interval, time.Second)
	c.LockTimeout = orElse(c.LockTimeout, 2*time.Second)
	c.JoinLockTimeout = orElse(c.JoinLockTimeout, 250*time.Millisecond)
	c.JoinAttempts = orElse(c.JoinAttempts, 8)
	c.JoinRows = orElse(c.JoinRows, 10_000)
	c.JoinBytes = orElse(c.JoinBytes, 8<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With(obs.KeyDatabase, c.Database)
	return c
}

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// maxName is what Postgres keeps of a name, in bytes.
const maxName = 63

// Reconciler keeps the two publications of one database in order. Its methods are
// safe for concurrent use; rounds exclude each other.
type Reconciler struct {
	config Config

	turn   sync.Mutex           // held for a round; guards the fields up to mu
	pruned bool                 // what the patterns do not match was taken out once
	joins  map[uint32]*joinTry  // by oid: tables whose lock was not had yet
	rows   map[uint32]joinedRow // by oid: what became of the rows of joined tables
	// back is for tables that came back into their publication while others wrote: the
	// first transaction that cannot have written to the table before.
	back map[uint32]uint64 // by oid
	said said              // what the log says already
	// triggered: the event trigger was dealt with
	triggered bool
	memory    *memory // of the tables at the last survey; nil: not read from Seen yet

	mu           sync.Mutex // guards what follows
	tables       []TableState
	publications []PublicationState
}

// New returns a Reconciler; it connects to nothing. Errors wrap
// [lockstep.ErrInvalid].
func New(config Config) (*Reconciler, error) {
	if config.Pool == nil {
		return nil, fmt.Errorf("%w: publications need a connection pool", lockstep.ErrInvalid)
	}
	if n := len(config.Publication); n == 0 || n > maxName-len(InsertsSuffix) {
		return nil, fmt.Errorf("%w: publication name %q: use 1 to %d bytes, as %s is appended for the second one",
			lockstep.ErrInvalid, config.Publication, maxName-len(InsertsSuffix), InsertsSuffix)
	}
	return &Reconciler{
		config: config.withDefaults(),
		joins:  make(map[uint32]*joinTry),
		rows:   make(map[uint32]joinedRow),
		back:   make(map[uint32]uint64),
	}, nil
}

// mode says what happens to the rows of a table that is found.
type mode int

const (
	preparing mode = iota // there is no slot: the rows are older than the stream
	joining
)

// Prepare is Ensure for the time before the slot exists: whatever rows tables have
// are older than the stream, so none are sent.
func (r *Reconciler) Prepare(ctx context.Context) (changed int, tables []TableState, err error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	done, err := r.round(ctx, preparing)
	return done.changed, r.States(), err
}

// Ensure brings both publications in order: makes missing ones, adds, moves and
// takes out tables. It returns how many memberships and settings it changed and the
// state of every table. What concerns one table is in its state; err says that the
// round as a whole could not be done, and doing it again may succeed. A round takes
// what the survey takes, plus up to LockTimeout per table that is locked, falling.
func (r *Reconciler) Ensure(ctx context.Context) (changed int, tables []TableState, err error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	done, err := r.round(ctx, joining)
	return done.changed, r.States(), err
}

// States returns the tables as the last round left them, ordered by schema and name.
// The slice is shared: it must not be changed.
func (r *Reconciler) States() []TableState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tables
}

// Publications returns the two publications as the last round found them. The slice
// is shared: it must not be changed.
func (r *Reconciler) Publications() []PublicationState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.publications
}

func (r *Reconciler) publish(rd *round) {
	tables := make([]TableState, len(rd.tables))
	for i := range rd.tables {
		tables[i] = rd.tables[i].state
	}
	r.mu.Lock()
	r.tables, r.publications = tables, rd.reports[:]
	r.mu.Unlock()
}

// slowest is the longest pause between rounds, however long a survey takes.
const slowest = time.Minute

// Run does a round about every Interval until ctx ends, and returns nil then. A
// round whose survey is long is followed by a pause of ten times its length. When no
// transaction has ended in the whole cluster since the last round, and that left
// nothing to do, the survey is skipped. Errors are logged once per change.
func (r *Reconciler) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var settled string // the snapshot under which nothing was left to do
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		var pause time.Duration
		settled, pause = r.turnOnce(ctx, settled)
		timer.Reset(pause)
	}
}

func (r *Reconciler) turnOnce(ctx context.Context, settled string) (now string, pause time.Duration) {
	r.turn.Lock()
	defer r.turn.Unlock()
	snapshot, err := r.snapshot(ctx)
	if err == nil && snapshot == settled {
		return settled, r.config.Interval
	}
	var done outcome
	if err == nil {
		done, err = r.round(ctx, joining)
	}
	if ctx.Err() != nil {
		return "", 0
	}
	r.said.failure(ctx, r.config.Logger, err)
	if err != nil || done.outstanding {
		snapshot = ""
	}
	return snapshot, max(r.config.Interval, min(10*done.survey, slowest))
}

// snapshot identifies the set of transactions that are visible. As long as it is the
// same, so is the catalog.
func (r *Reconciler) snapshot(ctx context.Context) (string, error) {
	const query = `SELECT pg_catalog.pg_current_snapshot()::text`
	var s string
	if err := r.config.Pool.QueryRow(ctx, query).Scan(&s); err != nil {
		return "", fmt.Errorf("look for new tables: %w", err)
	}
	return s, nil
}
