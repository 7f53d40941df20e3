// Package deliver hands changes to consumers: in order per key, to one holder at a
// time, until each is settled.
//
// # Guarantees
//
//  1. Per key, at every consumer: a change is not handed out before the one before
//     it is acked and that ack is on disk, or it is in the dead letters. One
//     delivery may hold several changes of a key, in order; then nothing later of
//     the key goes out until all of them are settled or given back.
//  2. An ack that was answered with success is on disk: the consumer never gets that
//     change again (until somebody seeks back), whatever is killed.
//  3. A token settles one delivery only. One whose lease ran out, of an earlier
//     delivery, of before a seek, of before a restart (unless it settled the change
//     then) or of another consumer is stale, and changes nothing.
//  4. A key that waits, for its backoff or for a person, never holds up another one.
//     A truncate or a gap does: it waits for every key of its table, and later
//     changes of the table wait for it.
//  5. Next answers "nothing" only when everything that was in the log when it was
//     called has been looked at, and it wakes without polling.
//  6. Memory per consumer is bounded by 100,000 unsettled changes (twice
//     max_in_flight, if that is more), none of them with its body. The saved state's
//     size follows the keys that have unsettled changes, about 16 entries each at most.
//  7. What retention or damage took before it was settled becomes a gap that is
//     handed out and acked like a change: never silence.
//  8. A change whose filter or transform fails goes to the dead letters, with the
//     reason; the others go on.
//  9. A consumer of collections sees the API's object in the place of the row, in
//     messages, dead letters, filters and transforms alike, equal on every redelivery.
//  10. Nothing here needs Postgres.
package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"lockstep"
)

// Config is what a broker is made of. Logs, States, Dead and Secret are needed.
type Config struct {
	Logs   func(ctx context.Context, database string) (Log, error)
	States States
	Dead   Dead
	// Secret signs tokens. It must stay the same over restarts.
	Secret []byte
	Logger *slog.Logger // nil: slog.Default
	// Mirrored tells what a table mirrors; nil: nothing is mirrored. It answers at once,
	// from memory, and must know a table before its first change is in the log, also
	// after a restart: consumers of collections pass over what it does not know. Until
	// it knows the tables that there are, no such consumer may be Put. When it does not
	// know a table any more, its changes that are not settled are left out. It is called
	// with locks held and must not call the broker.
	Mirrored func(database, schema, table string) (Mirrored, bool)
	// Upkeep is how often positions of idle consumers are saved and retention is
	// looked after; 0: 10 s.
	Upkeep time.Duration
}

// Broker holds the consumers of a node. It is safe for concurrent use.
type Broker struct {
	cfg   Config
	log   *slog.Logger
	began time.Time // the origin of now

	mu      sync.Mutex
	byID    map[string]*Consumer
	byName  map[string]*Consumer
	tails   map[string]*tail // by database
	ended   bool
	started chan struct{}  // closed by Run
	calls   sync.WaitGroup // calls and goroutines that Run waits for; added to under mu
	grown   chan struct{}  // tells Run of a new tail
	stop    chan struct{}  // closed by Run when nothing is handed out any more

	opening sync.Mutex // one Put or Remove at a time
}

// New makes a broker. Its consumers come by Put; nothing is delivered to waiting
// calls before Run.
func New(cfg Config) *Broker {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Upkeep <= 0 {
		cfg.Upkeep = 10 * time.Second
	}
	return &Broker{
		cfg: cfg, log: cfg.Logger, began: time.Now(),
		byID: map[string]*Consumer{}, byName: map[string]*Consumer{}, tails: map[string]*tail{},
		grown: make(chan struct{}, 1), started: make(chan struct{}), stop: make(chan struct{}),
	}
}

// now is the time in nanoseconds since 1970, moved by the monotonic clock only: a
// clock that is set ends no lease.
func (b *Broker) now() int64 { return b.began.UnixNano() + int64(time.Since(b.began)) }

func (b *Broker) timeOf(now int64) time.Time { return time.Unix(0, now).UTC() }

// Run serves the consumers until ctx ends. Then waiting calls return empty, what was
// acked is saved, and later calls fail with lockstep.ErrUnavailable. It runs once.
func (b *Broker) Run(ctx context.Context) error {
	if len(b.cfg.Secret) < 16 {
		return fmt.Errorf("run deliveries: the secret that signs tokens has %d bytes, at least 16 are needed: %w", len(b.cfg.Secret), lockstep.ErrInvalid)
	}
	close(b.started)
	var tails sync.WaitGroup
	started := map[string]bool{}
	upkeep := time.NewTicker(b.cfg.Upkeep)
	defer upkeep.Stop()
	for {
		for _, t := range b.allTails() {
			if !started[t.database] {
				started[t.database] = true
				tails.Go(func() { t.run(ctx) })
			}
		}
		select {
		case <-ctx.Done():
			close(b.stop)
			tails.Wait()
			return b.finish() //nolint:contextcheck // the last saves must happen although ctx has ended
		case <-b.grown:
		case <-upkeep.C:
			for _, c := range b.List() {
				c.upkeep(ctx)
			}
		}
	}
}

// flushTimeout is how long the last saves may take when the broker stops.
const flushTimeout = 15 * time.Second

// finish saves what is not saved and waits for every call.
func (b *Broker) finish() error {
	// The saves must happen although the context that stopped the broker has ended.
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	var (
		mu     sync.Mutex
		errs   []error
		flush  sync.WaitGroup
		tokens = make(chan struct{}, 16)
	)
	for _, c := range b.List() {
		tokens <- struct{}{}
		flush.Go(func() {
			defer func() { <-tokens }()
			if err := c.flush(ctx); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	flush.Wait()
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.calls.Wait()
	for _, c := range b.List() {
		c.retire()
	}
	return errors.Join(errs...)
}

// enter begins a call or a goroutine that Run waits for; leave must follow.
func (b *Broker) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return fmt.Errorf("deliveries have stopped: %w", lockstep.ErrUnavailable)
	}
	b.calls.Add(1)
	return nil
}

func (b *Broker) leave() { b.calls.Done() }

// spawn runs f in a goroutine that Run waits for. It reports false when the broker
// has ended.
func (b *Broker) spawn(f func()) bool {
	if b.enter() != nil {
		return false
	}
	go func() {
		defer b.leave()
		f()
	}()
	return true
}

// serving reports whether Run runs.
func (b *Broker) serving() bool {
	select {
	case <-b.started:
		return !b.stopping()
	default:
		return false
	}
}

// stopping reports whether nothing is handed out any more.
func (b *Broker) stopping() bool {
	select {
	case <-b.stop:
		return true
	default:
		return false
	}
}

// Put makes a consumer, or changes the one with that id in place. What is not
// settled stays unsettled; a changed filter holds for changes that nobody tried
// yet. Start matters only for a consumer that has no saved state. Errors:
// *DefinitionError; lockstep.ErrConflict for a name in use, for another database,
// and for another order while changes are unsettled.
func (b *Broker) Put(ctx context.Context, d Definition) (*Consumer, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	if err := d.Validate(); err != nil {
		return nil, err
	}
	m, err := newMatcher(d, b.cfg.Mirrored)
	if err != nil {
		return nil, err
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	old, err := b.checkName(d)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if err := old.redefine(d, m); err != nil {
			return nil, err
		}
		b.name(old, d.Name)
		return old, nil
	}
	c, err := b.open(ctx, d, m)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.byID[d.ID] = c
	b.mu.Unlock()
	b.name(c, d.Name)
	return c, nil
}

// checkName returns the consumer that d changes, or nil, unless another one has the
// name.
func (b *Broker) checkName(d Definition) (*Consumer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.byName[d.Name]; other != nil && other.id != d.ID {
		return nil, fmt.Errorf("consumer %s: another consumer (%s) has that name; choose another one: %w", d.Name, other.id, lockstep.ErrConflict)
	}
	return b.byID[d.ID], nil
}

func (b *Broker) name(c *Consumer, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.byName, func(_ string, o *Consumer) bool { return o == c })
	b.byName[name] = c
}

// Remove deletes a consumer with its state and its dead letters. Waiting calls end
// with lockstep.ErrNotFound.
func (b *Broker) Remove(ctx context.Context, id string) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	b.opening.Lock()
	defer b.opening.Unlock()
	c, err := b.Find(id)
	if err != nil {
		return err
	}
	if err := c.remove(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byID, c.id)
	maps.DeleteFunc(b.byName, func(_ string, o *Consumer) bool { return o == c })
	return nil
}

// Find returns a consumer by its id or its name, or lockstep.ErrNotFound.
func (b *Broker) Find(idOrName string) (*Consumer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.byID[idOrName]; c != nil {
		return c, nil
	}
	if c := b.byName[idOrName]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("consumer %s: %w", idOrName, lockstep.ErrNotFound)
}

// List returns the consumers by name.
func (b *Broker) List() []*Consumer {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(b.byName), cmp.Compare[string])
	list := make([]*Consumer, len(names))
	for i, n := range names {
		list[i] = b.byName[n]
	}
	return list
}

func (b *Broker) allTails() []*tail {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.tails))
}

// tailOf returns the database's tail, making it when there is none.
func (b *Broker) tailOf(ctx context.Context, database string) (*tail, error) {
	log, err := b.cfg.Logs(ctx, database)
	if err != nil {
		return nil, fmt.Errorf("open the log of database %s: %w", database, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.tails[database]; t != nil {
		return t, nil
	}
	t := newTail(database, log, b.cfg)
	b.tails[database] = t
	select {
	case b.grown <- struct{}{}:
	default:
	}
	return t, nil
}

// random is the share of jitter.
func random() float64 { return rand.Float64() }
