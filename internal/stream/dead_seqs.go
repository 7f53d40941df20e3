package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// loadAhead is how many letters' headers are fetched ahead while reading seqs.
const loadAhead = 10_000

// set returns the seqs of a consumer's letters, read from the stream the first time.
func (d *Dead) set(ctx context.Context, base string) (*seqSet, error) {
	d.mu.Lock()
	set := d.seqs[base]
	if set == nil {
		set = &seqSet{}
		d.seqs[base] = set
	}
	d.mu.Unlock()
	// Held while reading: what is added meanwhile waits, and is then not lost.
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.loaded {
		return set, nil
	}
	seqs, err := d.load(ctx, base)
	if err != nil {
		return nil, fmt.Errorf("read seqs: %w", unavailable(err))
	}
	slices.Sort(seqs)
	set.seqs, set.loaded = slices.Compact(seqs), true
	return set, nil
}

// load reads the subjects of a consumer's letters by a consumer of JetStream that
// delivers headers only: a list of subjects costs the server the square of their
// number, this takes a few seconds for a million.
func (d *Dead) load(ctx context.Context, base string) ([]uint64, error) {
	consumer, err := d.srv.js.CreateConsumer(ctx, deadStream, jetstream.ConsumerConfig{
		FilterSubject:     base + "*",
		HeadersOnly:       true,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute, // should the deletion below not arrive
	})
	if err != nil {
		return nil, err
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
		return nil, nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(loadAhead))
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	seqs := make([]uint64, 0, pending)
	for pending > 0 {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		if seq, ok := seqOfSubject(base, m.Subject()); ok {
			seqs = append(seqs, seq)
		}
		pending = meta.NumPending
	}
	return seqs, nil
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

func (d *Dead) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := d.srv.js.Stream(ctx, deadStream)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters: %w", unavailable(err))
	}
	return stream.CachedInfo(), nil
}

// added and removed change the set that is known now. What was written before set
// reads the stream is in what it reads; what came later waits here for it.
func (d *Dead) added(base string, seq uint64) {
	if set := d.known(base); set != nil {
		set.add(seq)
	}
}

func (d *Dead) removed(base string, seq uint64) {
	if set := d.known(base); set != nil {
		set.remove(seq)
	}
}

func (d *Dead) known(base string) *seqSet {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seqs[base]
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
	mu     sync.Mutex
	loaded bool
	seqs   []uint64
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

// before returns up to limit seqs below seq, 0: the highest, in descending order, and
// whether there are more.
func (s *seqSet) before(seq uint64, limit int) (seqs []uint64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := len(s.seqs)
	if seq > 0 {
		end, _ = slices.BinarySearch(s.seqs, seq)
	}
	from := max(end-limit, 0)
	seqs = slices.Clone(s.seqs[from:end])
	slices.Reverse(seqs)
	return seqs, from > 0
}

// behind returns how many seqs are above seq.
func (s *seqSet) behind(seq uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, found := slices.BinarySearch(s.seqs, seq)
	if found {
		at++
	}
	return uint64(len(s.seqs) - at)
}
