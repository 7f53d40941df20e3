package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/value"
	"lockstep/internal/obs"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// Log is where changes go. *stream.Log is one.
type Log interface {
	// Append takes over what the writer holds and blocks while too much is on its
	// way; done is called once, in the order of the appends, with nil when the
	// batch is on disk. After a failure everything fails until Recover.
	Append(ctx context.Context, w *lockstep.BatchWriter, mark lockstep.Mark, done func(error)) error
	// Recover waits for what is on its way and returns the mark of the last
	// durable batch, or a zero Mark when there is none.
	Recover(ctx context.Context) (lockstep.Mark, error)
}

// Config is what a capture needs. Zero values of what is optional are defaults.
type Config struct {
	Database string // the name in the configuration
	URL      string // of the database to capture, not of a pooler
	Slot     string
	// Publication is read together with the one of the tables that may only be
	// published for inserts: this name and publish.InsertsSuffix.
	Publication string
	Tables      []string // patterns, see package publish; none: everything
	Log         Log

	// Instance tells this installation from others that use the same server; the
	// walsenders of an instance are its own to end. Default: one per Capture.
	Instance string
	// JoinSecret marks the logical messages by which the rows of a table that
	// joins the publication later arrive. Empty: there are none.
	JoinSecret string
	// Publish brings the publications in order before the slot is made, and before
	// each connect. nil: they are as they are.
	Publish func(context.Context) error

	BatchBytes   int  // size at which a batch is closed; default 256 KB
	Int8AsString bool // see value.Options
	// RetainWAL is how many bytes of WAL the slot may keep on the server's disk; 0: any
	// number. [Status.Warning] speaks up at half of it. Beyond it, and with no progress
	// for half a minute, the slot is given up: a gap (wal_budget) is better than a
	// database whose disk is full. A slot that catches up is let be.
	RetainWAL int64
	// Gap is called before a gap is written into the log, and must have noted it
	// durably when it returns nil. It may be called again for the same gap. An error
	// ends the connection, and the gap is tried again. Default: nobody is told.
	Gap func(context.Context, Gap) error
	// Witness remembers outside of the log that it was in use. Default: nobody does.
	Witness Witness
	Logger  *slog.Logger
	// Observe is called after each batch with changes has reached the disk, from
	// the log's goroutine. It must not block.
	Observe func(Durable)
	// Altered is called when the stream describes a table otherwise than before in this
	// process, from the goroutine that decodes. It must not block. nil: nobody asks.
	Altered func(Alteration)
}

// Durable is a batch of changes that has reached the disk.
type Durable struct {
	Changes int
	Bytes   int
	// Lag is the time since the last of its transactions committed. The clocks
	// are two machines', so it may be negative.
	Lag time.Duration
}

const defaultBatchBytes = 256 << 10

// publishTimeout is far beyond what publications take, and still an end to waiting
// for a server that is not there any more.
const publishTimeout = 2 * time.Minute

// idleMark is how often the position of a database without changes is recorded.
const idleMark = 10 * time.Second

// tuning is what tests set otherwise.
type tuning struct {
	silence  time.Duration // of a server before it is taken for dead
	idle     time.Duration // see idleMark
	blockers time.Duration // between reports of what a new slot waits for
	poll     time.Duration // between looks at the slot
	leaving  time.Duration // how long a server that wants to end our connection may wait for us
	longest  time.Duration // between attempts to connect
	visible  time.Duration // how long a page waits for transactions that are not visible yet
	notes    int           // see maxNotes
	stuck    time.Duration // without progress, until a slot beyond its budget is given up
	old      time.Duration // see Status.OldestTransaction
}

// Capture is the capture of one database. Run it once; the other methods may be
// called at any time from any goroutine.
type Capture struct {
	config   Config
	patterns pattern.Patterns
	tune     tuning
	log      *slog.Logger
	counts   counters

	// Of Run's goroutine.
	pool       *pgxpool.Pool
	rebuild    bool // the slot's WAL cannot be decoded with the publications: begin anew
	silence    time.Duration
	remembered bool   // see rememberWaiting
	owed       string // reason of a gap that was found and that the log does not have yet

	truncations truncations // outlives connections
	shapes      shapes      // outlives connections

	pagePrefix string        // of watermarks, with its secret
	settling   *settling     // outlives connections
	turn       chan struct{} // full while somebody uses a window

	mu      sync.Mutex // guards what follows
	budget  budget
	ending  bool // see slotLook
	status  Status
	live    *session
	lost    string // why the last connection ended; empty: there was none
	lostAt  uint64 // the progress when it did
	repeats int    // how often that has happened again since, with no progress
}

// New checks the configuration and opens nothing. Errors are [lockstep.ErrInvalid].
func New(config Config) (*Capture, error) {
	if err := validate(config); err != nil {
		return nil, fmt.Errorf("capture database %q: %w: %w", config.Database, err, lockstep.ErrInvalid)
	}
	patterns, err := pattern.Parse(config.Tables)
	if err != nil {
		return nil, fmt.Errorf("capture database %q: %w", config.Database, err)
	}
	if config.Instance == "" {
		config.Instance = uuid.NewString()
	}
	if config.BatchBytes == 0 {
		config.BatchBytes = defaultBatchBytes
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	secret := config.JoinSecret
	if secret == "" {
		secret = uuid.NewString() // watermarks are met in this process or not at all
	}
	return &Capture{
		config: config, patterns: patterns, pagePrefix: pagePrefix + secret, settling: newSettling(), turn: make(chan struct{}, 1),
		log: config.Logger.With(obs.KeyDatabase, config.Database),
		tune: tuning{
			silence: 25 * time.Second, idle: idleMark, blockers: 5 * time.Second, poll: 2 * time.Second,
			leaving: 5 * time.Second, longest: 10 * time.Second,
			visible: 5 * time.Second, notes: maxNotes, stuck: 30 * time.Second, old: time.Minute,
		},
		status: Status{State: "stopped", Since: time.Now()},
	}, nil
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

func validate(c Config) error {
	switch {
	case c.URL == "":
		return errors.New("no URL")
	case c.Log == nil:
		return errors.New("no log to write to")
	case !slotName.MatchString(c.Slot):
		return fmt.Errorf("slot %q: a slot's name has 1 to 63 of a-z, 0-9 and _", c.Slot)
	case c.Publication == "":
		return errors.New("no publication")
	case c.BatchBytes < 0:
		return fmt.Errorf("batches of %d bytes", c.BatchBytes)
	}
	return nil
}

// Run captures until ctx ends, and then returns nil. It reconnects for ever, with
// growing pauses; [Capture.Status] tells why it is not connected. What it cannot
// heal it returns: another server behind the URL than the log came from
// ([lockstep.ErrConflict]), another writer of the log ([lockstep.ErrFenced]).
func (c *Capture) Run(ctx context.Context) error {
	defer c.closePool()
	c.silence = c.tune.silence
	pauses := c.pauses()
	for {
		before := c.counts.progress()
		err := c.connected(ctx)
		if ctx.Err() != nil {
			return c.stopped(ctx)
		}
		if isFinal(err) {
			c.enter(ctx, "failed")
			c.setProblem(err.Error())
			return fmt.Errorf("capture database %q: %w", c.config.Database, err)
		}
		if c.counts.progress() != before {
			pauses.Reset()
			c.silence = c.tune.silence
		} else if errors.Is(err, errSilent) {
			// A server can be busy for long with a transaction that does not
			// concern us: giving up at the same point every time would be for ever.
			c.silence = min(2*c.silence, 10*time.Minute)
		}
		c.interrupted(ctx, err)
		c.resetPool()
		select {
		case <-ctx.Done():
			return c.stopped(ctx)
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

func (c *Capture) stopped(ctx context.Context) error {
	c.enter(ctx, "stopped")
	return nil
}

func (c *Capture) pauses() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 50 * time.Millisecond
	b.MaxInterval = c.tune.longest
	b.Reset()
	return b
}

// connected makes a connection and streams over it until something ends it.
func (c *Capture) connected(ctx context.Context) error {
	c.enter(ctx, "connecting")
	if err := c.openPool(ctx); err != nil {
		return err
	}
	var w *wire
	var mark lockstep.Mark
	err := c.watched(ctx, func(ctx context.Context) (err error) {
		w, mark, err = c.attach(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s := c.newSession(w, mark)
	c.stream(ctx, s)
	defer c.streamed()
	err = s.run(ctx)
	c.considerRebuild(ctx, err)
	return err
}

// attach brings server, slot and log into order and begins to stream.
func (c *Capture) attach(ctx context.Context) (*wire, lockstep.Mark, error) {
	if err := c.giveUpSlot(ctx); err != nil {
		return nil, lockstep.Mark{}, err
	}
	if err := c.publish(ctx); err != nil {
		return nil, lockstep.Mark{}, err
	}
	w, err := dial(ctx, c.config.URL, c.applicationName())
	if err != nil {
		return nil, lockstep.Mark{}, err
	}
	mark, err := c.prepare(ctx, w)
	if err == nil {
		err = c.rememberWaiting(ctx)
	}
	if err != nil {
		w.abandon()
		return nil, mark, err
	}
	if err := w.start(ctx, c.config.Slot, c.publications(), mark.EndLSN); err != nil {
		w.abandon()
		c.considerRebuild(ctx, err)
		return nil, mark, err
	}
	return w, mark, nil
}

func (c *Capture) publish(ctx context.Context) error {
	if c.config.Publish == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := c.config.Publish(ctx); err != nil {
		return fmt.Errorf("bring the publications in order: %w", err)
	}
	return nil
}

func (c *Capture) newSession(w *wire, mark lockstep.Mark) *session {
	f := newFlight(mark.EndLSN, &c.counts, nil)
	f.observe = c.config.Observe
	mark.SystemID, mark.Timeline = w.systemID, w.timeline
	b := newBatch(c.config.Log, f, mark, c.config.BatchBytes)
	b.idle = c.tune.idle
	d := newDecoder(b, newCatalog(c.pool, c.patterns, value.Options{Int8AsString: c.config.Int8AsString}), mark)
	d.secret, d.log, d.counts = c.config.JoinSecret, c.log, &c.counts
	d.pagePrefix, d.settling, d.gap, d.truncations = c.pagePrefix, c.settling, c.tellGap, &c.truncations
	d.shapes, d.altered, d.typeNames = &c.shapes, c.config.Altered, nameTypes(c.pool)
	s := &session{
		pool: c.pool, over: make(chan struct{}), wire: w, log: c.log, frames: newFrameReader(w.reader, readBuffer), decoder: d, batch: b, flight: f,
		asked: make(chan struct{}, 1), silence: c.silence, interval: min(answerInterval(w.senderTimeout), max(c.silence/3, 10*time.Millisecond)),
	}
	s.received.Store(uint64(mark.EndLSN))
	s.poll = func(ctx context.Context) error { return c.watchSlot(ctx, s) }
	return s
}

// considerRebuild finds out whether the slot's WAL cannot be decoded any more:
// old WAL is decoded with the catalog of its time, so a publication that was
// dropped and made again stays missing for ever there.
func (c *Capture) considerRebuild(ctx context.Context, err error) {
	if sqlState(err) != stateUndefined || c.config.Publish == nil {
		return
	}
	const present = `
SELECT count(*) = 2
FROM pg_catalog.pg_publication
WHERE pubname = ANY($1::text[])`
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var both bool
	if c.pool.QueryRow(ctx, present, c.publications()).Scan(&both) == nil {
		c.rebuild = both
	}
}

func (c *Capture) publications() []string {
	return []string{c.config.Publication, c.config.Publication + publish.InsertsSuffix}
}

// applicationName is what the walsender shows, cut to what Postgres keeps.
func (c *Capture) applicationName() string {
	name := "lockstep " + c.config.Instance
	return name[:min(len(name), 63)]
}

func (c *Capture) openPool(ctx context.Context) error {
	if c.pool != nil {
		return nil
	}
	pool, err := pgdb.Open(ctx, c.config.URL, "lockstep")
	if err != nil {
		return err
	}
	c.pool = pool
	return nil
}

// resetPool lets go of connections that may be as dead as the one that failed.
func (c *Capture) resetPool() {
	if c.pool != nil {
		c.pool.Reset()
	}
}

func (c *Capture) closePool() {
	if c.pool != nil {
		c.pool.Close()
	}
}
