package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// The copies of the logs' marks have a bucket of their own, so that trouble with one
// stops no acknowledgement.

func (s *Server) markCopies(ctx context.Context) (jetstream.KeyValue, error) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	if s.marks != nil {
		return s.marks, nil
	}
	kv, err := s.bucket(ctx, markBucket, "Lockstep: where each log ends")
	if err != nil {
		return nil, fmt.Errorf("open the copies of marks: %w", err)
	}
	s.marks = kv
	return kv, nil
}

func (l *Log) markKey() string { return l.stream[len(logStreamPrefix):] }

func (l *Log) putMark(ctx context.Context, value []byte) error {
	l.marking.Lock()
	defer l.marking.Unlock()
	kv, err := l.srv.markCopies(ctx)
	if err != nil {
		return err
	}
	put := func(ctx context.Context) error {
		if l.srv.embed == nil {
			_, err := kv.Put(ctx, l.markKey(), value)
			return err
		}
		_, err := l.srv.publish(ctx, markBucket, l.markKey(), value, anyRevision, &l.marked)
		return err
	}
	err = l.srv.write(ctx, put)
	if err != nil && l.srv.healed(ctx, err) {
		err = l.srv.write(ctx, put)
	}
	if err != nil {
		return fmt.Errorf("save the mark of database %q: %w", l.database, unavailable(err))
	}
	return l.dropOldMark(ctx)
}

// getMark returns the copy, or nil.
func (l *Log) getMark(ctx context.Context) ([]byte, error) {
	kv, err := l.srv.markCopies(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kept, err := kv.Get(ctx, l.markKey())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return l.oldMark(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("read the saved mark of database %q: %w", l.database, unavailable(err))
	}
	return kept.Value(), nil
}

// oldMark returns the copy that an older version has put among the states.
func (l *Log) oldMark(ctx context.Context) ([]byte, error) {
	states, err := l.srv.States(ctx)
	if err != nil {
		return nil, err
	}
	found, err := states.stored(ctx, markKeyPrefix+l.markKey())
	if err != nil {
		return nil, fmt.Errorf("read the saved mark of database %q: %w", l.database, err)
	}
	l.movesMark.Store(found.value != nil)
	return found.value, nil
}

// dropOldMark removes that one once the new place has it.
func (l *Log) dropOldMark(ctx context.Context) error {
	if !l.movesMark.Load() {
		return nil
	}
	states, err := l.srv.States(ctx)
	if err != nil {
		return err
	}
	if err := l.srv.write(ctx, func(ctx context.Context) error { return states.kv.Purge(ctx, markKeyPrefix+l.markKey()) }); err != nil {
		return fmt.Errorf("move the mark of database %q: %w", l.database, unavailable(err))
	}
	l.movesMark.Store(false)
	return nil
}
