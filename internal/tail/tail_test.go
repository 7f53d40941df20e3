package tail_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/tail"
)

// Clients come and go at random places while changes are committed; some read slowly,
// so that they leave the shared reader and come back to it. Each has every change that
// its filter selects, once and in order.
func TestAClientHasEachChangeOnceWhoeverReadsForIt(t *testing.T) {
	t.Parallel()
	const last = 4000
	p := newPlace(t, tail.Limits{QueueBytes: 4 << 10, Readers: 2, FilterWork: 1 << 10})
	filters := []string{
		`record.customer == 3`, `record.customer == "7" && record.id % 3 == 1`, `record.customer in [1, 2, "x"]`, `record.amount == 2.5`,
		`record.big == 9007199254740994`, `record.note == null && record.customer == 5`, `record.id % 50 == 7`, `record.missing == 1`,
		`record.id > 100 and record.id % 7 != 2`, `true`, `action == "insert"`, `record.id % 10 == 4 && record.nothing.at.all > 1`,
		`record.note + 1 == 2 || record.customer == 9`, `any(1..200, # == record.customer) && record.id % 3 == 0`, `record.amount == "1.50" && record.amount + 1 > 0`,
	}
	var clients sync.WaitGroup
	var apart, shared atomic.Int64
	for n := range 3 * len(filters) {
		source := filters[n%len(filters)]
		want := selected(t, source, last)
		seed := rand.New(rand.NewPCG(uint64(n), 1)) //nolint:gosec // a test's order
		clients.Go(func() {
			got := resume(t, p, source, len(want), seed, func(standing string) {
				if standing == "shared" {
					shared.Add(1)
				} else {
					apart.Add(1)
				}
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("client %d with %s: %.500s", n, source, diff)
			}
		})
	}
	for n := 1; n <= last; {
		count := min(1+rand.IntN(60), last-n+1)
		p.commit(rows(n, count)...)
		n += count
	}
	clients.Wait()
	if shared.Load() == 0 || apart.Load() == 0 {
		t.Errorf("seen shared %d times, apart %d times: the ways were not all gone", shared.Load(), apart.Load())
	}
	if waits := p.server.Queued(); waits != 0 {
		t.Errorf("%d bytes are counted as waiting, and nobody is there", waits)
	}
	if n := p.server.Readers(); n != 0 {
		t.Errorf("%d readers are left, and nobody is there", n)
	}
}

// resume follows until as many changes came, in sessions that end at random.
func resume(t *testing.T, p *place, source string, want int, random *rand.Rand, seen func(string)) []int {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := &client{t: t}
	for next := 1; len(c.ids) < want && ctx.Err() == nil; {
		c.Session = p.open(next, source)
		for range 1 + random.IntN(40) {
			if len(c.ids) >= want || ctx.Err() != nil {
				break
			}
			c.take(ctx, time.Duration(1+random.IntN(20))*time.Millisecond)
			seen(c.Standing())
			if random.IntN(4) == 0 {
				// Whoever does something else for a while: as many commits go by.
				until := p.log.Last().Seq + uint64(random.IntN(600))
				for range random.IntN(40) {
					if p.log.Last().Seq >= until {
						break
					}
					c.idle()
				}
			}
		}
		c.Close()
		if len(c.ids) > 0 {
			next = c.ids[len(c.ids)-1] + 1
		}
	}
	return c.ids
}

// idle lets a little time pass in which nothing is taken.
func (c *client) idle() {
	timer := time.NewTimer(time.Millisecond)
	<-timer.C
}

// The bytes of a change are made once.
func TestAChangeIsRenderedOnceForAll(t *testing.T) {
	t.Parallel()
	p := newPlace(t, tail.Limits{})
	a, b, other := p.follow(1, "record.customer == 1"), p.follow(1, "record.customer in [1, 2]"), p.follow(1, "record.customer == 2")
	for _, c := range []*client{a, b, other} {
		c.settle()
	}
	p.commit(row(1), row(2))
	a.await(1)
	b.await(1)
	if !same(a.raw[0], b.raw[0]) {
		t.Errorf("two copies of the event:\n%s\n%s", a.raw[0], b.raw[0])
	}
	if got := other.await(1); !cmp.Equal(got, []int{2}) {
		t.Errorf("the other client got %v, want 2", got)
	}
	if text := string(a.raw[0]); !strings.HasPrefix(text, "id: 1\nevent: insert\ndata: {\"record\":"+row(1)) || !strings.HasSuffix(text, "}\n\n") {
		t.Errorf("the event: %q", text)
	}
}

// A change asks those that it may concern. Where many want the same of one column, they
// are told apart by another one.
func TestAChangeCostsWhatItMatches(t *testing.T) {
	t.Parallel()
	p := newPlace(t, tail.Limits{})
	var first *client
	for n := range 200 {
		c := p.follow(1, fmt.Sprintf(`record.note == null && record.customer == %d && record.id > 0`, n))
		c.settle()
		if n == 3 {
			first = c
		}
	}
	p.commit(row(3))
	if got := first.await(1); !cmp.Equal(got, []int{1}) {
		t.Errorf("got %v", got)
	}
	if most, scanned := first.Lookups(); most > 2 || scanned > 0 {
		t.Errorf("up to %d sessions are asked about a change by a value, %d about each: want 1 or 2, and none", most, scanned)
	}
	if n := p.server.Readers(); n != 1 {
		t.Errorf("%d readers for sessions at one place", n)
	}
}

// One client takes nothing. The others get everything meanwhile, what waits for it is
// bounded, and then it gets everything, too.
func TestASlowClientHoldsNobody(t *testing.T) {
	t.Parallel()
	const limit, last = 16 << 10, 5000
	p := newPlace(t, tail.Limits{QueueBytes: limit})
	slow, quick := p.follow(1, ""), p.follow(1, "record.customer == 1")
	slow.settle()
	quick.settle()
	for n := 1; n <= last; n += 50 {
		p.commit(rows(n, 50)...)
	}
	if got, want := quick.await(last/10), selected(t, "record.customer == 1", last); !cmp.Equal(got, want) {
		t.Errorf("the quick client: %s", cmp.Diff(want, got))
	}
	if waits := p.server.Queued(); waits > limit {
		t.Errorf("%d bytes wait, at most %d may", waits, limit)
	}
	if s := slow.Standing(); s != "slow" {
		t.Errorf("the slow client is %s, want slow", s)
	}
	if got, want := slow.await(last), selected(t, "true", last); !cmp.Equal(got, want) {
		t.Errorf("the slow client: %s", cmp.Diff(want, got))
	}
	slow.settle()
	p.commit(row(last + 1))
	if got := slow.await(last + 1); got[last] != last+1 {
		t.Errorf("live again, it got %d", got[last])
	}
}

// A filter that takes long is evaluated where nobody waits for it, and yields the same.
func TestAFilterThatTakesLongHoldsNobody(t *testing.T) {
	t.Parallel()
	const source = `record.customer == 1 && any(1..900, # == record.id)`
	p := newPlace(t, tail.Limits{FilterWork: 1 << 10})
	c := p.follow(1, source)
	c.settle()
	p.commit(rows(1, 40)...)
	if got, want := c.await(4), selected(t, source, 40); !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := c.Standing(); s != "filter" {
		t.Errorf("the session is %s, want filter", s)
	}
	p.commit(rows(41, 40)...)
	if got, want := c.await(8), selected(t, source, 80); !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAPlaceThatIsNotOfTheLogIsTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t, tail.Limits{})
	p.commit(rows(1, 2)...)
	c := p.follow(77, "record.customer == 2")
	if got := c.await(2); !cmp.Equal(got, []int{0, 2}) {
		t.Errorf("got %v, want a gap with the place before the first change, and change 2", got)
	}
}

func TestTheEndOfTheServerEndsSessions(t *testing.T) {
	t.Parallel()
	p := newPlace(t, tail.Limits{})
	c := p.follow(1, "record.customer == 2")
	c.settle()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Next(context.Background(), time.Hour)
		ended <- err
	}()
	p.server.Close()
	if err := <-ended; err == nil {
		t.Error("the session goes on after the server's end")
	}
}
