package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/capture/backfill"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
	"lockstep/internal/config"
	"lockstep/internal/obs"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/stage"
	"lockstep/internal/stream"
)

// database is one captured database: its log, and what fills it.
type database struct {
	config.Database
	url     string
	pool    *pgxpool.Pool
	log     *stream.Log
	gaps    *backfill.Gaps
	metrics *obs.Capture
	stream  *obs.Stream
	lag     atomic.Int64 // nanoseconds from commit to disk, of the last batch

	seen                         sync.Mutex // guards what follows
	changes, transactions, bytes uint64     // that the metrics know of
	place                        progress   // as it was when it last moved

	alterations alterations

	managedBy string      // api; empty: the configuration
	foundSlot bool        // of API: the slot was there before
	broken    string      // of API: why it cannot be opened; pool and url are not set then
	leaving   atomic.Bool // it is being deleted
	life      *lifetime

	// nil when the database is not captured
	patterns   pattern.Patterns
	capture    *wal.Capture
	reconciler *publish.Reconciler
}

const (
	// What happens in a new table before it is found is known by its outcome only,
	// so tables are looked for often. A quiet database is not surveyed at all.
	surveyEvery = 250 * time.Millisecond
	// A table found with rows holds its writers up while these are sent along:
	// about half a second at most.
	joinRows, joinBytes = 100_000, 32 << 20
)

// openDatabases opens the log of each database and prepares its capture. Nothing
// connects to the databases yet.
func (e *Engine) openDatabases(ctx context.Context) (func() error, error) {
	closePools := func() error {
		for _, d := range e.databases.all() {
			d.close()
		}
		return nil
	}
	for _, c := range e.cfg.Databases {
		d, err := e.openDatabase(ctx, c)
		if err != nil {
			return closePools, err
		}
		e.databases.put(d)
	}
	return closePools, nil
}

func (e *Engine) openDatabase(ctx context.Context, c config.Database) (*database, error) {
	d := &database{Database: c, life: newLifetime(), url: c.URL.Reveal(), gaps: e.gaps, metrics: e.metrics.Capture(c.Name), stream: e.metrics.Stream(c.Name)}
	if d.url == "" {
		d.url = e.cluster.URL(c.Name)
	}
	var err error
	if d.log, err = e.stream.Log(ctx, c.Name); err != nil {
		return nil, fmt.Errorf("open the log of database %s: %w", c.Name, err)
	}
	if d.pool, err = pgdb.Lazy(ctx, d.url, "lockstep "+c.Name); err != nil {
		return nil, fmt.Errorf("databases: %s: %w", c.Name, err)
	}
	if c.Capture == config.CaptureNone {
		return d, nil
	}
	if err := e.prepareCapture(ctx, d); err != nil {
		d.pool.Close()
		return nil, fmt.Errorf("databases: %s: %w", c.Name, err)
	}
	return d, nil
}

func (d *database) close() {
	if d.pool != nil {
		d.pool.Close()
	}
}

func (e *Engine) prepareCapture(ctx context.Context, d *database) error {
	var err error
	if d.patterns, err = pattern.Parse(d.Tables); err != nil {
		return err
	}
	if err := e.gaps.Load(ctx, d.Name); err != nil {
		return err
	}
	states, err := e.stream.States(ctx)
	if err != nil {
		return fmt.Errorf("open what is known of its tables: %w", err)
	}
	secret := e.dir.joinSecret(d.Name)
	d.reconciler, err = publish.New(publish.Config{
		Pool: d.pool, Database: d.Name, Publication: d.Publication, Patterns: d.patterns, Slot: d.Slot, JoinSecret: secret, Logger: e.Logger,
		Seen: seenTables{states, d.Name}, Trigger: publish.DDLTrigger, Interval: surveyEvery, JoinRows: joinRows, JoinBytes: joinBytes,
	})
	if err != nil {
		return err
	}
	d.capture, err = wal.New(wal.Config{
		Database: d.Name, URL: d.url, Slot: d.Slot, Publication: d.Publication, Tables: d.Tables, Log: d.log,
		Instance: e.dir.instance(), JoinSecret: secret, Int8AsString: d.Int8AsString, Logger: e.Logger,
		RetainWAL: d.RetainWAL, Witness: e.dir.witness(d.Name),
		Gap: func(ctx context.Context, g wal.Gap) error { return e.gaps.Open(ctx, d.Name, g) },
		Publish: func(ctx context.Context) error {
			_, _, err := d.reconciler.Ensure(ctx)
			return err
		},
		Observe: func(b wal.Durable) {
			d.lag.Store(int64(b.Lag))
			d.stream.Appended(b.Changes, b.Bytes)
		},
		Altered: d.alterations.take,
	})
	return err
}

// stages are the parts that run for the database, in the order in which they stop.
func (d *database) stages() []stage.Stage {
	if d.capture == nil {
		return nil
	}
	return []stage.Stage{
		{Name: "capture " + d.Name, Run: d.capture.Run},
		{Name: "publications " + d.Name, Run: d.reconciler.Run},
	}
}

const (
	// silent is how long a live connection may bring nothing at all: Postgres says
	// something every ten seconds.
	silent = 45 * time.Second
	// stuck is how long what was received may wait for the stream's disk.
	stuck = time.Minute
)

// progress is what moves while capture does its work.
type progress struct {
	confirmed lockstep.LSN
	changes   uint64
	at        time.Time // when it was first seen
}

// standing returns for how long nothing of what was received has reached the disk.
func (d *database) standing(s wal.Status) time.Duration {
	d.seen.Lock()
	defer d.seen.Unlock()
	now := progress{s.Confirmed, s.Changes, d.place.at}
	if now != d.place || s.Received <= s.Confirmed {
		now.at = time.Now()
		d.place = now
	}
	return time.Since(d.place.at)
}

// health is the database's part of readiness.
func (d *database) health() api.Part {
	part := api.Part{Name: "capture " + d.Name, Ready: d.broken == "", Reason: d.broken}
	if d.capture == nil {
		return part
	}
	s := d.capture.Status()
	standing := d.standing(s)
	switch {
	case !s.Connected:
		part.Ready, part.Reason = false, s.State
		if s.LastError != "" {
			part.Reason = s.LastError
		}
	case s.Doubt != "":
		part.Ready, part.Reason = false, s.Doubt
	case standing > stuck:
		part.Ready, part.Reason = false, fmt.Sprintf("what Postgres sent has not reached the stream's disk for %s: look at the log, and at the space that is left in data_dir", standing.Round(time.Second))
	case time.Since(s.LastHeard) > silent:
		part.Ready, part.Reason = false, fmt.Sprintf("connected, but nothing was heard from Postgres since %s", s.LastHeard.UTC().Format(time.RFC3339))
	default:
		part.Reason = nothingCaptured(d.reconciler.States())
		part.Ready = part.Reason == ""
	}
	if part.Ready {
		// Capture moves: what is there is delivered. What is not there is told beside it.
		part.Reason = d.gapReason()
	}
	return part
}

// nothingCaptured tells why not one of the tables is captured. A slot that moves
// over a publication without tables looks healthy and is not. A database that has
// no tables yet is.
func nothingCaptured(tables []publish.TableState) string {
	why := ""
	for _, t := range tables {
		if t.Published != publish.None {
			return ""
		}
		if t.Class != publish.None && why == "" {
			why = fmt.Sprintf("no table is captured; %s: %s: %s", t, t.Reason, t.Remedy)
		}
	}
	return why
}

// status is how the database's capture stands, for the API.
func (d *database) status() api.DatabaseStatus {
	s := api.DatabaseStatus{Name: d.Name, Capture: string(d.Capture), Status: "ok", Patterns: d.Tables}
	if d.URL != "" {
		s.Connection = connectionOf(d.url)
	}
	if d.broken != "" {
		s.Status, s.Reason = "error", d.broken
	}
	if at := d.log.LastCommit(); !at.IsZero() {
		s.LastCommit = &at
	}
	if d.capture == nil {
		return s
	}
	s.Publication = d.Publication
	c := d.capture.Status()
	s.Connected, s.LagBytes = c.Connected, int64(c.LagBytes)
	s.ReceivedLSN, s.ConfirmedLSN = c.Received.String(), c.Confirmed.String()
	s.Slot = &api.SlotStatus{Name: d.Slot, WALStatus: c.Slot.WALStatus, RetainedBytes: c.Slot.RetainedBytes}
	if c.Slot.SafeBytes >= 0 {
		s.Slot.SafeBytes = &c.Slot.SafeBytes
	}
	if c.Warning != "" {
		s.Warnings = append(s.Warnings, c.Warning)
	}
	if o := c.OldestTransaction; o != nil {
		s.OldestTransaction = &api.TransactionStatus{PID: o.PID, XID: o.XID, AgeS: int64(o.Age.Seconds()), State: o.State, User: o.User}
	}
	s.Gaps = d.openGaps()
	for _, t := range d.reconciler.States() {
		// What holds for most tables would only hide the others, and may be a list of 100,000.
		if t.Reason != "" || publish.Unusual(t.Note) != "" {
			s.Tables = append(s.Tables, api.TableStatus{Name: t.String(), Published: publishedName(t.Published), Reason: t.Reason, Remedy: t.Remedy, Note: t.Note})
		}
	}
	d.judge(&s, c)
	return s
}

// judge says in one word how the database is, and why.
func (d *database) judge(s *api.DatabaseStatus, c wal.Status) {
	if h := d.health(); !h.Ready {
		s.Status, s.Reason = "error", h.Reason
		return
	}
	for _, p := range d.reconciler.Publications() {
		if len(p.Danger) > 0 {
			s.Status, s.Reason = "error", p.Reason+"; "+p.Remedy
			return
		}
		if p.Reason != "" {
			s.Status, s.Reason = "warn", p.Reason+"; "+p.Remedy
		}
	}
	if why := d.gapReason(); why != "" {
		s.Status, s.Reason = "warn", why
	}
}

// openGaps are the places where changes may be missing and that were not repaired.
func (d *database) openGaps() []api.GapStatus {
	var list []api.GapStatus
	for _, g := range d.gaps.List(d.Name) {
		s := api.GapStatus{Reason: g.Reason, At: g.At, Remedy: gapRemedy(d.Name)}
		if g.From != 0 {
			s.FromLSN = g.From.String()
		}
		if g.To != 0 {
			s.ToLSN = g.To.String()
		}
		for _, t := range g.Tables {
			s.Tables = append(s.Tables, t.String())
		}
		list = append(list, s)
	}
	return list
}

func gapRemedy(database string) string { return "lockstep backfill --gap --database " + database }

// gapReason tells in a sentence that changes may be missing; empty: none are.
func (d *database) gapReason() string {
	gaps := d.gaps.List(d.Name)
	if len(gaps) == 0 {
		return ""
	}
	what := "any table"
	if tables := gaps[0].Tables; len(tables) > 0 {
		what = tables[0].String()
	}
	more := ""
	if len(gaps) > 1 {
		more = fmt.Sprintf(" (and %d more gaps)", len(gaps)-1)
	}
	return fmt.Sprintf("changes of %s may be missing since %s: %s%s; %s", what, gaps[0].At.UTC().Format(time.RFC3339), gaps[0].Reason, more, gapRemedy(d.Name))
}

func publishedName(c publish.Class) string {
	switch c {
	case publish.Full:
		return "full"
	case publish.InsertOnly:
		return "inserts only"
	case publish.None:
	}
	return "none"
}

// observe sets the gauges that are cheaper to read than to keep.
func (d *database) observe() {
	d.stream.SetRange(d.log.First(), d.log.Last().Seq)
	if d.capture == nil {
		return
	}
	s := d.capture.Status()
	age := time.Duration(0)
	if s.LagBytes > 0 {
		age = time.Duration(d.lag.Load())
	}
	d.metrics.SetLag(int64(s.LagBytes), max(age, 0))
	d.metrics.SetSlotRetained(s.Slot.RetainedBytes)
	d.seen.Lock()
	d.metrics.Captured(int(s.Changes-d.changes), int(s.Transactions-d.transactions), int(s.Bytes-d.bytes))
	d.changes, d.transactions, d.bytes = s.Changes, s.Transactions, s.Bytes
	d.seen.Unlock()
	if s.Connected {
		d.metrics.Connected()
	} else {
		d.metrics.Disconnected()
	}
}
