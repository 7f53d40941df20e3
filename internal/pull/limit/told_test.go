package limit_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"lockstep/internal/pull/limit"
	"lockstep/source"
)

func TestQuotaIsWhatTheAPISays(t *testing.T) {
	c := one(limit.Bucket{Rate: 5000, Per: time.Hour, Burst: 200, LimitHeader: "X-Limit", RemainingHeader: "X-Left", ResetHeader: "X-Reset", ResetFormat: "epoch"})
	inBubble(t, c, func(b *bench) {
		q := b.Quotas()[0]
		equal(b.t, []float64{q.Limit, q.Remaining}, []float64{5000, -1})
		b.answered("a", header("X-Limit", "100", "X-Left", "60", "X-Reset", fmt.Sprint(time.Now().Add(time.Minute).Unix())))
		q = b.Quotas()[0]
		equal(b.t, []float64{q.Limit, q.Remaining}, []float64{100, 60})
		equal(b.t, q.ResetAt.Sub(b.began), time.Minute)
	})
}

// answered is a request whose answer has these headers.
func (b *bench) answered(bucket string, h http.Header) {
	b.t.Helper()
	release, err := b.Wait(b.t.Context(), []string{bucket}, source.Changing, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	b.note("answered")
	release(&http.Response{Header: h})
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for pair := range slices.Chunk(pairs, 2) {
		h.Set(pair[0], pair[1])
	}
	return h
}

// GitHub's case: an hour's requests, and answers that say what is left of them.
func hourly() limit.Config {
	return one(limit.Bucket{Rate: 3600, Per: time.Hour, Burst: 10, Reserve: 0.1, LimitHeader: "X-Limit", RemainingHeader: "X-Left", ResetHeader: "X-Reset", ResetFormat: "epoch"})
}

// Others use the account too: what is left is spread until the limit is whole again.
func TestWhatIsLeftIsSpread(t *testing.T) {
	inBubble(t, hourly(), func(b *bench) {
		reset := func(in time.Duration) string { return fmt.Sprint(time.Now().Add(in).Unix()) }
		b.answered("a", header("X-Limit", "3600", "X-Left", "460", "X-Reset", reset(1000*time.Second)))
		for i := range 200 {
			b.ask(fmt.Sprint("read", i), source.Changing, 0, "a")
		}
		b.pass(500 * time.Second)
		// 360 of the 460 are reserved: 100 in 1000 seconds, and those of the burst.
		if n := len(b.names()); n < 50 || n > 65 {
			b.t.Errorf("%d of 100 left in half of the time", n)
		}
		b.askFor("write", source.Writing, 300, 0, "a")
		b.pass(400 * time.Second)
		if n := slices.Index(b.names(), "write"); n < 0 {
			b.t.Error("the write did not get the reserve")
		}
		b.pass(90 * time.Second)
		before := len(b.names())
		b.pass(20 * time.Second)
		if n := len(b.names()) - before; n < 10 {
			b.t.Errorf("%d left in the ten seconds after the limit was whole again", n)
		}
	})
}

func TestNothingLeavesWhenNothingIsLeft(t *testing.T) {
	inBubble(t, hourly(), func(b *bench) {
		// The API's clock is an hour behind ours.
		theirs := time.Now().Add(-time.Hour)
		b.answered("a", header("X-Limit", "3600", "X-Left", "0", "Date", theirs.UTC().Format(http.TimeFormat), "X-Reset", fmt.Sprint(theirs.Add(10*time.Minute).Unix())))
		b.ask("write", source.Writing, 0, "a")
		b.ask("read", source.Changing, 0, "a")
		b.wait.Wait()
		if b.at("write") < 10*time.Minute || b.at("write") > 10*time.Minute+time.Second || b.at("read") > 10*time.Minute+3*time.Second {
			b.t.Errorf("left at %s and %s", b.at("write"), b.at("read"))
		}
	})
}

// Answers that cost nothing, such as those to conditional requests, give back what was
// counted for them.
func TestWhatCostsNothingIsGivenBack(t *testing.T) {
	inBubble(t, hourly(), func(b *bench) {
		reset := fmt.Sprint(time.Now().Add(time.Hour).Unix())
		for range 1000 {
			b.answered("a", header("X-Limit", "3600", "X-Left", "3599", "X-Reset", reset))
		}
		if took := time.Since(b.began); took > 5*time.Second {
			b.t.Errorf("1000 requests that cost nothing took %s", took)
		}
		equal(b.t, b.Quotas()[0].Remaining, 3599.0)
	})
}

// An answer that was overtaken by another, or is of an hour that is over, says nothing.
func TestAnswersInTheWrongOrder(t *testing.T) {
	inBubble(t, hourly(), func(b *bench) {
		reset := fmt.Sprint(time.Now().Add(time.Hour).Unix())
		var releases []func(*http.Response)
		for range 3 {
			release, err := b.Wait(b.t.Context(), []string{"a"}, source.Changing, 1)
			if err != nil {
				b.t.Fatal(err)
			}
			releases = append(releases, release)
		}
		releases[2](&http.Response{Header: header("X-Left", "1000", "X-Reset", reset)})
		equal(b.t, b.Quotas()[0].Remaining, 998.0) // two may not have been counted yet
		releases[0](&http.Response{Header: header("X-Left", "1002", "X-Reset", reset)})
		equal(b.t, b.Quotas()[0].Remaining, 998.0)
		releases[1](&http.Response{Header: header("X-Left", "nonsense", "X-Reset", "-1")})
		b.answered("a", header("X-Left", "3000", "X-Reset", fmt.Sprint(time.Now().Add(-time.Second).Unix())))
		equal(b.t, b.Quotas()[0].Remaining, 997.0)
	})
}

// Without a time of reset, what others have used counts as if it had left now.
func TestOthersUseTheAccountToo(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 100, Per: 10 * time.Second, Burst: 100, LimitHeader: "Max", RemainingHeader: "Remaining"}), func(b *bench) {
		b.answered("a", header("Max", "100", "Remaining", "5"))
		for i := range 20 {
			b.ask(fmt.Sprint(i), source.Changing, 0, "a")
		}
		b.wait.Wait()
		equal(b.t, b.at("4"), time.Duration(0))
		if b.at("5") < 10*time.Second {
			b.t.Errorf("one too many left at %s", b.at("5"))
		}
	})
}
