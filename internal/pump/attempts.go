package pump

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"lockstep/sink"
)

// Request is what a sink tells of one request that it made; see [Note].
type Request struct {
	At       time.Time
	Duration time.Duration
	Method   string
	URL      string // without what is secret in it
	Status   int    // of the answer; 0: there was none
	Seqs     []uint64
	Sent     string // the beginning of the body
	Answer   string // the beginning of the answer's body
	Error    string
}

// Attempt is one try to deliver changes.
type Attempt struct {
	ID      uint64 // ascending within a consumer
	Request        // without Method and URL where the kind has no requests
	Number  int    // of the first change, from 1
	Changes int    // how many; Seqs has the first ones
	Outcome string // delivered, partly, or the kind of the error
}

// Failed reports whether something was not delivered.
func (a Attempt) Failed() bool { return a.Outcome != Delivered }

// The outcomes of an attempt besides the kinds of errors.
const (
	Delivered = "delivered"
	Partly    = "partly" // some changes of a batch failed
)

// Outcomes returns every outcome that an attempt can have.
func Outcomes() []string {
	return []string{Delivered, Partly, string(sink.Retry), string(sink.Throttled), string(sink.Rejected), string(sink.Refused), string(sink.Gone)}
}

// The bounds of what is remembered of one consumer.
const (
	keptDelivered = 200
	keptFailed    = 300
	keptBytes     = 1 << 20
	keptSeqs      = 100
	keptText      = 2 << 10
)

type noteKey struct{}

// notes collects what a sink tells while one write runs.
type notes struct {
	mu   sync.Mutex
	list []Request
}

func withNotes(ctx context.Context) (context.Context, *notes) {
	n := &notes{}
	return context.WithValue(ctx, noteKey{}, n), n
}

// Note tells the pump of a request that a sink made for the write whose context that
// is. Nothing of it is kept but the beginnings of texts; short ones as they are.
func Note(ctx context.Context, r Request) {
	n, ok := ctx.Value(noteKey{}).(*notes)
	if !ok {
		return
	}
	r.Sent, r.Answer, r.Error = begin(r.Sent), begin(r.Answer), begin(r.Error)
	r.Seqs = slices.Clone(r.Seqs[:min(len(r.Seqs), keptSeqs)])
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.list) < keptSeqs {
		n.list = append(n.list, r)
	}
}

// taken returns what was told, once.
func (n *notes) taken() []Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.list
	n.list = nil
	return list
}

// begin returns the beginning of a text, that of a long one in memory of its own.
func begin(text string) string {
	if len(text) > keptText {
		return text[:keptText] + "…"
	}
	return text
}

// Book remembers the last attempts of a consumer: failures longer than what went well.
// It is safe for concurrent use. The zero value is ready.
type Book struct {
	mu              sync.Mutex
	last            uint64
	delivered, sour []Attempt // by ID
	bytes           int
	changed         chan struct{} // closed at the next attempt; nil: nobody waits
}

func (b *Book) add(a Attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	a.ID = b.last
	list, limit := &b.delivered, keptDelivered
	if a.Failed() {
		list, limit = &b.sour, keptFailed
	}
	*list = append(*list, a)
	b.bytes += weight(a)
	if len(*list) > limit {
		b.drop(list)
	}
	for b.bytes > keptBytes && len(b.delivered)+len(b.sour) > 1 {
		if len(b.delivered) > 0 {
			b.drop(&b.delivered)
		} else {
			b.drop(&b.sour)
		}
	}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

func (b *Book) drop(list *[]Attempt) {
	b.bytes -= weight((*list)[0])
	(*list)[0] = Attempt{} // append moves the rest when it has no more room, not each time
	*list = (*list)[1:]
}

func weight(a Attempt) int {
	return 256 + 8*len(a.Seqs) + len(a.URL) + len(a.Sent) + len(a.Answer) + len(a.Error)
}

// List returns attempts, the newest first: up to limit with an ID below before (0: the
// newest), and whether there are more. With failed, those alone that failed.
func (b *Book) List(before uint64, limit int, which Which) (list []Attempt, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.sour
	if which == All {
		all = append(slices.Clone(b.sour), b.delivered...)
		slices.SortFunc(all, func(x, y Attempt) int {
			if x.ID < y.ID {
				return -1
			}
			return 1
		})
	}
	for _, a := range slices.Backward(all) {
		if before != 0 && a.ID >= before {
			continue
		}
		if len(list) == limit {
			return list, true
		}
		list = append(list, a)
	}
	return list, false
}

// Of returns the last attempts to deliver one change, the newest first, at most limit. Of
// a batch of more than 100 changes it knows the first 100.
func (b *Book) Of(seq uint64, limit int) []Attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Attempt
	for _, kept := range [][]Attempt{b.delivered, b.sour} {
		for _, a := range kept {
			if slices.Contains(a.Seqs, seq) {
				list = append(list, a)
			}
		}
	}
	slices.SortFunc(list, func(x, y Attempt) int { return cmp.Compare(y.ID, x.ID) })
	return list[:min(len(list), limit)]
}

// Which says which attempts are listed.
type Which int

// Which attempts are listed.
const (
	All Which = iota
	FailedOnly
)

// entries makes the attempts of a write: one for each request that the sink told of,
// or one for the write.
func entries(w written, errs []error) []Attempt {
	first := w.batch.items[0].message
	whole := Attempt{
		Request: Request{At: w.began, Duration: w.took, Error: "", Seqs: seqsOf(w.batch.items)},
		Number:  first.Attempt, Changes: len(errs), Outcome: outcome(errs),
	}
	if failed := firstError(errs); failed != nil {
		whole.Error, whole.Status = begin(failed.Error()), statusOf(failed)
	}
	if len(w.requests) == 0 {
		return []Attempt{whole}
	}
	if len(w.requests) == 1 {
		r := w.requests[0]
		r.Seqs = whole.Seqs
		if r.Error == "" {
			r.Error = whole.Error
		}
		whole.Request = r
		return []Attempt{whole}
	}
	byKey := map[uint64]int{}
	for i, it := range w.batch.items {
		byKey[it.message.Seq] = i
	}
	list := make([]Attempt, 0, len(w.requests))
	for _, r := range w.requests {
		a := Attempt{Request: r, Number: first.Attempt, Changes: len(r.Seqs), Outcome: outcome(nil)}
		var own []error
		for _, seq := range r.Seqs {
			if i, ok := byKey[seq]; ok {
				own = append(own, errs[i])
				a.Number = w.batch.items[i].message.Attempt
			}
		}
		if a.Outcome = outcome(own); r.Error != "" && a.Outcome == Delivered {
			a.Outcome = string(sink.Retry) // a later request of the same write took them
		}
		list = append(list, a)
	}
	return list
}

func seqsOf(items []*item) []uint64 {
	list := make([]uint64, 0, min(len(items), keptSeqs))
	for _, it := range items[:min(len(items), keptSeqs)] {
		list = append(list, it.message.Seq)
	}
	return list
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// outcome is the word for what became of messages.
func outcome(errs []error) string {
	failed := firstError(errs)
	if failed == nil {
		return Delivered
	}
	if slices.Contains(errs, nil) {
		return Partly
	}
	kind, _ := kindOf(failed)
	return string(kind)
}
