package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

// States keeps one value per consumer, each change on disk before it is reported.
// All methods may be called concurrently; saves of different ids do not wait for
// each other beyond the disk.
//
// With the embedded server a state that is gone or older than one that was saved is
// noticed, see Lost; a bucket that damage keeps from being written is replaced while
// saves wait.
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
	kv, err := s.bucket(ctx, stateBucket, "Lockstep: where each consumer stands")
	if err != nil {
		return nil, fmt.Errorf("open consumers' states: %w", err)
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
	now, err := s.load(ctx, id, key)
	if err != nil {
		return nil, 0, fmt.Errorf("load state of consumer %s: %w", id, err)
	}
	if now.value == nil {
		return nil, 0, fmt.Errorf("state of consumer %s: %w", id, lockstep.ErrNotFound)
	}
	return now.value, now.revision, nil
}

func (s *States) load(ctx context.Context, id, key string) (kept, error) {
	if s.srv.witness == nil {
		return s.stored(ctx, key)
	}
	st := s.srv.witness.of(id)
	st.saves.Lock()
	defer st.saves.Unlock()
	return s.look(ctx, id, key, st)
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
	var saved uint64
	if s.srv.witness == nil {
		saved, err = s.saveShared(ctx, key, value, revision)
	} else {
		saved, err = s.saveOwn(ctx, id, key, value, revision)
	}
	if errors.Is(err, errOtherRevision) {
		return 0, fmt.Errorf("save state of consumer %s: revision %d is not the latest: %w", id, revision, lockstep.ErrFenced)
	}
	if err != nil {
		return 0, fmt.Errorf("save state of consumer %s: %w", id, err)
	}
	return saved, nil
}

var errOtherRevision = errors.New("another revision")

// saveShared saves to a bucket that others may write to.
func (s *States) saveShared(ctx context.Context, key string, value []byte, revision uint64) (saved uint64, err error) {
	timed, cancel := context.WithTimeout(ctx, s.srv.cfg.AckTimeout)
	defer cancel()
	if revision == 0 {
		saved, err = s.kv.Create(timed, key, value)
	} else {
		saved, err = s.kv.Update(timed, key, value, revision)
	}
	if isWrongLast(err) || errors.Is(err, jetstream.ErrKeyExists) {
		return 0, errOtherRevision
	}
	return saved, unavailable(err)
}

// saveOwn saves to the bucket of the embedded server, to which nobody else writes:
// the witness knows who saved last, also when the bucket does not any more.
func (s *States) saveOwn(ctx context.Context, id, key string, value []byte, revision uint64) (uint64, error) {
	st := s.srv.witness.of(id)
	st.saves.Lock()
	defer st.saves.Unlock()
	if _, _, known := s.srv.witness.get(st); !known {
		if _, err := s.look(ctx, id, key, st); err != nil {
			return 0, err
		}
	}
	if given, _, _ := s.srv.witness.get(st); given != revision {
		return 0, errOtherRevision
	}
	saved, err := s.replace(ctx, id, key, value, st)
	if err != nil {
		return 0, err
	}
	s.srv.witness.update(st, func(st *standing) {
		st.revision, st.actual, st.lost, st.known = saved, saved, false, true
	})
	return saved, nil
}

// saveAttempts bounds how often a save begins again after the bucket was healed, or
// turned out to hold something else than it should.
const saveAttempts = 3

// replace writes over what the bucket holds.
func (s *States) replace(ctx context.Context, id, key string, value []byte, st *standing) (saved uint64, err error) {
	for attempt := range saveAttempts {
		_, actual, _ := s.srv.witness.get(st)
		err = s.srv.write(ctx, func(ctx context.Context) error {
			saved, err = s.srv.publish(ctx, stateBucket, key, value, actual, &st.rollup)
			return err
		})
		if !isWrongLast(err) {
			if err == nil || !s.srv.healed(ctx, err) {
				return saved, unavailable(err)
			}
			continue
		}
		now, lookErr := s.stored(ctx, key)
		switch {
		case lookErr != nil:
			return 0, lookErr
		case attempt > 0 && now.revision > actual && bytes.Equal(now.value, value):
			return now.revision, nil // the attempt before arrived, its answer did not
		case now.revision > actual && now.value != nil:
			return 0, errOtherRevision
		case now.revision < actual:
			s.srv.log.ErrorContext(ctx, "the state of a consumer was lost in the store; it is saved again from memory", "id", id)
		}
		s.srv.witness.update(st, func(st *standing) { st.actual = now.revision })
	}
	return 0, unavailable(err)
}

// Delete removes the value of id; that there is none is no error.
func (s *States) Delete(ctx context.Context, id string) error {
	key, err := encodeName(id)
	if err != nil {
		return fmt.Errorf("delete state: %w", err)
	}
	if err := s.delete(ctx, id, key); err != nil {
		return fmt.Errorf("delete state of consumer %s: %w", id, err)
	}
	return nil
}

func (s *States) delete(ctx context.Context, id, key string) error {
	purge := func(ctx context.Context) error { return s.kv.Purge(ctx, key) }
	if s.srv.witness == nil {
		timed, cancel := context.WithTimeout(ctx, s.srv.cfg.AckTimeout)
		defer cancel()
		return unavailable(purge(timed))
	}
	st := s.srv.witness.of(id)
	st.saves.Lock()
	defer st.saves.Unlock()
	err := s.srv.write(ctx, purge)
	if err != nil && s.srv.healed(ctx, err) {
		err = s.srv.write(ctx, purge)
	}
	if err != nil {
		return unavailable(err)
	}
	// Where the mark of the deletion lies is looked up should the id come back.
	s.srv.witness.update(st, func(st *standing) {
		st.revision, st.actual, st.floor, st.era, st.lost, st.known = 0, 0, 0, 0, false, false
	})
	return nil
}

// Note remembers apart from the state up to which seq the consumer has settled
// everything as of its last save, and the era of it: an older state of the same era
// lacks something, but says nothing wrong. It is on disk about a second later.
func (s *States) Note(id string, floor, era uint64) {
	if s.srv.witness == nil {
		return
	}
	s.srv.witness.update(s.srv.witness.of(id), func(st *standing) { st.floor, st.era = floor, era })
}

// Lost returns what was noted last of id, zeros for nothing. After Load, err tells whether
// what that returned is not what was saved last: damage took the state, or left an older
// one; it wraps lockstep.ErrCorrupt and holds until the next Save. With an external
// server nothing is noted and there is no telling.
func (s *States) Lost(id string) (floor, era uint64, err error) {
	if s.srv.witness == nil {
		return 0, 0, nil
	}
	floor, era, lost := s.srv.witness.lost(id)
	if lost {
		err = fmt.Errorf("the last saved state of consumer %s is gone from the stream in %s: %w", id, s.srv.where(), lockstep.ErrCorrupt)
	}
	return floor, era, err
}

// kept is what the bucket holds of a key.
type kept struct {
	value    []byte // nil: nothing
	revision uint64 // with a value nil: of the mark that a deletion left, or 0
}

// stored reads a key from the bucket.
func (s *States) stored(ctx context.Context, key string) (kept, error) {
	m, err := s.srv.get(ctx, bucketStream+stateBucket, getRequest{LastFor: bucketSubject(stateBucket) + key})
	if errors.Is(err, errMissing) {
		return kept{}, nil
	}
	if err != nil {
		return kept{}, err
	}
	revision, err := strconv.ParseUint(m.Header.Get(headerStreamSeq), 10, 64)
	if err != nil {
		return kept{}, fmt.Errorf("an answer of JetStream has no sequence: %w", unavailable(err))
	}
	if isDeletion(m.Header) {
		return kept{revision: revision}, nil
	}
	return kept{value: append([]byte{}, m.Data...), revision: revision}, nil
}

// isDeletion reports whether a message of a bucket says that its key is gone.
func isDeletion(h nats.Header) bool {
	op := h.Get("KV-Operation")
	return op == "DEL" || op == "PURGE"
}

// look reads a key and compares it with what the witness says. The id's saves are held.
func (s *States) look(ctx context.Context, id, key string, st *standing) (kept, error) {
	now, err := s.stored(ctx, key)
	if err != nil {
		return now, err
	}
	if s.srv.witness.saw(st, now) {
		s.srv.log.ErrorContext(ctx, "a saved state is gone from the stream, or an older one is there", "id", id, "revision", now.revision)
	}
	return now, nil
}
