package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

// States keeps one value per consumer, each change on disk before it is reported.
// All methods may be called concurrently; saves of different ids do not wait for
// each other beyond the disk.
type States struct {
	srv *Server
	kv  jetstream.KeyValue
}

// States opens the bucket of consumers' states, or creates it. Calls return one and
// the same States.
func (s *Server) States(ctx context.Context) (*States, error) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	if s.states != nil {
		return s.states, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := s.js.KeyValue(ctx, stateBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:      stateBucket,
			Description: "Lockstep: where each consumer stands",
			History:     1,
			Storage:     jetstream.FileStorage,
			Replicas:    s.cfg.Replicas,
		})
	}
	if errors.Is(err, jetstream.ErrBucketExists) {
		kv, err = s.js.KeyValue(ctx, stateBucket)
	}
	if err != nil {
		return nil, fmt.Errorf("open consumers' states: %w", unavailable(err))
	}
	s.states = &States{srv: s, kv: kv}
	return s.states, nil
}

// Load returns the value of id and its revision, or an error that wraps
// lockstep.ErrNotFound.
func (s *States) Load(ctx context.Context, id string) (value []byte, revision uint64, err error) {
	key, err := encodeName(id)
	if err != nil {
		return nil, 0, fmt.Errorf("load state: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	e, err := s.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, fmt.Errorf("state of consumer %s: %w", id, lockstep.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("load state of consumer %s: %w", id, unavailable(err))
	}
	return e.Value(), e.Revision(), nil
}

// Save replaces the value of id if its revision still is the given one, 0 for an id
// that has none, and returns the new revision. The value is on disk when Save
// returns. Another revision gives an error that wraps lockstep.ErrFenced: somebody
// else saved, or a Save before this one arrived although it reported an error, and
// Load tells which.
func (s *States) Save(ctx context.Context, id string, value []byte, revision uint64) (uint64, error) {
	key, err := encodeName(id)
	if err != nil {
		return 0, fmt.Errorf("save state: %w", err)
	}
	if limit := s.srv.writes.MaxPayload() - headerRoom; int64(len(value)) > limit {
		return 0, fmt.Errorf("save state of consumer %s: %d bytes are more than the %d that the stream takes: %w", id, len(value), limit, lockstep.ErrInvalid)
	}
	timed, cancel := context.WithTimeout(ctx, s.srv.cfg.AckTimeout)
	defer cancel()
	var saved uint64
	if revision == 0 {
		saved, err = s.kv.Create(timed, key, value)
	} else {
		saved, err = s.kv.Update(timed, key, value, revision)
	}
	if err == nil {
		return saved, nil
	}
	if isWrongLast(err) || errors.Is(err, jetstream.ErrKeyExists) {
		return 0, fmt.Errorf("save state of consumer %s: revision %d is not the latest: %w", id, revision, lockstep.ErrFenced)
	}
	return 0, fmt.Errorf("save state of consumer %s: %w", id, s.srv.written(ctx, err))
}

// Delete removes the value of id; that there is none is no error.
func (s *States) Delete(ctx context.Context, id string) error {
	key, err := encodeName(id)
	if err != nil {
		return fmt.Errorf("delete state: %w", err)
	}
	timed, cancel := context.WithTimeout(ctx, s.srv.cfg.AckTimeout)
	defer cancel()
	if err := s.kv.Purge(timed, key); err != nil {
		return fmt.Errorf("delete state of consumer %s: %w", id, s.srv.written(ctx, err))
	}
	return nil
}

// written explains a write that failed. JetStream does not answer a write that the
// disk refused, and takes no further one until it is started anew.
func (s *Server) written(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		if healed := s.heal(ctx); healed != nil {
			return errors.Join(unavailable(err), healed)
		}
	}
	return unavailable(err)
}
