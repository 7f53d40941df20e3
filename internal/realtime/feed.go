package realtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// feed reads the end of one database's log for all its channels: one reader, which
// offers each change to those that it concerns. A channel that replays attaches when
// it has come to where the feed is; what it gets is exact at that moment.
type feed struct {
	database string
	server   *Server
	log      Log
	shapes   *shapes

	mu     sync.Mutex // before the locks of outboxes
	subs   map[*subscription]struct{}
	router *router
	change change
	pos    uint64             // the next seq; everything below was offered
	stop   context.CancelFunc // ends the reading; nil: nobody reads
}

func newFeed(s *Server, database string, log Log) *feed {
	return &feed{
		database: database, server: s, log: log, shapes: newShapes(database, s.config, s.spawn),
		subs: map[*subscription]struct{}{}, router: newRouter(), change: change{limit: s.config.Limits.RecordBytes},
	}
}

// attach makes the channel get everything from seq on. It reports false when the feed
// is further on already, or would begin behind the log's end: the channel reads on by
// itself, as fast as its client takes it, and asks again.
func (f *feed) attach(sub *subscription, from uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.stop == nil:
		if from <= f.log.Last().Seq {
			return false
		}
		f.pos = from
		if !f.start() {
			return true // the server stops, and this channel with it
		}
	case from < f.pos:
		return false
	}
	f.subs[sub] = struct{}{}
	for _, b := range sub.bindings {
		f.router.add(b)
	}
	return true
}

// detach returns when the channel gets nothing any more.
func (f *feed) detach(sub *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.subs[sub]; !ok {
		return
	}
	delete(f.subs, sub)
	for _, b := range sub.bindings {
		f.router.remove(b)
	}
	if len(f.subs) == 0 {
		f.stop()
		f.stop = nil
	}
}

// start begins to read at pos. The caller holds mu.
func (f *feed) start() bool {
	from := f.pos
	ctx, cancel := context.WithCancel(f.server.life) // the reading outlives whoever began it
	if !f.server.spawn(func(context.Context) { f.read(ctx, from) }) {
		cancel()
		return false
	}
	f.stop = cancel
	return true
}

// read offers batches until ctx ends: nobody is attached any more.
func (f *feed) read(ctx context.Context, from uint64) {
	reader := f.log.Reader(from)
	defer func() { reader.Close() }()
	patience := readRetry
	for {
		b, err := reader.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			patience = readRetry
			f.dispatch(ctx, b)
			continue
		}
		next, lost := after(err)
		if lost == "" {
			f.server.config.Logger.WarnContext(ctx, "the end of the log cannot be read", obs.KeyDatabase, f.database, obs.KeyError, err)
			if !pause(ctx, patience) {
				return
			}
			patience = min(2*patience, maxReadRetry)
			f.mu.Lock()
			next = f.pos
			f.mu.Unlock()
		} else {
			f.skip(ctx, next, lost)
		}
		reader.Close()
		reader = f.log.Reader(next)
	}
}

// How long reading waits after an error that may pass, at first and at most.
const (
	readRetry    = 200 * time.Millisecond
	maxReadRetry = 5 * time.Second
)

// after returns where reading goes on behind changes that are lost, and what to tell;
// nothing when none are lost, and trying again may help.
func after(err error) (next uint64, lost string) {
	if gone, ok := errors.AsType[*lockstep.RetentionError](err); ok {
		return gone.First, fmt.Sprintf("Changes from sequence %d on were removed by retention: the first available one is %d", gone.Asked, gone.First)
	}
	if damage, ok := errors.AsType[*DamageError](err); ok {
		return damage.Last + 1, fmt.Sprintf("Changes of the sequences %d to %d are damaged and cannot be sent: the next available one is %d", damage.First, damage.Last, damage.Last+1)
	}
	return 0, ""
}

// pause waits, and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// skip tells everybody that changes are lost, and goes on behind them.
func (f *feed) skip(ctx context.Context, next uint64, lost string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	f.pos = max(f.pos, next)
	for sub := range f.subs {
		sub.channel.tellLoss(lost, next)
	}
}

// dispatch offers a batch to the channels that it concerns.
func (f *feed) dispatch(ctx context.Context, b *lockstep.Batch) {
	known := f.prepare(ctx, b)
	f.mu.Lock()
	defer f.mu.Unlock()
	for ctx.Err() == nil && !f.prepared(b, known) {
		f.mu.Unlock()
		known = f.prepare(ctx, b)
		f.mu.Lock()
	}
	if ctx.Err() != nil {
		return // whoever attaches now begins a reading of their own
	}
	route(f.router, b, known, f.pos, &f.change, func() {
		for sub := range f.subs {
			sub.channel.tellGap(f.change.record)
		}
	})
	f.pos = max(f.pos, b.Mark.Seq+1)
}

// prepare returns the shapes of a batch's tables, by number. It may wait for Postgres,
// so it is not called under a lock.
func (f *feed) prepare(ctx context.Context, b *lockstep.Batch) []*shape {
	tables := b.Tables()
	wanted := make([]bool, len(tables))
	any := false
	f.mu.Lock()
	for n := range tables {
		wanted[n] = f.router.concerns(&tables[n])
		any = any || wanted[n]
	}
	f.mu.Unlock()
	if !any {
		return nil
	}
	return shapesOf(ctx, f.shapes, b, wanted)
}

// prepared reports whether the shapes of all tables that concern anybody are there:
// somebody may have attached while they were read. The caller holds mu.
func (f *feed) prepared(b *lockstep.Batch, known []*shape) bool {
	tables := b.Tables()
	for n := range tables {
		if (known == nil || known[n] == nil) && len(b.OfTable(n)) > 0 && f.router.concerns(&tables[n]) {
			return false
		}
	}
	return true
}

// shapesOf returns the shapes of the wanted tables of a batch, by number.
func shapesOf(ctx context.Context, shapes *shapes, b *lockstep.Batch, wanted []bool) []*shape {
	tables := b.Tables()
	known := make([]*shape, len(tables))
	var last change
	for n := range tables {
		rows := b.OfTable(n)
		if !wanted[n] || len(rows) == 0 {
			continue
		}
		name := nameOf(&tables[n])
		known[n] = shapes.get(ctx, name, shapeWait)
		if !known[n].known {
			continue
		}
		// A new column shows in the last row at the latest.
		last.row.Reset(b.Record(int(rows[len(rows)-1])).Row())
		for _, m := range last.row.Members() {
			if _, ok := known[n].types[string(m.Name)]; !ok {
				shapes.changed(name, known[n])
				known[n] = shapes.get(ctx, name, shapeWait)
				break
			}
		}
	}
	return known
}

// route sends the changes of a batch from seq on to the channels of the router; gap is
// called for one that concerns all tables.
func route(r *router, b *lockstep.Batch, known []*shape, from uint64, c *change, gap func()) {
	indices := make([]*tableIndex, len(known))
	for n, s := range known {
		if s != nil && r.concerns(&b.Tables()[n]) {
			indices[n] = r.index(nameOf(&b.Tables()[n]), s)
		}
	}
	for i := range b.Len() {
		record := b.Record(i)
		if record.Seq() < from {
			continue
		}
		switch record.Action() {
		case lockstep.Insert, lockstep.Update, lockstep.Delete:
			n := record.TableNumber()
			if n >= len(indices) || indices[n] == nil {
				continue
			}
			c.reset(record, known[n])
			for _, sub := range r.route(indices[n], c) {
				sub.channel.deliver(c, sub.hits)
			}
		case lockstep.Gap:
			c.reset(record, &shape{})
			gap()
		case lockstep.Read, lockstep.Truncate:
		}
	}
}

// selectsAny reports whether the subscription is about the table; about every table
// when the name is empty.
func (s *subscription) selectsAny(name tableName) bool {
	if name == (tableName{}) {
		return true
	}
	for _, b := range s.bindings {
		if b.selects(name) {
			return true
		}
	}
	return false
}

// gapPayload is the payload of the system message about a gap that capture found.
func gapPayload(r lockstep.Record, channel string) []byte {
	status, text := "error", "Changes may be missing"
	gap := metadataMember(r.Extra(), "gap")
	if string(stringMember(gap, "state")) == "end" {
		status, text = "ok", "Changes were missing; everything is complete again from here on, as far as the gap tells"
	}
	if reason := stringMember(gap, "reason"); len(reason) > 0 {
		text += ": " + string(reason)
	}
	dst := appendSystem(nil, status, text, channel)
	dst = append(dst[:len(dst)-1], `,"sequence":`...)
	dst = strconv.AppendUint(dst, r.Seq(), 10)
	if len(gap) > 0 {
		dst = append(append(dst, `,"gap":`...), gap...)
	}
	return append(dst, '}')
}
