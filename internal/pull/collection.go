package pull

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/source"
)

// collection is one list of records, that is filled, and swept or read again.
type collection struct {
	source.Collection
	w       *work
	feed    *feed // nil: changes are found by reading it again
	also    []*feed
	unknown string // why there is no such collection
	task    *task  // reading
	store   *task  // writing
	wake    chan struct{}
	place   source.Cursor               // of a rereading that was broken off
	places  *backoff.ExponentialBackOff // since the list's place was lost; nil: it was not

	// Guarded by s.mu.
	ready    bool      // its table is there
	progress progress  // of the backfill
	again    string    // why it must be read anew; empty: it need not
	owed     time.Time // when a change could not be looked at; zero: before this session
	missed   string    // why it could not
	doubt    bool      // it must be found out whether the list may be seen
	doubted  time.Time // when that was done last
	begun    time.Time // when the backfill began or went on, in this session
	before   uint64    // records that it had read by then
	swept    swept
	asked    time.Time // somebody wants to have it read after that time
	readAt   time.Time // when the last complete reading began
	nextAt   time.Time
}

// progress is how far a backfill is. It is saved with each page.
type progress struct {
	Next    source.Cursor `json:"next,omitempty"` // null: the beginning
	Done    bool          `json:"done,omitempty"`
	Began   time.Time     `json:"began,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`
	First   time.Time     `json:"first,omitzero"` // when all had been read for the first time
	Why     string        `json:"why,omitempty"`  // it is read again
	Records uint64        `json:"records"`
	Pages   uint64        `json:"pages"`
	// Sweep says that deletions must be looked for when all has been read.
	Sweep bool `json:"sweep,omitempty"`
	// Versions says that the list shows when records changed, so that a feed of it
	// can be trusted to tell of every change.
	Versions bool `json:"versions,omitempty"`
}

// swept is the state of a collection's sweeps.
type swept struct {
	At    time.Time `json:"at,omitzero"` // when the last complete one began
	Part  uint64    `json:"part,omitempty"`
	Parts uint64    `json:"parts,omitempty"` // 0: ids need not be swept in parts
}

func newCollection(w *work, c source.Collection) *collection {
	return &collection{Collection: c, w: w, task: w.s.task("backfill", c.Name), store: w.s.task("store", c.Name), wake: make(chan struct{}, 1)}
}

// shape makes the table. Only what ends the session is an error.
func (c *collection) shape(ctx context.Context) error {
	if c.unknown != "" {
		c.task.fail(ctx, verdict{course: shut, err: &source.Error{Kind: source.Forbidden, Message: c.unknown}})
		return nil
	}
	err := c.w.s.config.Mirror.Prepare(ctx, []source.Collection{c.Collection})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && (judge(err).course == over || lockstep.Retryable(err)) {
		return err
	}
	if err != nil {
		c.store.fail(ctx, verdict{course: shut, err: err})
		return nil
	}
	c.w.s.mu.Lock()
	c.ready = true
	c.w.s.mu.Unlock()
	c.store.succeed(ctx)
	return nil
}

func (c *collection) restore(states map[string]json.RawMessage) error {
	c.place = states["reread:"+c.Name]
	for name, into := range map[string]any{"backfill:": &c.progress, "again:": &c.again, "sweep:": &c.swept} {
		state := states[name+c.Name]
		if state == nil {
			continue
		}
		if err := json.Unmarshal(state, into); err != nil {
			return fmt.Errorf("the state %s%s of sync %q: %w", name, c.Name, c.w.s.config.Name, err)
		}
	}
	return nil
}

// open reports whether records of it can be applied, and fetched.
func (c *collection) open() bool {
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	return c.ready && !c.task.shut
}

func (c *collection) owes() bool {
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	return c.again != ""
}

func (c *collection) filled() bool {
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	return c.progress.Done
}

// paid reports whether what was owed is read by a list whose first page was asked for
// at that time, and takes it as read.
func (c *collection) paid(began time.Time) bool {
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	if c.again != whyOwed || !c.owed.Before(began) {
		return false
	}
	c.again, c.missed = "", ""
	return true
}

// owe has the collection read again from its beginning.
func (c *collection) owe(why string) {
	c.w.s.mu.Lock()
	if c.again == "" || why != whyOwed {
		c.again = why
	}
	if why == whyOwed {
		c.owed = time.Now()
	}
	c.w.s.changed()
	c.w.s.mu.Unlock()
	c.poke()
}

// miss notes why changes could not be fetched. Where that is for want of access, the
// list is asked for: it tells whether all of the collection is meant.
func (c *collection) miss(reason error) {
	s := c.w.s
	s.mu.Lock()
	c.missed = oneLine(reason)
	if k := kindOf(reason); (k == source.Forbidden || k == source.Unauthorized) && time.Since(c.doubted) > s.pace.shut {
		c.doubt, c.doubted = true, time.Now()
	}
	s.changed()
	s.mu.Unlock()
	c.poke()
}

// probe asks for the beginning of the list until the API shows it, so that a
// collection that may not be seen any more is known as that. What was missed
// meanwhile is read at once.
func (c *collection) probe(ctx context.Context) error {
	s := c.w.s
	s.mu.Lock()
	c.doubt = false
	s.mu.Unlock()
	refused := false
	err := c.task.try(ctx, func(ctx context.Context) error {
		err := c.w.worker(ctx, source.Sweeping, func(ctx context.Context) error {
			_, err := s.config.Source.Backfill(ctx, c.Name, nil)
			return err
		})
		refused = refused || err != nil && judge(err).course == shut
		return err
	})
	if err != nil {
		return c.interlude(ctx, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused {
		c.owed = time.Time{}
	}
	return nil
}

// ask has what is due done now, and a collection without a feed read after a time.
func (c *collection) ask(at time.Time) {
	c.w.s.mu.Lock()
	if c.asked.Before(at) {
		c.asked = at
	}
	c.w.s.mu.Unlock()
	c.poke()
}

func (c *collection) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// duty is what a collection has to do next.
type duty int

const (
	idle     duty = iota
	begin         // to read it anew
	fill          // to go on with that
	probing       // to find out whether it may be seen
	sweeping      // to look for deletions, and read it again where no feed tells
)

// feeds returns all that tell of the collection.
func (c *collection) feeds() []*feed {
	if c.feed == nil {
		return nil
	}
	return append([]*feed{c.feed}, c.also...)
}

// run fills the collection and keeps it right until the session ends.
func (c *collection) run(ctx context.Context) error {
	if c.unknown != "" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for _, f := range c.feeds() {
		select {
		case <-f.started:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := c.resumed(ctx); err != nil {
		return err
	}
	for {
		var err error
		what, at := c.next()
		switch what {
		case begin:
			err = c.begin(ctx)
		case fill:
			err = c.backfill(ctx)
		case probing:
			err = c.probe(ctx)
		case sweeping:
			err = c.sweep(ctx)
		default:
			err = c.idle(ctx, at)
		}
		if err != nil {
			return err
		}
	}
}

// prepare waits until the table is there. What was missed meanwhile is read again.
func (c *collection) prepare(ctx context.Context) error {
	for !c.isReady() {
		if err := hold(ctx, c.w.s.pace.shut, c.w.s.kicked()); err != nil {
			return err
		}
		if err := c.shape(ctx); err != nil {
			return err
		}
		if !c.isReady() {
			continue
		}
		states, err := c.w.s.config.Mirror.States(ctx)
		if err != nil {
			return err
		}
		c.w.s.mu.Lock()
		if states["backfill:"+c.Name] == nil {
			c.progress = progress{}
		}
		c.w.s.mu.Unlock()
	}
	return nil
}

func (c *collection) isReady() bool {
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	return c.ready
}

// resumed tells that a backfill goes on where it stopped.
func (c *collection) resumed(ctx context.Context) error {
	c.w.s.mu.Lock()
	p := c.progress
	c.w.s.mu.Unlock()
	if p.Began.IsZero() || p.Done {
		return nil
	}
	c.w.s.note(ctx, mirror.Entry{Kind: "backfill", Collection: c.Name, Outcome: "resumed", Message: "goes on behind the last page that was applied",
		Payload: figures("records", p.Records, "pages", p.Pages)})
	return ctx.Err()
}

// next is what to do, and when, if there is nothing to do now.
func (c *collection) next() (duty, time.Time) {
	s := c.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var at time.Time
	plan := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	switch {
	case c.progress.Began.IsZero(), c.again != "" && c.again != whyOwed:
		return begin, now
	case !c.progress.Done:
		return fill, now
	case c.doubt:
		return probing, now
	case c.again == whyOwed:
		due := c.owedAt()
		if !now.Before(due) {
			return begin, now
		}
		plan(due)
	}
	if c.progress.Sweep && (c.IDs || c.rereads()) {
		return sweeping, now
	}
	if c.feed == nil && c.asked.After(c.readAt) && !c.asked.After(now) {
		return sweeping, now
	}
	if every := c.sweepEvery(); every > 0 {
		due := latest(c.swept.At, c.progress.Ended).Add(every)
		if !now.Before(due) {
			return sweeping, now
		}
		plan(due)
	}
	c.nextAt = at
	return idle, at
}

// owedAt is when what is owed is read: at most so often, since it may be owed again
// and again; more often while somebody waits for it. The caller holds s.mu.
func (c *collection) owedAt() time.Time {
	switch pace := c.w.s.pace; {
	case c.owed.IsZero():
		return c.progress.Began
	case c.asked.After(c.owed):
		return c.progress.Began.Add(pace.slow)
	default:
		return c.progress.Began.Add(pace.owed)
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// sweepEvery is how often deletions are looked for, or everything is read again; 0: never.
func (c *collection) sweepEvery() time.Duration {
	if c.SweepEvery > 0 || c.feed != nil {
		return c.SweepEvery
	}
	if c.Every > 0 {
		return c.Every
	}
	return c.w.s.pace.reread
}

// rereads reports whether a sweep reads the records too: without a feed it is the only
// way to see changes, and a feed of its own that shows no versions may tell of new
// records only. The caller holds s.mu.
func (c *collection) rereads() bool {
	return c.feed == nil || c.Feed == c.Name && !c.progress.Versions
}

func (c *collection) idle(ctx context.Context, until time.Time) error {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
	case <-c.wake:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// begin saves that the collection is read from its beginning.
func (c *collection) begin(ctx context.Context) error {
	s := c.w.s
	s.mu.Lock()
	why, old := c.again, c.progress
	s.mu.Unlock()
	now := time.Now()
	p := progress{Began: now, First: old.First, Why: why, Sweep: why != "" || !old.First.IsZero()}
	if !p.Sweep {
		// The table may have rows of a sync before this one.
		rows, err := c.rows(ctx, "", 1)
		if err != nil {
			return err
		}
		p.Sweep = len(rows) > 0
	}
	entry := mirror.Entry{Kind: "backfill", Collection: c.Name, Outcome: "started", Message: "everything is read"}
	if why != "" {
		entry.Message, entry.Payload = "everything is read again", figures("why", why)
	}
	change := mirror.Change{Entries: []mirror.Entry{entry}, States: []mirror.State{c.state(p), {Name: "again:" + c.Name}}}
	if _, err := c.w.apply(ctx, c.store, change); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.progress = p; c.again == why {
		c.again, c.missed = "", ""
	}
	s.changed()
	return nil
}

func (c *collection) state(p progress) mirror.State {
	text, _ := json.Marshal(p) // of our own fields; Next came from JSON
	return mirror.State{Name: "backfill:" + c.Name, Cursor: text}
}

// rows reads rows of the mirror, however often Postgres has to be asked. A table that
// was dropped is made again.
func (c *collection) rows(ctx context.Context, after string, limit int) (rows []mirror.Row, err error) {
	err = c.store.try(ctx, func(ctx context.Context) (err error) {
		rows, err = c.w.s.config.Mirror.Rows(ctx, c.Name, after, limit)
		if err != nil && ctx.Err() == nil {
			// The error of the rows counts: this only mends it where it can be mended.
			_ = c.w.s.config.Mirror.Prepare(ctx, []source.Collection{c.Collection})
		}
		return err
	})
	return rows, err
}
