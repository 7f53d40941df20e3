package pump

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"lockstep/sink"
)

func testBreaker() *breaker {
	return newBreaker(Config{Tolerance: 3, FirstPause: time.Second, LongestPause: 8 * time.Second, Concurrency: 4, random: func() float64 { return 0.5 }})
}

func TestPausesGrowUntilSomethingIsDelivered(t *testing.T) {
	t.Parallel()
	b, now := testBreaker(), time.Unix(1000, 0)
	for key := range uint64(3) {
		if !b.failedAt(now, key, "no") {
			t.Errorf("failure %d is no attempt", key)
		}
	}
	for _, pause := range []time.Duration{1, 2, 4, 8, 8} {
		pause *= time.Second
		if b.state != Open || b.mode(now) != shut || b.mode(now.Add(pause-1)) != shut || b.mode(now.Add(pause)) != probe || !b.wake(now).Equal(now.Add(pause)) {
			t.Fatalf("state %s until %s, want open for %s", b.state, b.next.Sub(now), pause)
		}
		if b.failedAt(now.Add(pause/2), 9, "late") {
			t.Error("what was under way counts")
		}
		now = now.Add(pause)
		if b.failedAt(now, 9, "still no") {
			t.Error("a probe counts")
		}
	}
	b.succeeded(now)
	if b.state != OK || b.mode(now) != free || b.trips != 0 {
		t.Errorf("after a success: %s", b.state)
	}
}

func TestSuccessesBetweenFailuresKeepItClosed(t *testing.T) {
	t.Parallel()
	b, now := testBreaker(), time.Unix(1000, 0)
	for i := range uint64(100) {
		b.failedAt(now, i, "no")
		b.failedAt(now, i, "no") // a key twice is one key
		b.failedAt(now, i+1, "no")
		if b.state != Retrying || b.mode(now) != free {
			t.Fatalf("after %d: %s", i, b.state)
		}
		b.succeeded(now)
	}
}

func TestAThrottledDestinationIsWrittenToLessAtATime(t *testing.T) {
	t.Parallel()
	b, now := testBreaker(), time.Unix(1000, 0)
	b.throttle(now, 10*time.Second, "slow down")
	b.throttle(now.Add(time.Second), 12*time.Second, "slow down") // under way
	b.throttle(now.Add(time.Second), time.Second, "slow down")
	b.succeeded(now.Add(time.Second)) // too
	if b.state != Throttled || b.width != 2 || b.mode(now.Add(13*time.Second-1)) != shut || b.mode(now.Add(13*time.Second)) != free {
		t.Errorf("%s, %d at a time, until %s", b.state, b.width, b.next.Sub(now))
	}
	now = now.Add(13 * time.Second)
	for range 20 {
		b.succeeded(now)
	}
	if b.width != 4 || b.state != OK {
		t.Errorf("%d at a time after 20 successes, %s", b.width, b.state)
	}
	// Without a time of its own the pause grows.
	for _, pause := range []time.Duration{1, 2, 4} {
		b.throttle(now, 0, "slow down")
		if got := b.next.Sub(now); got != pause*time.Second {
			t.Errorf("a pause of %s, want %ds", got, pause)
		}
		now = b.next
	}
}

func TestADestinationThatRejectsEverythingIsSentToSlowly(t *testing.T) {
	t.Parallel()
	b, now := testBreaker(), time.Unix(1000, 0)
	reject := func(n int) {
		b.succeeded(now) // it is there
		b.rejected(now, n, "no")
	}
	for range sourLimit - 1 {
		reject(1)
	}
	if b.most() != 4 || b.rest.After(now) || b.state != OK {
		t.Fatalf("after %d: %d writes at a time, %s, a rest of %s", sourLimit-1, b.most(), b.state, b.rest.Sub(now))
	}
	for _, n := range []int{1, 20} {
		reject(n)
		if pause := time.Duration(n) * sourPace; b.most() != 1 || b.state != Retrying || b.mode(now) != free || b.rest.Sub(now) != pause {
			t.Errorf("%d more: %d writes at a time, %s, a rest of %s, want %s", n, b.most(), b.state, b.rest.Sub(now), pause)
		}
	}
	b.succeeded(now)
	b.delivered()
	if reject(1); b.most() != 4 || b.rest.After(now) || b.state != OK {
		t.Errorf("one was delivered, and one rejected: %d writes at a time, %s, a rest of %s", b.most(), b.state, b.rest.Sub(now))
	}
}

func TestGoneAndPausedEndByResumeOnly(t *testing.T) {
	t.Parallel()
	for _, s := range []State{Gone, Paused} {
		b, now := testBreaker(), time.Unix(1000, 0)
		b.stop(now, s, "why")
		b.succeeded(now)
		b.throttle(now, time.Second, "x")
		if counts := b.failedAt(now, 1, "x"); counts || b.state != s || b.reason != "why" || b.mode(now.Add(1000*time.Hour)) != shut {
			t.Errorf("%s became %s", s, b.state)
		}
		if b.resume(now); b.mode(now) != free {
			t.Errorf("%s does not end", s)
		}
	}
}

func TestWhatWriteReturnsIsSpreadOverItsMessages(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	partial := &sink.PartialError{Failed: []sink.Failure{{Index: 1, Err: bad}, {Index: 7, Err: bad}, {Index: 2}}}
	for _, c := range []struct {
		n    int
		err  error
		want string
	}{
		{3, nil, "[<nil> <nil> <nil>]"},
		{1, bad, "[<nil> bad unknown]"},
		{0, bad, "[bad unknown unknown]"},
		{-4, bad, "[bad unknown unknown]"},
		{9, bad, "[<nil> <nil> <nil>]"},
		{2, nil, "[<nil> <nil> short]"},
		{0, partial, "[<nil> bad short]"},
		{1, fmt.Errorf("webhook: %w", partial), "[<nil> bad short]"},
	} {
		got := judge(3, c.n, c.err)
		for i, err := range got {
			switch {
			case errors.Is(err, errUnknown):
				got[i] = errors.New("unknown")
			case errors.Is(err, errShort):
				got[i] = errors.New("short")
			}
		}
		if text := fmt.Sprint(got); text != c.want {
			t.Errorf("%d, %v: %s, want %s", c.n, c.err, text, c.want)
		}
	}
}

func TestABookKeepsFailuresLongerAndIsBounded(t *testing.T) {
	t.Parallel()
	var b Book
	b.add(Attempt{Outcome: "retry", Request: Request{Error: "first"}})
	for range 1000 {
		b.add(Attempt{Outcome: Delivered})
	}
	all, more := b.List(0, 1000, All)
	if len(all) != keptDelivered+1 || more || all[0].ID != 1001 || all[len(all)-1].Error != "first" {
		t.Errorf("%d are kept, the first %d", len(all), all[0].ID)
	}
	page, more := b.List(all[9].ID, 10, All)
	if !more || len(page) != 10 || page[0].ID != all[10].ID {
		t.Errorf("the second page: %d from %d on", len(page), page[0].ID)
	}
	if failed, _ := b.List(0, 10, FailedOnly); len(failed) != 1 {
		t.Errorf("%d failed", len(failed))
	}
	large := Attempt{Outcome: "retry", Request: Request{Sent: string(make([]byte, keptBytes/4))}}
	for range 50 {
		b.add(large)
	}
	if b.bytes > keptBytes {
		t.Errorf("%d bytes are kept", b.bytes)
	}
	if all, _ := b.List(0, 1000, All); len(all) > 4 || !slices.IsSortedFunc(all, func(x, y Attempt) int { return int(y.ID) - int(x.ID) }) {
		t.Errorf("%d large ones are kept", len(all))
	}
}
