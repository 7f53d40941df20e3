package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

var (
	errIncomplete = fmt.Errorf("a damaged bucket is being replaced: %w", lockstep.ErrUnavailable)
	errCutOff     = fmt.Errorf("the connection to the stream was lost: %w", lockstep.ErrUnavailable)
	errSick       = fmt.Errorf("the server has met a write error: %w", lockstep.ErrUnavailable)
)

// bucket opens a key-value bucket, or creates it.
func (s *Server) bucket(ctx context.Context, name, description string) (jetstream.KeyValue, error) {
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if s.embed != nil {
		if err := s.ensureBucket(ctx, name, 0); err != nil {
			return nil, unavailable(err)
		}
	}
	kv, err := s.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: description, History: 1, Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas,
		})
	}
	if errors.Is(err, jetstream.ErrBucketExists) {
		kv, err = s.js.KeyValue(ctx, name)
	}
	return kv, unavailable(err)
}

// sickAfter is how long a write to the embedded server may be without an answer until
// somebody asks whether the server is well: after a write error it does not answer.
const sickAfter = time.Second

// write runs one write to a bucket, which ends early when the server turns out to take
// none any more. With the embedded server no bucket is replaced meanwhile.
func (s *Server) write(ctx context.Context, do func(context.Context) error) error {
	timed, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
	defer cancel()
	if s.embed == nil {
		return do(timed)
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.incomplete {
		return errIncomplete
	}
	timed, giveUp := context.WithCancelCause(timed)
	defer giveUp(nil)
	defer s.watch(timed, giveUp)()
	err := do(timed)
	if cause := context.Cause(timed); err != nil && (errors.Is(cause, errSick) || errors.Is(cause, errCutOff)) {
		return cause
	}
	return err
}

// watch gives a write up when its connection ends or the server turns out to be unwell.
func (s *Server) watch(ctx context.Context, giveUp context.CancelCauseFunc) (stop func()) {
	s.mu.Lock()
	life := s.life
	s.mu.Unlock()
	unplug := context.AfterFunc(life, func() { giveUp(errCutOff) }) //nolint:contextcheck // the connection's life, not the caller's
	var mu sync.Mutex                                               // until timer is set
	mu.Lock()
	defer mu.Unlock()
	var timer *time.Timer
	timer = time.AfterFunc(sickAfter, func() {
		if s.embed.sick() != nil {
			giveUp(errSick)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			timer.Reset(sickAfter)
		}
	})
	return func() {
		unplug()
		timer.Stop()
	}
}

// healed looks after the server when an unanswered write suggests it, and reports
// whether to try the write again.
func (s *Server) healed(ctx context.Context, err error) bool {
	if s.embed == nil || errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	unanswered := []error{
		context.DeadlineExceeded, errSick, errCutOff, errIncomplete, jetstream.ErrNoStreamResponse, nats.ErrNoResponders,
		nats.ErrReconnectBufExceeded, nats.ErrDisconnected,
	}
	if !slices.ContainsFunc(unanswered, func(kind error) bool { return errors.Is(err, kind) }) {
		return false
	}
	// The caller may have no time left; those who come after it need the server too.
	if healed := s.heal(context.WithoutCancel(ctx)); healed != nil {
		s.log.ErrorContext(ctx, "the stream is not well", "error", healed)
		return false
	}
	return ctx.Err() == nil
}

// restore replaces the buckets that were found damaged.
func (s *Server) restore(ctx context.Context) error {
	if s.embed == nil {
		return nil
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	for _, name := range salvaged() {
		if !s.embed.salvage.under(name) {
			continue
		}
		s.incomplete = true
		if err := s.restoreBucket(ctx, name); err != nil {
			return fmt.Errorf("replace the damaged bucket %s: %w", name, unavailable(err))
		}
	}
	s.incomplete = false
	return nil
}

func (s *Server) restoreBucket(ctx context.Context, name string) error {
	found, err := s.embed.salvage.read(name)
	if err != nil {
		return err
	}
	created, cancel := context.WithTimeout(ctx, requestTimeout)
	err = s.ensureBucket(created, name, max(found.last, s.witness.highest())+1)
	cancel()
	if err != nil {
		return err
	}
	revisions := map[string]uint64{} // by subject
	order := slices.SortedFunc(maps.Values(found.latest), func(a, b record) int { return cmp.Compare(a.seq, b.seq) })
	for _, r := range order {
		if isDeletion(r.header) {
			continue
		}
		timed, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
		ack, err := s.js.PublishMsg(timed, &nats.Msg{Subject: r.subject, Data: r.data}, jetstream.WithRetryAttempts(0))
		cancel()
		if err != nil {
			return fmt.Errorf("carry over %s: %w", strings.TrimPrefix(r.subject, bucketSubject(name)), err)
		}
		revisions[r.subject] = ack.Sequence
	}
	var lost []string
	if name == stateBucket {
		lost = s.witness.replaced(found, revisions)
		// Before the damaged bucket goes, the only other one that tells of them.
		if err := s.witness.write(); err != nil {
			return err
		}
	}
	if err := s.embed.salvage.finish(name); err != nil {
		return err
	}
	s.log.ErrorContext(ctx, "a damaged bucket was replaced by what could be read of it",
		"bucket", name, "damage", found.damage, "carried", len(revisions), "lost", lost)
	return nil
}

// bucketHistory is as good as no limit. To keep to a limit the server reads the message
// before, and over a damaged one it goes round in a circle for ever (as of 2.15). So
// what is superseded is removed by whoever writes, now and then, see rollup.
const bucketHistory = 1 << 30

// ensureBucket creates a bucket of the embedded server, with revisions from first on, or
// corrects the one of an older version.
func (s *Server) ensureBucket(ctx context.Context, name string, first uint64) error {
	// As jetstream.CreateKeyValue does, which cannot say where to begin.
	want := jetstream.StreamConfig{
		Name: bucketStream + name, Description: "Lockstep: see package stream", Subjects: []string{bucketSubject(name) + ">"},
		Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas, FirstSeq: first,
		MaxMsgsPerSubject: bucketHistory, MaxBytes: -1, MaxMsgSize: -1, MaxMsgs: -1, MaxConsumers: -1, Duplicates: 2 * time.Minute,
		AllowRollup: true, DenyDelete: true, AllowDirect: true, Discard: jetstream.DiscardNew,
	}
	have, err := s.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = s.js.CreateStream(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	if c := have.CachedInfo().Config; c.MaxMsgsPerSubject != bucketHistory {
		c.MaxMsgsPerSubject = bucketHistory
		_, err = s.js.UpdateStream(ctx, c)
	}
	return err
}

// rollup counts what is written to a key, and says when it is time to remove what is
// superseded: at first, and then after so much.
type rollup struct {
	begun bool
	bytes int
	times int
}

const (
	rollupBytes = 256 << 10
	rollupTimes = 64
)

func (r *rollup) due(size int) bool {
	r.bytes += size
	r.times++
	if r.begun && r.bytes < rollupBytes && r.times < rollupTimes {
		return false
	}
	*r = rollup{begun: true}
	return true
}

// publish writes a key of a bucket whose revision must be expected, or any when it is
// anyRevision.
func (s *Server) publish(ctx context.Context, bucket, key string, value []byte, expected uint64, r *rollup) (revision uint64, err error) {
	m := &nats.Msg{Subject: bucketSubject(bucket) + key, Header: nats.Header{}, Data: value}
	if expected != anyRevision {
		m.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(expected, 10)}
	}
	if r.due(len(value)) {
		m.Header[jetstream.MsgRollup] = []string{jetstream.MsgRollupSubject}
	}
	ack, err := s.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

const anyRevision = math.MaxUint64

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
