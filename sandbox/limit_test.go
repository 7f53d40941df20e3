package sandbox_test

import (
	"testing"
	"time"

	"lockstep/sandbox"
)

// admitted asks at these milliseconds and returns which were let in.
func admitted(l *sandbox.Limiter, at ...int) (in []bool) {
	begin := time.Unix(1_000_000, 0)
	for _, ms := range at {
		leave, refused := l.Enter(begin.Add(time.Duration(ms)*time.Millisecond), sandbox.Charge{Limit: "x", Key: "k"})
		leave()
		in = append(in, refused == nil)
	}
	return in
}

func TestABucketHoldsItsBurstAndRefillsSteadily(t *testing.T) {
	t.Parallel()
	l := sandbox.NewLimiter(sandbox.Limit{Name: "x", Rate: 2, Burst: 3})
	want(t, admitted(l, 0, 0, 0, 0, 499, 500, 501, 1000, 1001), true, true, true, false, false, true, false, true, false)
}

func TestASlidingWindowCountsExactly(t *testing.T) {
	t.Parallel()
	l := sandbox.NewLimiter(sandbox.Limit{Name: "x", Rate: 2, Window: sandbox.Sliding})
	want(t, admitted(l, 0, 600, 900, 999, 1000, 1500, 1600), true, true, false, false, true, false, true)
}

func TestAFixedWindowBeginsWithItsFirstRequest(t *testing.T) {
	t.Parallel()
	l := sandbox.NewLimiter(sandbox.Limit{Name: "x", Rate: 2, Per: sandbox.Duration(time.Second), Window: sandbox.Fixed})
	want(t, admitted(l, 300, 900, 1200, 1300, 1301, 1302), true, true, false, true, true, false)
}

func TestAPenaltyRefusesEverythingAndIsNotProlonged(t *testing.T) {
	t.Parallel()
	l := sandbox.NewLimiter(sandbox.Limit{Name: "x", Rate: 1, Window: sandbox.Sliding, Penalty: sandbox.Duration(30 * time.Second)})
	want(t, admitted(l, 0, 10, 5_000, 29_000, 30_009, 30_010), true, false, false, false, false, true)
}

func TestConcurrencyIsGivenBackOnce(t *testing.T) {
	t.Parallel()
	l, now, c := sandbox.NewLimiter(sandbox.Limit{Name: "x", Concurrent: 1}), time.Now(), sandbox.Charge{Limit: "x"}
	leave, refused := l.Enter(now, c)
	if refused != nil {
		t.Fatal(refused)
	}
	if _, refused = l.Enter(now, c); refused == nil {
		t.Fatal("two at once")
	}
	leave()
	leave()
	if leave, refused = l.Enter(now, c); refused != nil {
		t.Fatal("it was not given back")
	}
	if _, refused = l.Enter(now, c); refused == nil {
		t.Fatal("it was given back twice")
	}
	leave()
}

func TestARefusedRequestCostsNothingUnderAnyLimit(t *testing.T) {
	t.Parallel()
	l := sandbox.NewLimiter(sandbox.Limit{Name: "all", Rate: 10, Window: sandbox.Fixed, Per: sandbox.Duration(time.Hour)}, sandbox.Limit{Name: "one", Rate: 1, Window: sandbox.Fixed})
	now := time.Unix(1_000_000, 0)
	for range 5 {
		l.Enter(now, sandbox.Charge{Limit: "all", Key: "a", Cost: 2}, sandbox.Charge{Limit: "one", Key: "b"})
	}
	s := l.Standing(now, sandbox.Charge{Limit: "all", Key: "a"})
	if s.Used != 2 || s.Remaining != 8 || s.Limit != 10 || !s.Reset.Equal(now.Add(time.Hour)) {
		t.Errorf("standing %+v", s)
	}
	if _, refused := l.Enter(now, sandbox.Charge{Limit: "one", Key: "b"}); refused == nil || refused.After != time.Second || refused.Limit.Name != "one" {
		t.Errorf("refused %+v", refused)
	}
}

func TestKeysAreCountedApartAndUnknownLimitsAreFree(t *testing.T) {
	t.Parallel()
	l, now := sandbox.NewLimiter(sandbox.Limit{Name: "x", Rate: 1}), time.Now()
	for _, key := range []string{"a", "b"} {
		if _, refused := l.Enter(now, sandbox.Charge{Limit: "x", Key: key}, sandbox.Charge{Limit: "nothing"}); refused != nil {
			t.Errorf("%s: %+v", key, refused)
		}
	}
}

func TestALimiterThatIsOffLetsAllPass(t *testing.T) {
	t.Parallel()
	l := sandbox.NewLimiter(sandbox.Limit{Name: "x", Rate: 1})
	l.Off()
	want(t, admitted(l, 0, 0, 0), true, true, true)
	l.On()
	want(t, admitted(l, 0, 0), true, false)
}

func want(t *testing.T, got []bool, want ...bool) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
	}
}
