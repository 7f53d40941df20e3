package stream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// keepHouse trims by age, notices what retention removed, saves the mark and looks
// whether another process writes, until ctx ends.
func (l *Log) keepHouse(ctx context.Context) {
	every := time.Second
	if age := l.srv.cfg.Retention.Age; age > 0 {
		every = max(min(every, age/10), 10*time.Millisecond)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	saved := l.view().end
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if err := l.trim(ctx); err != nil && ctx.Err() == nil {
			l.srv.log.DebugContext(ctx, "trim log", "database", l.database, "error", err)
		}
		if err := l.refreshFirst(ctx); err != nil && ctx.Err() == nil {
			l.srv.log.DebugContext(ctx, "look at log", "database", l.database, "error", err)
		}
		if e := l.view().end; e != saved {
			if err := l.saveMark(ctx); err == nil {
				saved = e
			}
		}
		l.watchOthers(ctx)
	}
}

// trim removes batches older than the retention's age, whole ones only and never
// the last.
func (l *Log) trim(ctx context.Context) error {
	age := l.srv.cfg.Retention.Age
	if age <= 0 {
		return nil
	}
	until := l.view().end.start
	since := time.Now().Add(-age)
	m, err := l.srv.get(ctx, l.stream, getRequest{Start: &since, NextFor: l.subject})
	switch {
	case err == nil:
		s, err := fromDirect(m)
		if err != nil {
			return err
		}
		until = min(until, s.start())
	case !errors.Is(err, errMissing): // missing: everything is older
		return err
	}
	state, err := l.state(ctx)
	if err != nil || until <= state.FirstSeq {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := l.srv.js.Stream(ctx, l.stream)
	if err != nil {
		return unavailable(err)
	}
	return stream.Purge(ctx, jetstream.WithPurgeSequence(until))
}

// refreshFirst looks at where the stream begins. Parts whose beginning is gone are
// gone with it.
func (l *Log) refreshFirst(ctx context.Context) error {
	// The end is taken before the state: what is appended in between is not gone.
	v := l.view()
	state, err := l.state(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	known := l.begins == state.FirstSeq && state.Msgs > 0 && l.first > 0
	l.mu.Unlock()
	if known {
		return nil
	}
	first := v.end.mark.Seq + 1
	for seq := state.FirstSeq; state.Msgs > 0 && seq <= v.end.last; {
		m, err := l.next(ctx, seq)
		if errors.Is(err, errMissing) {
			break
		}
		if err != nil {
			return err
		}
		if m.ours && m.part == 1 {
			first = min(first, m.first)
			break
		}
		seq = m.seq + 1
	}
	l.mu.Lock()
	l.begins = state.FirstSeq
	grew := first > l.first
	if grew {
		l.first = first
		// Readers that wait for a change which will never come must look again.
		l.wake()
	}
	l.mu.Unlock()
	if grew {
		l.index.forgetBefore(first)
	}
	return nil
}
