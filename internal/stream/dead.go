package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"

	"lockstep"
)

const (
	headerLetterParts = "Lockstep-Letter-Parts" // how many parts a letter lies in
	headerLetterID    = "Lockstep-Letter-Id"    // tells their subjects apart from older ones
	headerLetterSum   = "Lockstep-Letter-Sum"   // CRC-32C of the whole letter

	listReads = 16 // letters read at a time
)

// Dead keeps the dead letters of all consumers, at most one per consumer and seq.
// All methods may be called concurrently; a change that was reported is on disk.
//
// A letter is the last message of its subject; one above the server's message limit
// lies in parts on subjects below it, and the letter's message, written after them,
// names them. The seqs of a consumer's letters are kept in memory, 8 bytes each,
// read from the stream when the consumer is first asked about.
type Dead struct {
	srv *Server

	mu   sync.Mutex
	seen deadState
	seqs map[string]*seqSet // by consumer; read on demand
}

// deadState tells whether somebody else has written: the stream's last message and
// number of messages as they must be after our own writes.
type deadState struct{ last, messages uint64 }

// Dead opens the dead letters, or creates their stream. Calls return one and the
// same Dead.
func (s *Server) Dead(ctx context.Context) (*Dead, error) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	if s.dead != nil {
		return s.dead, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.js.Stream(ctx, deadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = s.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:              deadStream,
			Description:       "Lockstep: dead letters",
			Subjects:          []string{deadSubject + ">"},
			Storage:           jetstream.FileStorage,
			Replicas:          s.cfg.Replicas,
			MaxMsgsPerSubject: 1,
			AllowDirect:       true,
		})
	}
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil, fmt.Errorf("open dead letters: %w", unavailable(err))
	}
	s.dead = &Dead{srv: s, seqs: map[string]*seqSet{}}
	return s.dead, nil
}

// Put stores a letter in place of the consumer's letter with that seq.
func (d *Dead) Put(ctx context.Context, consumer string, l Letter) error {
	base, err := deadBase(consumer)
	if err != nil {
		return fmt.Errorf("put dead letter: %w", err)
	}
	if err := d.put(ctx, base, l); err != nil {
		return fmt.Errorf("put dead letter %d of consumer %s: %w", l.Seq, consumer, err)
	}
	return nil
}

func (d *Dead) put(ctx context.Context, base string, l Letter) error {
	data, err := encodeLetter(l)
	if err != nil {
		return err
	}
	subject, added := base+strconv.FormatUint(l.Seq, 10), 0
	replaced, err := d.srv.get(ctx, deadStream, getRequest{LastFor: subject})
	if errors.Is(err, errMissing) {
		replaced, added, err = nil, 1, nil
	}
	if err != nil {
		return err
	}
	head := nats.Header{headerLetterSum: {sum(data)}}
	if limit := int(d.srv.writes.MaxPayload()) - headerRoom; len(data) > limit {
		if head, err = d.putParts(ctx, subject, data, min(limit, partBytes)); err != nil {
			return err
		}
		data = nil
	}
	if err := d.publish(ctx, &nats.Msg{Subject: subject, Header: head, Data: data}, added); err != nil {
		return err
	}
	d.added(base, l.Seq)
	return d.dropParts(ctx, subject, replaced)
}

// putParts stores the parts of a letter and returns the headers that name them.
// Without the letter's own message they are nothing.
func (d *Dead) putParts(ctx context.Context, subject string, data []byte, size int) (nats.Header, error) {
	head := nats.Header{headerLetterSum: {sum(data)}}
	id, count := nuid.Next(), 0
	for ; len(data) > 0; count++ {
		n := min(size, len(data))
		part := &nats.Msg{Subject: fmt.Sprintf("%s.%s.%d", subject, id, count), Data: data[:n]}
		if err := d.publish(ctx, part, 1); err != nil {
			return nil, err
		}
		data = data[n:]
	}
	head.Set(headerLetterParts, strconv.Itoa(count))
	head.Set(headerLetterID, id)
	return head, nil
}

// dropParts removes the parts of a letter that was replaced or deleted.
func (d *Dead) dropParts(ctx context.Context, subject string, old *nats.Msg) error {
	if old == nil || old.Header.Get(headerLetterParts) == "" {
		return nil
	}
	count, _ := strconv.Atoi(old.Header.Get(headerLetterParts)) // only for telling others' writes from ours
	return d.purge(ctx, subject+"."+old.Header.Get(headerLetterID)+".>", count)
}

// Get returns a letter, or an error that wraps lockstep.ErrNotFound.
func (d *Dead) Get(ctx context.Context, consumer string, seq uint64) (Letter, error) {
	base, err := deadBase(consumer)
	if err != nil {
		return Letter{}, fmt.Errorf("get dead letter: %w", err)
	}
	l, err := d.get(ctx, base+strconv.FormatUint(seq, 10))
	if errors.Is(err, errMissing) {
		err = lockstep.ErrNotFound
	}
	if err != nil {
		return Letter{}, fmt.Errorf("dead letter %d of consumer %s: %w", seq, consumer, err)
	}
	return l, nil
}

func (d *Dead) get(ctx context.Context, subject string) (Letter, error) {
	m, err := d.srv.get(ctx, deadStream, getRequest{LastFor: subject})
	if err != nil {
		return Letter{}, err
	}
	data := m.Data
	if parts := m.Header.Get(headerLetterParts); parts != "" {
		count, err := strconv.Atoi(parts)
		if err != nil {
			return Letter{}, fmt.Errorf("letter names %q parts: %w", parts, lockstep.ErrCorrupt)
		}
		data = nil
		for i := range count {
			part, err := d.srv.get(ctx, deadStream, getRequest{LastFor: fmt.Sprintf("%s.%s.%d", subject, m.Header.Get(headerLetterID), i)})
			if err != nil {
				return Letter{}, err // missing: the letter was replaced meanwhile
			}
			data = append(data, part.Data...)
		}
	}
	if sum(data) != m.Header.Get(headerLetterSum) {
		return Letter{}, fmt.Errorf("the letter's checksum differs: %w", lockstep.ErrCorrupt)
	}
	return decodeLetter(data)
}

// List returns up to limit letters of a consumer with seqs above after, in the order
// of seqs, and the cursor for the next call: 0 when there are no more.
func (d *Dead) List(ctx context.Context, consumer string, after uint64, limit int) (letters []Letter, next uint64, err error) {
	base, err := deadBase(consumer)
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters: %w", err)
	}
	set, err := d.fresh(ctx, base)
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters of consumer %s: %w", consumer, err)
	}
	seqs, more := set.after(after, max(limit, 1))
	if letters, err = d.read(ctx, base, seqs); err != nil {
		return nil, 0, fmt.Errorf("list dead letters of consumer %s: %w", consumer, err)
	}
	if more {
		next = seqs[len(seqs)-1]
	}
	return letters, next, nil
}

// ListBefore is List for letters with seqs below before, 0: the newest, in the opposite
// order.
func (d *Dead) ListBefore(ctx context.Context, consumer string, before uint64, limit int) (letters []Letter, next uint64, err error) {
	base, err := deadBase(consumer)
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters: %w", err)
	}
	set, err := d.fresh(ctx, base)
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters of consumer %s: %w", consumer, err)
	}
	seqs, more := set.before(before, max(limit, 1))
	if letters, err = d.read(ctx, base, seqs); err != nil {
		return nil, 0, fmt.Errorf("list dead letters of consumer %s: %w", consumer, err)
	}
	if more {
		next = seqs[len(seqs)-1]
	}
	return letters, next, nil
}

// read gets letters in the order of their seqs; those that are gone are left out.
func (d *Dead) read(ctx context.Context, base string, seqs []uint64) (letters []Letter, err error) {
	found := make([]*Letter, len(seqs))
	var g errgroup.Group
	g.SetLimit(listReads)
	for i, seq := range seqs {
		g.Go(func() error {
			l, err := d.get(ctx, base+strconv.FormatUint(seq, 10))
			if errors.Is(err, errMissing) {
				return nil // deleted meanwhile
			}
			found[i] = &l
			if errors.Is(err, lockstep.ErrCorrupt) {
				// One damaged letter must not hide the others.
				found[i] = &Letter{Seq: seq, State: "parked", Reason: err.Error()}
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, l := range found {
		if l != nil {
			letters = append(letters, *l)
		}
	}
	return letters, nil
}

// Delete removes a letter; that there is none gives an error that wraps
// lockstep.ErrNotFound.
func (d *Dead) Delete(ctx context.Context, consumer string, seq uint64) error {
	base, err := deadBase(consumer)
	if err != nil {
		return fmt.Errorf("delete dead letter: %w", err)
	}
	subject := base + strconv.FormatUint(seq, 10)
	old, err := d.srv.get(ctx, deadStream, getRequest{LastFor: subject})
	if errors.Is(err, errMissing) {
		d.removed(base, seq)
		err = lockstep.ErrNotFound
	}
	if err == nil {
		err = d.purge(ctx, subject, 1)
	}
	if err != nil {
		return fmt.Errorf("delete dead letter %d of consumer %s: %w", seq, consumer, err)
	}
	d.removed(base, seq)
	return d.dropParts(ctx, subject, old)
}

// DeleteAll removes all letters of a consumer.
func (d *Dead) DeleteAll(ctx context.Context, consumer string) error {
	base, err := deadBase(consumer)
	if err != nil {
		return fmt.Errorf("delete dead letters: %w", err)
	}
	if err := d.purge(ctx, base+">", 0); err != nil {
		return fmt.Errorf("delete dead letters of consumer %s: %w", consumer, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.seqs, base)
	return nil
}

// Count returns how many letters a consumer has.
func (d *Dead) Count(ctx context.Context, consumer string) (uint64, error) {
	base, err := deadBase(consumer)
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	set, err := d.fresh(ctx, base)
	if err != nil {
		return 0, fmt.Errorf("count dead letters of consumer %s: %w", consumer, err)
	}
	return set.len(), nil
}

// Behind returns how many letters of a consumer have seqs above seq.
func (d *Dead) Behind(ctx context.Context, consumer string, seq uint64) (uint64, error) {
	base, err := deadBase(consumer)
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	set, err := d.fresh(ctx, base)
	if err != nil {
		return 0, fmt.Errorf("count dead letters of consumer %s: %w", consumer, err)
	}
	return set.behind(seq), nil
}

func deadBase(consumer string) (string, error) {
	name, err := encodeName(consumer)
	return deadSubject + name + ".", err
}

func sum(data []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))), 16)
}

func seqOfSubject(base, subject string) (uint64, bool) {
	text := strings.TrimPrefix(subject, base)
	seq, err := strconv.ParseUint(text, 10, 64) // fails for the subjects of parts
	return seq, err == nil
}
