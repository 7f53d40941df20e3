package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"

	"lockstep"
)

const (
	batchLetters = 500     // that are written as one
	batchBytes   = 8 << 20 // of them, after which a batch ends
	batchLeast   = 12      // fewer are written one by one: a batch costs some writes of its own

	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"

	// deadMark is the subject of the message that ends a batch. A batch whose last message
	// is gone looks to a server that starts like one that it had not finished: letters go,
	// and this one stays.
	deadMark = deadSubject + "mark"
)

// allowBatches reports whether the letters' stream takes many letters as one. That of an
// older version is told to.
func (s *Server) allowBatches(ctx context.Context, stream jetstream.Stream) bool {
	cfg := stream.CachedInfo().Config
	if s.embed == nil || cfg.AllowAtomicPublish {
		return cfg.AllowAtomicPublish
	}
	cfg.AllowAtomicPublish = true
	if _, err := s.js.UpdateStream(ctx, cfg); err != nil {
		s.log.WarnContext(ctx, "dead letters are written one by one: their stream cannot be changed", "error", err)
		return false
	}
	return true
}

// letterBatch is letters that are written as one.
type letterBatch struct {
	base     string
	letters  []Letter
	messages []*nats.Msg
	size     int
}

// PutSome is Put for many letters, which takes much less time than as many calls: the
// disk is waited for once for some hundred. After an error nothing is known about any of
// them.
func (d *Dead) PutSome(ctx context.Context, consumer string, letters []Letter) error {
	base, err := deadBase(consumer)
	if err == nil {
		err = d.putSome(ctx, base, letters)
	}
	if err != nil {
		return fmt.Errorf("put %d dead letters of consumer %s: %w", len(letters), consumer, err)
	}
	return nil
}

func (d *Dead) putSome(ctx context.Context, base string, letters []Letter) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	if !d.together || len(letters) < batchLeast {
		return d.putEach(ctx, base, letters)
	}
	b, parts := &letterBatch{base: base}, d.hasParts(base)
	for _, l := range letters {
		data, err := encodeLetter(l)
		if err != nil {
			return err
		}
		// One that replaces a letter in parts must remove them.
		if _, found, certain := d.entry(base, l.Seq); len(data) > d.messageLimit() || parts && (found || !certain) {
			if err := d.put(ctx, base, l); err != nil {
				return err
			}
			continue
		}
		b.letters, b.size = append(b.letters, l), b.size+len(data)
		b.messages = append(b.messages, &nats.Msg{Subject: base + strconv.FormatUint(l.Seq, 10), Header: letterHeader(data, l.Key), Data: data})
		if len(b.letters) < batchLetters && b.size < batchBytes {
			continue
		}
		if err := d.putBatch(ctx, b); err != nil {
			return err
		}
		b = &letterBatch{base: base}
	}
	return d.putBatch(ctx, b)
}

// putEach puts letters one by one, many at a time.
func (d *Dead) putEach(ctx context.Context, base string, letters []Letter) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writesAhead)
	for _, l := range letters {
		g.Go(func() error { return d.put(ctx, base, l) })
	}
	return g.Wait()
}

// putBatch writes a batch. When the server refuses it, nothing of it is written, and its
// letters are put one by one.
func (d *Dead) putBatch(ctx context.Context, b *letterBatch) error {
	if len(b.letters) < batchLeast {
		return d.putEach(ctx, b.base, b.letters)
	}
	var refused *apiError
	err := d.publishBatch(ctx, b, &refused)
	if err != nil || refused == nil {
		return err
	}
	d.srv.log.DebugContext(ctx, "the server refuses a batch of dead letters: they are written one by one", "error", refused.Description)
	return d.putEach(ctx, b.base, b.letters)
}

func (d *Dead) publishBatch(ctx context.Context, b *letterBatch, refused **apiError) error {
	// Within a batch the server waits for the disk only at its end, and so it would for
	// what is deleted meanwhile, though it has answered by then.
	d.batching.Lock()
	defer d.batching.Unlock()
	return d.write(ctx, func(ctx context.Context) error {
		id := nuid.Next()
		for i, m := range b.messages {
			m.Header.Set(headerBatchID, id)
			m.Header.Set(headerBatchSeq, strconv.Itoa(i+1))
			if err := d.srv.writes.PublishMsg(m); err != nil {
				return err
			}
		}
		m, err := d.srv.writes.RequestMsgWithContext(ctx, &nats.Msg{Subject: deadMark, Header: nats.Header{
			headerBatchID: {id}, headerBatchSeq: {strconv.Itoa(len(b.messages) + 1)}, headerBatchCommit: {"1"},
		}})
		if err != nil {
			return err
		}
		last, err := batchAnswer(m.Data, len(b.messages)+1, refused)
		if err != nil || *refused != nil {
			return err
		}
		d.change(func(x *letterIndex) {
			x.addBatch(b, last)
			d.seen.last = max(d.seen.last, last)
		})
		return nil
	})
}

// batchAnswer returns the number of the last message of a batch.
func batchAnswer(data []byte, count int, refused **apiError) (last uint64, err error) {
	var answer struct {
		Seq   uint64    `json:"seq"`
		Count int       `json:"count"`
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return 0, err
	}
	if *refused = answer.Error; answer.Error != nil {
		return 0, nil
	}
	if answer.Count != count || answer.Seq < uint64(count) {
		return 0, fmt.Errorf("of %d messages the server has written %d: %w", count, answer.Count, lockstep.ErrUnavailable)
	}
	return answer.Seq, nil
}

// addBatch takes in a batch with its mark, which has the number last: the numbers of a
// batch follow each other.
func (x *letterIndex) addBatch(b *letterBatch, last uint64) {
	x.add(deadMark, last, 0)
	for i, l := range b.letters {
		x.put(b.base, letterEntry{l.Seq, last - uint64(len(b.letters)-i), l.Key})
	}
}

// DeleteSome removes those of the letters that there are.
func (d *Dead) DeleteSome(ctx context.Context, consumer string, seqs []uint64) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writesAhead)
	for _, seq := range seqs {
		g.Go(func() error {
			if err := d.Delete(ctx, consumer, seq); !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}
