package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

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

	headerLetterKey = "Lockstep-Letter-Key" // Letter.Key

	listReads   = 16       // letters read at a time
	listBytes   = 16 << 20 // of letters, after which a list ends
	writesAhead = 64       // writes that are under way at a time
)

// Dead keeps the dead letters of all consumers, at most one per consumer and seq.
// All methods may be called concurrently; a change that was reported is on disk.
//
// A letter is the last message of its subject; one above the server's message limit
// lies in parts on subjects below it, and the letter's message, written after them,
// names them. An index of all letters is kept in memory, 24 bytes each. Until it is
// read, calls about a consumer that has letters wait, for as long as their contexts.
type Dead struct {
	srv     *Server
	created time.Time // the stream
	life    context.Context
	end     context.CancelFunc
	work    sync.WaitGroup // readings of the index, and writings of its file; added to under mu

	together bool         // the server writes many letters as one
	batching sync.RWMutex // held while it does; shared by those who delete

	mu      sync.Mutex
	index   *letterIndex
	read    uint64 // all messages up to it are in the index, if they are not deleted
	seen    deadState
	unread  uint64    // messages that cannot be read
	loaded  bool      // the index was once that of the stream
	doubt   bool      // it may not be any more
	loading *deadLoad // nil: none is under way
	writing int       // our own writes that are under way
	changes int       // since the index was written to its file
	saving  bool      // that happens
	closed  bool
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
	stream, err := s.js.Stream(ctx, deadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = s.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:              deadStream,
			Description:       "Lockstep: dead letters",
			Subjects:          []string{deadSubject + ">"},
			Storage:           jetstream.FileStorage,
			Replicas:          s.cfg.Replicas,
			MaxMsgsPerSubject: 1,
			AllowDirect:       true,
			// Of the embedded server only: an older one would take the letters of a batch
			// for letters, and answer for the last of them alone.
			AllowAtomicPublish: s.embed != nil,
		})
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		stream, err = s.js.Stream(ctx, deadStream) // another process was faster
	}
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", unavailable(err))
	}
	s.dead = &Dead{srv: s, created: stream.CachedInfo().Created, index: newLetterIndex(), together: s.allowBatches(ctx, stream)}
	s.dead.life, s.dead.end = context.WithCancel(context.Background())
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
	if err := d.ready(ctx); err != nil {
		return err
	}
	subject := base + strconv.FormatUint(l.Seq, 10)
	replaced, err := d.replaced(ctx, base, l.Seq)
	if err != nil {
		return err
	}
	head := letterHeader(data, l.Key)
	if limit := d.messageLimit(); len(data) > limit {
		if err := d.putParts(ctx, subject, data, min(limit, partBytes), head); err != nil {
			return err
		}
		data = nil
	}
	if err := d.publish(ctx, &nats.Msg{Subject: subject, Header: head, Data: data}, l.Key); err != nil {
		return err
	}
	return d.dropParts(ctx, subject, replaced)
}

// replaced returns the letter that one with that seq replaces, if it may have parts.
func (d *Dead) replaced(ctx context.Context, base string, seq uint64) (*nats.Msg, error) {
	if _, _, certain := d.entry(base, seq); certain && !d.hasParts(base) {
		return nil, nil
	}
	m, err := d.srv.get(ctx, deadStream, getRequest{LastFor: base + strconv.FormatUint(seq, 10)})
	if errors.Is(err, errMissing) {
		return nil, nil
	}
	return m, err
}

// hasParts reports whether there are letters in parts; they are rare.
func (d *Dead) hasParts(base string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, subject := range d.index.parts {
		if strings.HasPrefix(subject, base) {
			return true
		}
	}
	return false
}

// messageLimit is the size of the largest letter that is one message.
func (d *Dead) messageLimit() int { return int(d.srv.writes.MaxPayload()) - headerRoom }

func letterHeader(data []byte, key uint64) nats.Header {
	return nats.Header{headerLetterSum: {sum(data)}, headerLetterKey: {strconv.FormatUint(key, 16)}}
}

// putParts stores the parts of a letter and adds the headers that name them. Without the
// letter's own message they are nothing.
func (d *Dead) putParts(ctx context.Context, subject string, data []byte, size int, head nats.Header) error {
	id, count := nuid.Next(), 0
	for ; len(data) > 0; count++ {
		n := min(size, len(data))
		part := &nats.Msg{Subject: fmt.Sprintf("%s.%s.%d", subject, id, count), Data: data[:n]}
		if err := d.publish(ctx, part, 0); err != nil {
			return err
		}
		data = data[n:]
	}
	head.Set(headerLetterParts, strconv.Itoa(count))
	head.Set(headerLetterID, id)
	return nil
}

// dropParts removes the parts of a letter that was replaced or deleted.
func (d *Dead) dropParts(ctx context.Context, subject string, old *nats.Msg) error {
	if old == nil || old.Header.Get(headerLetterParts) == "" {
		return nil
	}
	return d.purge(ctx, subject+"."+old.Header.Get(headerLetterID)+".", "")
}

// publish writes a message.
func (d *Dead) publish(ctx context.Context, m *nats.Msg, key uint64) error {
	return d.write(ctx, func(ctx context.Context) error {
		ack, err := d.srv.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		if err != nil {
			return err
		}
		d.change(func(x *letterIndex) {
			x.add(m.Subject, ack.Sequence, key)
			d.seen.last = max(d.seen.last, ack.Sequence)
		})
		return nil
	})
}

// erase deletes a letter's message, or returns errMissing.
func (d *Dead) erase(ctx context.Context, base string, seq, at uint64) error {
	d.batching.RLock()
	defer d.batching.RUnlock()
	return d.write(ctx, func(ctx context.Context) error {
		m, err := d.srv.writes.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+deadStream, fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, at))
		if err != nil {
			return err
		}
		var answer struct {
			Error *apiError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return err
		}
		if answer.Error != nil && !answer.Error.missing() {
			return errors.New(answer.Error.Description)
		}
		d.change(func(x *letterIndex) { x.of(base).remove(seq, at) })
		if answer.Error != nil {
			return errMissing
		}
		return nil
	})
}

// purge removes what lies on the subjects that begin so, and what the index has of it.
func (d *Dead) purge(ctx context.Context, prefix, base string) error {
	d.batching.RLock()
	defer d.batching.RUnlock()
	return d.write(ctx, func(ctx context.Context) error {
		stream, err := d.srv.js.Stream(ctx, deadStream)
		if err != nil {
			return err
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(prefix+">")); err != nil {
			return err
		}
		d.change(func(x *letterIndex) {
			delete(x.sets, base)
			maps.DeleteFunc(x.parts, func(_ uint64, subject string) bool { return strings.HasPrefix(subject, prefix) })
		})
		return nil
	})
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
	l, err := decodeLetter(data)
	l.Key = keyOfHeader(m.Header)
	return l, err
}

// List returns up to limit letters of a consumer with seqs above after, in the order
// of seqs, and the cursor for the next call: 0 when there are no more. It returns fewer
// when they are large.
func (d *Dead) List(ctx context.Context, consumer string, after uint64, limit int) (letters []Letter, next uint64, err error) {
	return d.list(ctx, consumer, func(s *letterSet) ([]uint64, bool) { return s.after(after, max(limit, 1)) })
}

// ListBefore is List for letters with seqs below before, 0: the newest, in the opposite
// order.
func (d *Dead) ListBefore(ctx context.Context, consumer string, before uint64, limit int) (letters []Letter, next uint64, err error) {
	return d.list(ctx, consumer, func(s *letterSet) ([]uint64, bool) { return s.before(before, max(limit, 1)) })
}

// Find is List for the letters that may be of a key: whose Key is that one, or has
// another upper half.
func (d *Dead) Find(ctx context.Context, consumer string, key, after uint64, limit int) (letters []Letter, next uint64, err error) {
	suits := func(k uint64) bool { return k == key || k>>32 != key>>32 }
	return d.list(ctx, consumer, func(s *letterSet) ([]uint64, bool) { return s.search(after, max(limit, 1), suits) })
}

func (d *Dead) list(ctx context.Context, consumer string, choose func(*letterSet) ([]uint64, bool)) (letters []Letter, next uint64, err error) {
	base, err := deadBase(consumer)
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters: %w", err)
	}
	var seqs []uint64
	var more bool
	err = d.view(ctx, base, func(s *letterSet) { seqs, more = choose(s) })
	for size := 0; err == nil && len(seqs) > 0; {
		n := min(len(seqs), listReads)
		var some []Letter
		if some, err = d.readLetters(ctx, base, seqs[:n]); err != nil {
			break
		}
		letters = append(letters, some...)
		for _, l := range some {
			size += len(l.Message) + len(l.Batch)
		}
		if n < len(seqs) && size > listBytes || n == len(seqs) && more {
			return letters, seqs[n-1], nil
		}
		seqs = seqs[n:]
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters of consumer %s: %w", consumer, err)
	}
	return letters, 0, nil
}

// readLetters gets letters in the order of their seqs; those that are gone are left out.
func (d *Dead) readLetters(ctx context.Context, base string, seqs []uint64) (letters []Letter, err error) {
	found := make([]*Letter, len(seqs))
	var g errgroup.Group
	g.SetLimit(listReads)
	for i, seq := range seqs {
		g.Go(func() error {
			e, _, _ := d.entry(base, seq)
			l, err := d.get(ctx, base+strconv.FormatUint(seq, 10))
			if errors.Is(err, errMissing) {
				d.change(func(x *letterIndex) { x.of(base).remove(seq, e.at) })
				return nil // deleted meanwhile
			}
			if err != nil && !errors.Is(err, lockstep.ErrCorrupt) {
				return err
			}
			found[i] = &l
			if errors.Is(err, lockstep.ErrCorrupt) {
				// One damaged letter must not hide the others.
				found[i] = &Letter{Seq: seq, State: "parked", Reason: err.Error()}
			}
			return nil
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
	if err := d.delete(ctx, base, seq); err != nil {
		return fmt.Errorf("delete dead letter %d of consumer %s: %w", seq, consumer, err)
	}
	return nil
}

func (d *Dead) delete(ctx context.Context, base string, seq uint64) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	if e, found, certain := d.entry(base, seq); found && certain && !d.hasParts(base) {
		if err := d.erase(ctx, base, seq, e.at); !errors.Is(err, errMissing) {
			return err
		}
	}
	subject := base + strconv.FormatUint(seq, 10)
	old, err := d.srv.get(ctx, deadStream, getRequest{LastFor: subject})
	if errors.Is(err, errMissing) {
		return lockstep.ErrNotFound
	}
	if err != nil {
		return err
	}
	at, err := strconv.ParseUint(old.Header.Get(headerStreamSeq), 10, 64)
	if err != nil {
		return fmt.Errorf("an answer of JetStream has no sequence: %w", unavailable(err))
	}
	if err := d.erase(ctx, base, seq, at); err != nil && !errors.Is(err, errMissing) {
		return err
	}
	return d.dropParts(ctx, subject, old)
}

// DeleteAll removes all letters of a consumer.
func (d *Dead) DeleteAll(ctx context.Context, consumer string) error {
	base, err := deadBase(consumer)
	if err != nil {
		return fmt.Errorf("delete dead letters: %w", err)
	}
	if err = d.ready(ctx); err == nil {
		err = d.purge(ctx, base, base)
	}
	if err != nil {
		return fmt.Errorf("delete dead letters of consumer %s: %w", consumer, err)
	}
	return nil
}

// Count returns how many letters a consumer has.
func (d *Dead) Count(ctx context.Context, consumer string) (uint64, error) {
	return d.count(ctx, consumer, func(s *letterSet) uint64 { return uint64(s.n) })
}

// Behind returns how many letters of a consumer have seqs above seq.
func (d *Dead) Behind(ctx context.Context, consumer string, seq uint64) (uint64, error) {
	return d.count(ctx, consumer, func(s *letterSet) uint64 { return s.behind(seq) })
}

func (d *Dead) count(ctx context.Context, consumer string, number func(*letterSet) uint64) (n uint64, err error) {
	base, err := deadBase(consumer)
	if err == nil {
		err = d.view(ctx, base, func(s *letterSet) { n = number(s) })
	}
	if err != nil {
		return 0, fmt.Errorf("count dead letters of consumer %s: %w", consumer, err)
	}
	return n, nil
}

func deadBase(consumer string) (string, error) {
	name, err := encodeName(consumer)
	return deadSubject + name + ".", err
}

func sum(data []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))), 16)
}

func keyOfHeader(h nats.Header) uint64 {
	key, err := strconv.ParseUint(h.Get(headerLetterKey), 16, 64)
	if err != nil {
		return 0 // of an older version
	}
	return key
}
