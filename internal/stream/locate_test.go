package stream

import (
	"math/rand/v2"
	"testing"
	"time"

	"lockstep"
)

func TestSeqAtFindsTheFirstCommitAtOrAfterATime(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	base := time.Unix(1_790_000_000, 0)
	// Change n commits at base+n seconds; batches of 0 to 6 changes.
	total := 0
	for i := range 60 {
		n := i % 7
		append1(t, l, batchOf(n, 20, base.Add(time.Duration(total+1)*time.Second)), markAt(1))
		total += n
	}
	for _, offset := range []int{-1000, 0, 1, 2, 77, total - 1, total, total + 1, total + 1000} {
		want := uint64(min(max(offset, 1), total+1))
		if got, err := l.SeqAt(t.Context(), base.Add(time.Duration(offset)*time.Second)); err != nil || got != want {
			t.Errorf("SeqAt(base%+ds) = %d, error %v; want %d", offset, got, err, want)
		}
	}
	if got, err := l.SeqAt(t.Context(), base.Add(10*time.Second-time.Microsecond)); err != nil || got != 10 {
		t.Errorf("just before change 10: got %d, error %v", got, err)
	}
	if got, err := l.SeqAt(t.Context(), time.Time{}); err != nil || got != 1 {
		t.Errorf("at the beginning of time: got %d, error %v", got, err)
	}
}

func TestSeqAtOfAnEmptyLogIsItsEnd(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	if got, err := l.SeqAt(t.Context(), time.Now()); err != nil || got != 1 {
		t.Errorf("got %d, error %v", got, err)
	}
}

func TestBatchOfNeedsOneReadWhereTheIndexKnowsThePlace(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{CacheBytes: 1})
	l := openLog(t, s)
	appendMany(t, l, 300, 3)
	before := s.reads.Stats().OutMsgs
	const looks = 100
	for range looks {
		seq := 1 + rand.Uint64N(900)
		if b, err := l.BatchOf(t.Context(), seq); err != nil || b.First > seq || b.Mark.Seq < seq {
			t.Fatalf("BatchOf(%d) = %v, error %v", seq, b, err)
		}
	}
	if got := s.reads.Stats().OutMsgs - before; got > looks {
		t.Errorf("%d requests for %d batches", got, looks)
	}
	l.index.clear()
	before = s.reads.Stats().OutMsgs
	if _, err := l.BatchOf(t.Context(), 450); err != nil {
		t.Fatal(err)
	}
	if got := s.reads.Stats().OutMsgs - before; got > 10 {
		t.Errorf("%d requests to find one of 300 batches without the index", got)
	}
}

func TestIndexStaysBoundedAndFindsTheNearestPlace(t *testing.T) {
	t.Parallel()
	var x index
	const places = 5 * indexLimit
	for i := range uint64(places) {
		x.add(place{first: 1 + 10*i, start: 1 + i})
	}
	if n := len(x.places); n > indexLimit {
		t.Errorf("%d places, want at most %d", n, indexLimit)
	}
	before, _, ok, hasAfter := x.around(10 * places)
	if !ok || before.start != places || hasAfter {
		t.Errorf("the last place is %+v", before)
	}
	for _, seq := range []uint64{1, 12345, 10 * places / 2, 10*places - 1000} {
		before, after, ok, hasAfter := x.around(seq)
		if !ok || !hasAfter || before.first > seq || after.first <= seq {
			t.Errorf("around %d are %+v and %+v", seq, before, after)
		}
	}
	x.forgetBefore(5001)
	if before, _, ok, _ := x.around(5000); ok {
		t.Errorf("%+v is still there", before)
	}
}

func TestCacheStaysWithinItsBudgetAndKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	l := &Log{}
	c := newCache(100 << 10)
	for first := uint64(1); first < 1000; first += 10 {
		data, err := small(10).Seal(first, lockstep.Mark{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := lockstep.ParseBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		c.put(l, entry{batch: b})
		if _, ok := c.get(l, 1); !ok {
			t.Fatalf("the batch in use was dropped at %d", first)
		}
		if c.size > c.limit || len(c.byKey) != c.recent.Len() {
			t.Fatalf("%d bytes in a cache of %d", c.size, c.limit)
		}
	}
	if _, ok := c.get(l, 11); ok {
		t.Error("a batch out of use is still there")
	}
	c.drop(l)
	if c.size != 0 || c.recent.Len() != 0 {
		t.Errorf("%d bytes left after drop", c.size)
	}
}
