package stream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// followMessages bounds what is fetched ahead; the batches go to the cache at once.
const followMessages = 16

// startFollowing makes what other processes write the end of this log, until
// stopFollowing. Only open and keepHouse call it, one after the other.
func (l *Log) startFollowing(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.following != nil {
		cancel()
		return
	}
	l.following = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		l.follow(ctx)
	}()
}

func (l *Log) stopFollowing() {
	l.mu.Lock()
	stop := l.following
	l.following = nil
	l.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// watchOthers begins to follow when this log is not, or no longer, the one that
// writes.
func (l *Log) watchOthers(ctx context.Context) {
	expect, healthy := l.writer.healthy()
	if healthy {
		state, err := l.state(ctx)
		if err != nil || state.LastSeq <= expect {
			return
		}
		// The writer may have sent more since; it is only another one's if it is more
		// than was ever sent from here.
		if now, _ := l.writer.healthy(); state.LastSeq <= now {
			return
		}
	} else if l.srv.embed != nil {
		return
	}
	l.startFollowing(ctx)
}

func (l *Log) follow(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		if err := l.followOnce(ctx); err != nil && ctx.Err() == nil {
			l.srv.log.DebugContext(ctx, "follow log", "database", l.database, "error", err)
		}
		pause.Reset(250 * time.Millisecond)
	}
}

func (l *Log) followOnce(ctx context.Context) error {
	consumer, err := l.srv.js.OrderedConsumer(ctx, l.stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   l.view().end.last + 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(followMessages))
	if err != nil {
		return err
	}
	defer messages.Stop()
	var parts assembly
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		e, err := parts.add(l.database, newStored(meta.Sequence.Stream, m.Headers(), m.Data()))
		if _, ok := errors.AsType[*CorruptError](err); ok {
			// Readers meet it when they come there; the end moves with the next batch.
			l.srv.log.ErrorContext(ctx, "a damaged batch arrived", "database", l.database, "error", err)
			continue
		}
		if err != nil {
			return err
		}
		if e != nil {
			l.advance(*e)
		}
	}
}
