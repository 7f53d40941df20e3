package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"lockstep"
)

// Log is the changes of one database: one writer, any number of readers. All
// methods may be called concurrently; appends take turns.
//
// A Log becomes the writer with Recover (Append does it by itself when nobody
// has). Before that, and after another process took over, it follows the stream on
// an external server by one ordered consumer, shared by all of its readers. With
// the embedded server nobody else can write, so it has nothing to follow.
type Log struct {
	srv       *Server
	database  string
	stream    string // JetStream's name
	subject   string
	index     index
	writer    *writer
	cancel    context.CancelFunc // ends run
	marked    rollup             // of the copy of the mark; guarded by marking
	marking   sync.Mutex
	movesMark atomic.Bool   // the mark lies where older versions kept it
	ended     chan struct{} // closed by run's end

	mu        sync.Mutex
	end       end
	first     uint64        // a lower bound of the oldest seq present; exact once refreshed
	begins    uint64        // the stream's first message when first was looked up
	maxBytes  int64         // the stream's limit as it is set now; 0 for none
	epoch     uint64        // counts the times that the stream lost messages at its end
	grown     chan struct{} // closed and replaced when end moves
	closed    bool
	following func() // stops the follower and waits for it; nil when there is none
}

// end is where a log ends: after the last batch that is durable as a whole.
type end struct {
	mark  lockstep.Mark
	start uint64 // the message that the last batch begins with
	last  uint64 // the message that it ends with
	clock int64  // the latest commit time so far, microseconds since 1970
}

func newLog(s *Server, database, name string) *Log {
	l := &Log{
		srv:      s,
		database: database,
		stream:   logStreamPrefix + name,
		subject:  logSubjectPrefix + name,
		ended:    make(chan struct{}),
		grown:    make(chan struct{}),
	}
	l.writer = newWriter(l)
	return l
}

// Database returns the database's name.
func (l *Log) Database() string { return l.database }

// Last returns where the durable log ends; the zero Mark when nothing was ever
// appended.
func (l *Log) Last() lockstep.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end.mark
}

// LastCommit is when the latest transaction of the log was committed, by the database's
// clock; zero: there is none. A clock that is set back does not set it back.
func (l *Log) LastCommit() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end.clock == 0 {
		return time.Time{}
	}
	return time.UnixMicro(l.end.clock).UTC()
}

// First returns the oldest seq that is present, Last().Seq+1 when there is none.
// Retention is noticed within a second; until then First is too low, never too
// high.
func (l *Log) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// view is what a reader decides by, taken at one moment.
type view struct {
	end    end
	first  uint64
	epoch  uint64
	grown  <-chan struct{}
	closed bool
}

func (l *Log) view() view {
	l.mu.Lock()
	defer l.mu.Unlock()
	return view{l.end, l.first, l.epoch, l.grown, l.closed}
}

// open finds or creates the stream, reads its end and starts the log's work.
func (l *Log) open(ctx context.Context) error {
	if err := l.ensure(ctx); err != nil {
		return err
	}
	found, err := l.readEnd(ctx)
	if err != nil {
		return err
	}
	if err := l.limit(ctx, found); err != nil {
		return err
	}
	l.end = found.end
	if err := l.refreshFirst(ctx); err != nil {
		return err
	}
	acks, err := l.writer.subscribe()
	if err != nil {
		return err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	if l.srv.embed == nil {
		l.startFollowing(life)
	}
	go func() {
		defer close(l.ended)
		l.run(life, acks)
	}()
	return nil
}

func (l *Log) run(ctx context.Context, acks <-chan ack) {
	var g errgroup.Group
	g.Go(func() error { l.writer.pump(ctx, acks); return nil })
	g.Go(func() error { l.keepHouse(ctx); return nil })
	_ = g.Wait() // neither returns an error
	l.stopFollowing()
}

// close lets appends on their way end, then stops the log's work.
func (l *Log) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	settled := l.writer.settle(ctx) // what has not ended by then fails with the connection
	var saved error
	if settled == nil {
		saved = l.saveMark(ctx)
	}
	l.mu.Lock()
	l.closed = true
	l.wake()
	l.mu.Unlock()
	l.cancel()
	<-l.ended
	if saved != nil && !errors.Is(saved, lockstep.ErrUnavailable) {
		return saved
	}
	return nil
}

// ensure creates the stream, or corrects those settings that the log relies on. An
// operator's other settings, such as replicas and placement, are left alone.
func (l *Log) ensure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := l.srv.js.Stream(ctx, l.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = l.srv.js.CreateStream(ctx, l.config(jetstream.StreamConfig{
			Name:        l.stream,
			Description: "Lockstep: changes of database " + l.database,
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.LimitsPolicy,
			Replicas:    l.srv.cfg.Replicas,
			MaxBytes:    -1,
		}))
		if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.stream, unavailable(err))
	}
	have := info.CachedInfo().Config
	want := l.config(have)
	if have.AllowDirect == want.AllowDirect && have.MaxAge == 0 && have.MaxMsgs == -1 && have.Discard == want.Discard && len(have.Subjects) == 1 && have.Subjects[0] == l.subject {
		return nil
	}
	if _, err := l.srv.js.UpdateStream(ctx, want); err != nil {
		return fmt.Errorf("stream %s: %w", l.stream, unavailable(err))
	}
	return nil
}

func (l *Log) config(c jetstream.StreamConfig) jetstream.StreamConfig {
	c.Subjects = []string{l.subject}
	c.AllowDirect = true
	c.Discard = jetstream.DiscardOld
	c.MaxMsgs = -1
	c.MaxAge = 0 // the log trims by age itself; see the package's documentation
	return c
}

// limit sets the stream's limit of bytes: the configured one, but never so low that
// the last batch would not fit.
func (l *Log) limit(ctx context.Context, found found) error {
	want := int64(0)
	if l.srv.cfg.Retention.Bytes > 0 {
		want = max(l.srv.cfg.Retention.Bytes, minLogBytes, 2*found.size)
	}
	return l.setLimit(ctx, want)
}

func (l *Log) setLimit(ctx context.Context, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := l.srv.js.Stream(ctx, l.stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", l.stream, unavailable(err))
	}
	c := info.CachedInfo().Config
	if max(c.MaxBytes, 0) != bytes {
		c.MaxBytes = bytes
		if bytes == 0 {
			c.MaxBytes = -1
		}
		if _, err := l.srv.js.UpdateStream(ctx, c); err != nil {
			return fmt.Errorf("set the retention of stream %s to %d bytes: %w", l.stream, bytes, unavailable(err))
		}
	}
	l.mu.Lock()
	l.maxBytes = bytes
	l.mu.Unlock()
	return nil
}

// advance makes a durable batch the end of the log and wakes the readers.
func (l *Log) advance(e entry) {
	if e.batch.Len() > 0 {
		l.srv.cache.put(l, e)
		l.index.add(place{e.batch.First, e.start})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// The follower may bring what the writer has just confirmed, and the other way round.
	if e.end > l.end.last {
		l.setEnd(e)
	}
}

// setEnd moves the end; mu is held.
func (l *Log) setEnd(e entry) {
	l.end = end{mark: e.batch.Mark, start: e.start, last: e.end, clock: e.clock}
	l.wake()
}

// wake makes waiting readers look again; mu is held.
func (l *Log) wake() {
	close(l.grown)
	l.grown = make(chan struct{})
}
