package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// set returns the seqs of a consumer's letters, read from the stream the first time.
func (d *Dead) set(ctx context.Context, base string) (*seqSet, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if set := d.seqs[base]; set != nil {
		return set, nil
	}
	info, err := d.info(ctx, jetstream.WithSubjectFilter(base+"*"))
	if err != nil {
		return nil, err
	}
	set := &seqSet{seqs: make([]uint64, 0, len(info.State.Subjects))}
	for subject := range info.State.Subjects {
		if seq, ok := seqOfSubject(base, subject); ok {
			set.seqs = append(set.seqs, seq)
		}
	}
	slices.Sort(set.seqs)
	d.seqs[base] = set
	return set, nil
}

// fresh is set after making sure that no other process has written meanwhile. With
// the embedded server there is none.
func (d *Dead) fresh(ctx context.Context, base string) (*seqSet, error) {
	if d.srv.embed == nil {
		info, err := d.info(ctx)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		if now := (deadState{info.State.LastSeq, info.State.Msgs}); d.seen != now {
			clear(d.seqs)
			d.seen = now
		}
		d.mu.Unlock()
	}
	return d.set(ctx, base)
}

func (d *Dead) info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := d.srv.js.Stream(ctx, deadStream)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", unavailable(err))
	}
	info, err := stream.Info(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", unavailable(err))
	}
	return info, nil
}

// added and removed change the set that is known now. set reads the stream with mu
// held: what was written before is in what it reads, what came later comes here
// after it.
func (d *Dead) added(base string, seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if set := d.seqs[base]; set != nil {
		set.add(seq)
	}
}

func (d *Dead) removed(base string, seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if set := d.seqs[base]; set != nil {
		set.remove(seq)
	}
}

// publish writes a message by which the stream has so many more.
func (d *Dead) publish(ctx context.Context, m *nats.Msg, added int) error {
	timed, cancel := context.WithTimeout(ctx, d.srv.cfg.AckTimeout)
	defer cancel()
	ack, err := d.srv.js.PublishMsg(timed, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return d.srv.written(ctx, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.last = max(d.seen.last, ack.Sequence)
	d.seen.messages += uint64(added)
	return nil
}

// purge removes what lies on a subject, so many messages.
func (d *Dead) purge(ctx context.Context, subject string, messages int) error {
	timed, cancel := context.WithTimeout(ctx, d.srv.cfg.AckTimeout)
	defer cancel()
	stream, err := d.srv.js.Stream(timed, deadStream)
	if err != nil {
		return unavailable(err)
	}
	if err := stream.Purge(timed, jetstream.WithPurgeSubject(subject)); err != nil {
		return d.srv.written(ctx, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.messages -= uint64(messages)
	return nil
}

// seqSet is a sorted set of seqs. Adding at the end and removing at the beginning,
// the common cases, cost nothing; elsewhere it moves 8 bytes for each seq behind.
type seqSet struct {
	mu   sync.Mutex
	seqs []uint64
}

func (s *seqSet) add(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, found := slices.BinarySearch(s.seqs, seq); !found {
		s.seqs = slices.Insert(s.seqs, at, seq)
	}
}

func (s *seqSet) remove(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearch(s.seqs, seq)
	switch {
	case !found:
	case at == 0:
		s.seqs = s.seqs[1:]
	default:
		s.seqs = slices.Delete(s.seqs, at, at+1)
	}
}

func (s *seqSet) has(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, found := slices.BinarySearch(s.seqs, seq)
	return found
}

func (s *seqSet) len() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.seqs))
}

// after returns up to limit seqs above seq, and whether there are more.
func (s *seqSet) after(seq uint64, limit int) (seqs []uint64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearch(s.seqs, seq)
	if found {
		at++
	}
	end := min(at+limit, len(s.seqs))
	return slices.Clone(s.seqs[at:end]), end < len(s.seqs)
}
