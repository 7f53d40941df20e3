package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	loadAhead   = 10_000    // letters' headers that are fetched ahead
	loadRounds  = 4         // until the index and the stream must agree
	deletedMost = 1_000_000 // numbers of deleted messages that are asked for at a time
	loadProbes  = 16        // letters of a snapshot that are compared with the stream
)

// letterIndex knows every message of the stream: the letters, by what their subjects
// begin with, and the parts of large ones, subjects by number.
type letterIndex struct {
	sets  map[string]*letterSet
	parts map[uint64]string
	mark  uint64 // of the parts, the number of the mark
}

func newLetterIndex() *letterIndex {
	return &letterIndex{sets: map[string]*letterSet{}, parts: map[uint64]string{}}
}

// add takes in a message.
func (x *letterIndex) add(subject string, at, key uint64) {
	base, seq, ok := splitDead(subject)
	switch {
	case subject == deadMark && at < x.mark:
		return // a later one has replaced it
	case subject == deadMark:
		delete(x.parts, x.mark)
		x.mark = at
	}
	if !ok {
		x.parts[at] = subject
		return
	}
	x.put(base, letterEntry{seq, at, key})
}

func (x *letterIndex) put(base string, e letterEntry) {
	set := x.sets[base]
	if set == nil {
		set = &letterSet{}
		x.sets[strings.Clone(base)] = set
	}
	set.put(e)
}

// of returns a consumer's letters, perhaps a set of none that nobody else knows.
func (x *letterIndex) of(base string) *letterSet {
	if set := x.sets[base]; set != nil {
		return set
	}
	return &letterSet{}
}

// keep forgets the messages that are gone.
func (x *letterIndex) keep(lives func(at uint64) bool) {
	for _, set := range x.sets {
		set.keep(lives)
	}
	for at := range x.parts {
		if !lives(at) {
			delete(x.parts, at)
		}
	}
}

func (x *letterIndex) total() uint64 {
	n := len(x.parts)
	for _, set := range x.sets {
		n += set.n
	}
	return uint64(n)
}

// splitDead takes the subject of a letter apart; not ok: of a part.
func splitDead(subject string) (base string, seq uint64, ok bool) {
	dot := strings.IndexByte(strings.TrimPrefix(subject, deadSubject), '.')
	if dot < 0 {
		return "", 0, false
	}
	dot += len(deadSubject) + 1
	seq, err := strconv.ParseUint(subject[dot:], 10, 64)
	return subject[:dot], seq, err == nil
}

// deadLoad is a reading of the index that several may wait for.
type deadLoad struct {
	done chan struct{}
	err  error // set before done is closed
}

// ready waits until the index is that of the stream, or ctx ends. The reading goes on
// without those who wait.
func (d *Dead) ready(ctx context.Context) error {
	d.mu.Lock()
	if d.loaded && !d.doubt {
		d.mu.Unlock()
		return nil
	}
	if d.closed {
		d.mu.Unlock()
		return errClosed
	}
	load := d.loading
	if load == nil {
		load = &deadLoad{done: make(chan struct{})}
		d.loading = load
		d.work.Go(func() { d.run(load) })
	}
	d.mu.Unlock()
	select {
	case <-load.done:
		return load.err
	case <-ctx.Done():
		return fmt.Errorf("dead letters are being counted: %w", unavailable(context.Cause(ctx)))
	}
}

func (d *Dead) run(load *deadLoad) {
	started := time.Now()
	err := d.load(d.life)
	d.mu.Lock()
	defer d.mu.Unlock()
	if took := time.Since(started); err == nil && took > time.Second {
		d.srv.log.InfoContext(d.life, "the dead letters were counted", "letters", d.index.total(), "took", took)
	}
	d.loading, load.err = nil, err
	d.loaded = d.loaded || err == nil
	d.doubt = d.doubt || err != nil
	close(load.done)
}

// load brings the index up to date: with what was written behind read, and without what
// the stream does not have any more. When the two do not agree then, it reads everything.
func (d *Dead) load(ctx context.Context) error {
	d.mu.Lock()
	first := !d.loaded
	d.doubt = false
	d.mu.Unlock()
	if first && d.srv.embed != nil {
		d.restore(ctx)
		if err := d.restoreBlocks(ctx); err != nil {
			d.srv.log.WarnContext(ctx, "the index of the dead letters is made by asking for each of them, which takes longer", "error", err)
		}
	}
	for range loadRounds {
		switch agree, err := d.catchUp(ctx); {
		case err != nil:
			return fmt.Errorf("read dead letters: %w", unavailable(err))
		case agree:
			return nil
		}
		if err := d.readAll(ctx); err != nil {
			return fmt.Errorf("read dead letters: %w", unavailable(err))
		}
	}
	return nil // somebody else writes all the time; the next look goes on
}

// catchUp reports whether the index agrees with the stream afterwards.
func (d *Dead) catchUp(ctx context.Context) (bool, error) {
	info, err := d.details(ctx)
	if err != nil {
		return false, err
	}
	state := info.State
	d.mu.Lock()
	before, from := d.seen.last, d.read
	if from > state.LastSeq || from > 0 && state.NumDeleted > len(state.Deleted) && !d.agrees(state) {
		d.mu.Unlock()
		return false, nil
	}
	d.index.keep(func(at uint64) bool {
		_, deleted := slices.BinarySearch(state.Deleted, at)
		return at > state.LastSeq || at >= state.FirstSeq && !deleted
	})
	d.mu.Unlock()
	if err := d.readFrom(ctx, from+1, state, d.take); err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv.embed == nil || d.seen.last == before {
		d.seen = deadState{state.LastSeq, state.Msgs}
	}
	if d.writing == 0 && d.seen.last == state.LastSeq {
		if d.index.total()+d.unread != state.Msgs {
			return false, nil
		}
		d.read = state.LastSeq
	}
	return true, nil
}

// agrees reports whether there is nothing to catch up with. The caller holds mu.
func (d *Dead) agrees(state jetstream.StreamState) bool {
	return d.writing == 0 && d.read == state.LastSeq && d.index.total()+d.unread == state.Msgs
}

// take is called for messages as they are read.
func (d *Dead) take(subject string, at, key uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.add(subject, at, key)
}

// readAll makes the index anew. What is written meanwhile is read by the next catchUp.
func (d *Dead) readAll(ctx context.Context) error {
	info, err := d.info(ctx)
	if err != nil {
		return err
	}
	index := newLetterIndex()
	if err := d.readFrom(ctx, 1, info.State, index.add); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index, d.read, d.unread = index, info.State.LastSeq, 0
	if total := index.total(); total < info.State.Msgs && d.writing == 0 {
		d.unread = info.State.Msgs - total // damaged ones, or deleted meanwhile
	}
	d.changes++
	return nil
}

// readFrom calls take with every message from a number on, by a consumer of JetStream
// that delivers headers only. It has no filter: with one the server takes much longer.
func (d *Dead) readFrom(ctx context.Context, from uint64, state jetstream.StreamState, take func(subject string, at, key uint64)) error {
	if state.Msgs == 0 || from > state.LastSeq {
		return nil
	}
	consumer, err := d.srv.js.CreateConsumer(ctx, deadStream, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		HeadersOnly:       true,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute, // should the deletion below not arrive
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		if err := d.srv.js.DeleteConsumer(ctx, deadStream, consumer.CachedInfo().Name); err != nil {
			d.srv.log.DebugContext(ctx, "delete the reader of dead letters", "error", err)
		}
	}()
	pending := consumer.CachedInfo().NumPending
	if pending == 0 {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(loadAhead))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for pending > 0 {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		take(m.Subject(), meta.Sequence.Stream, keyOfHeader(m.Headers()))
		pending = meta.NumPending
	}
	return nil
}

func (d *Dead) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := d.srv.js.Stream(ctx, deadStream)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", unavailable(err))
	}
	return stream.CachedInfo(), nil
}

// details is info with the numbers of the deleted messages, if they are not too many.
func (d *Dead) details(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := d.srv.js.Stream(ctx, deadStream)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", unavailable(err))
	}
	info := stream.CachedInfo()
	d.mu.Lock()
	need := d.read > 0 && info.State.NumDeleted > 0 && info.State.NumDeleted <= deletedMost && !d.agrees(info.State)
	d.mu.Unlock()
	if !need {
		return info, nil
	}
	if info, err = stream.Info(ctx, jetstream.WithDeletedDetails(true)); err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", unavailable(err))
	}
	slices.Sort(info.State.Deleted)
	return info, nil
}

// view calls look with a consumer's letters, after making sure that no other process
// has written meanwhile. With the embedded server there is none.
func (d *Dead) view(ctx context.Context, base string, look func(*letterSet)) error {
	d.mu.Lock()
	loaded := d.loaded
	d.mu.Unlock()
	if !loaded {
		// Whoever has no letters need not wait until those of others are counted.
		_, err := d.srv.get(ctx, deadStream, getRequest{Seq: 1, NextFor: base + "*"})
		if errors.Is(err, errMissing) {
			look(&letterSet{})
			return nil
		}
	}
	if d.srv.embed == nil && loaded {
		info, err := d.info(ctx)
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.doubt = d.doubt || d.seen != (deadState{info.State.LastSeq, info.State.Msgs})
		d.mu.Unlock()
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	look(d.index.of(base))
	return nil
}

// change applies what a write of our own has done.
func (d *Dead) change(apply func(*letterIndex)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.index.total()
	apply(d.index)
	d.seen.messages += d.index.total() - before
	d.changes++
}

// entry returns what is known of a letter; not certain: the stream is to be asked.
func (d *Dead) entry(base string, seq uint64) (e letterEntry, found, certain bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, found = d.index.of(base).get(seq)
	return e, found, d.srv.embed != nil && d.loaded && !d.doubt
}

// write does one write to the stream. Where it is not known whether it happened, the
// index is compared with the stream before it is used again.
func (d *Dead) write(ctx context.Context, do func(ctx context.Context) error) error {
	timed, cancel := context.WithTimeout(ctx, d.srv.cfg.AckTimeout)
	defer cancel()
	d.mu.Lock()
	d.writing++
	d.mu.Unlock()
	err := do(timed)
	d.mu.Lock()
	d.writing--
	d.doubt = d.doubt || err != nil && !errors.Is(err, errMissing)
	if d.writing == 0 && !d.doubt && d.loaded && d.srv.embed != nil {
		d.read = max(d.read, d.seen.last)
	}
	d.mu.Unlock()
	if err != nil && !errors.Is(err, errMissing) {
		return d.srv.written(ctx, err)
	}
	d.snapshotSoon()
	return err
}
