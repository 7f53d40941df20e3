package deliver_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

var manyLetters = flag.Int("letters", 0, "how many dead letters TestManyLettersOfAConsumerAreMeasured makes, at least 20,001; 0: it does not run")

// A key whose letters lie apart is retried in several parts and comes back in order.
func TestManyLettersOfAParkedKeyAreRetriedTogetherInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newReal(t, dir)
	const n, keys = 3000, 5
	if err := fillReal(t.Context(), r.log, n, 500, keys); err != nil {
		t.Fatal(err)
	}
	run(t, r.broker)
	c, err := r.broker.Put(t.Context(), exhausting(deliver.ParkKey, 1))
	if err != nil {
		t.Fatal(err)
	}
	const each = n / keys
	bad := next(t, c, 1)
	nack(t, c, deliver.NackOptions{Reason: "no good"}, bad...)
	for acked := 0; acked < n-each; {
		ds := await(t, c, 100)
		ack(t, c, ds...)
		acked += len(ds)
	}
	eventually(t, "all of the key are letters", func() bool { return c.Stats().Dead == each })
	first := bad[0].Record.Seq()
	var seqs []uint64
	for i := range uint64(each - 1) {
		seqs = append(seqs, first+i*keys)
	}
	p, err := c.RetryLetters(t.Context(), deliver.LetterWork{Seqs: seqs})
	if err != nil || p.Done != len(seqs) || p.Skipped != 0 {
		t.Fatalf("retried %+v, error %v", p, err)
	}
	if p, err = c.RetryLetters(t.Context(), deliver.LetterWork{}); err != nil || p.Done != 1 {
		t.Fatalf("retried %+v, error %v", p, err)
	}
	last := uint64(0)
	for got := 0; got < each; {
		ds := await(t, c, 100)
		for _, d := range ds {
			if d.Record.Seq() <= last {
				t.Fatalf("change %d after %d", d.Record.Seq(), last)
			}
			last = d.Record.Seq()
		}
		ack(t, c, ds...)
		got += len(ds)
	}
	eventually(t, "no letter is left", func() bool { return c.Stats().Dead == 0 })
}

// A letter that says that it is being retried waits for a person all the same when a crash
// kept its change from being known: retrying and dropping all finds it.
func TestLetterWhoseRetryACrashCutOffIsRetriedWithTheOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	c := r.put(exhausting(deliver.Park, 1))
	for _, d := range next(t, c, 2) {
		fail(t, c, d)
	}
	l, err := c.DeadLetter(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	l.State = deliver.StateRetrying
	if err := r.dead.Put(t.Context(), c.ID(), l); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 0} {
		if p, err := c.RetryLetters(t.Context(), deliver.LetterWork{}); err != nil || p.Done != want {
			t.Fatalf("retried %+v, error %v; want %d", p, err, want)
		}
	}
	ack(t, c, await(t, c, 1)...)
	ack(t, c, await(t, c, 1)...)
	wantLetters(t, c, "")
}

// TestManyLettersOfAConsumerAreMeasured tells how long calls on many letters take. It
// fails on no time.
func TestManyLettersOfAConsumerAreMeasured(t *testing.T) {
	n := *manyLetters
	if n == 0 {
		t.Skip("say how many: -letters 100000")
	}
	dir := t.TempDir()
	took := func(what string, f func() error) {
		t.Helper()
		started := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%-46s %s", what, time.Since(started).Round(10*time.Microsecond))
	}
	def := exhausting(deliver.Park, 1)
	def.Start = "now"
	r, err := openReal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := fillReal(t.Context(), r.log, n, 5000, n); err != nil {
		t.Fatal(err)
	}
	stop := run(t, r.broker)
	if _, err := r.broker.Put(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	took(fmt.Sprintf("%d letters put", n), func() error { return putLetters(t.Context(), r, def.ID, n) })
	stop()
	if err := r.server.Close(); err != nil {
		t.Fatal(err)
	}

	took("stream opened", func() error { r, err = openReal(t.Context(), dir); return err })
	t.Cleanup(func() {
		if err := r.server.Close(); err != nil {
			t.Error(err)
		}
	})
	run(t, r.broker)
	var c *deliver.Consumer
	took("consumer opened", func() error { c, err = r.broker.Put(t.Context(), def); return err })
	took("stats", func() error {
		if s := c.Stats(); s.Dead != uint64(n) {
			return fmt.Errorf("there are %d letters", s.Dead)
		}
		return nil
	})
	page := func(what string, q deliver.LetterQuery) {
		t.Helper()
		q.Limit = 50
		var p deliver.LetterPage
		took(what, func() error { p, err = c.Letters(t.Context(), q); return err })
		t.Logf("%-46s %d letters of %d, stopped %t", "", len(p.Letters), p.Looked, p.Stopped)
	}
	page("page, oldest", deliver.LetterQuery{})
	page("page, newest", deliver.LetterQuery{Order: deliver.NewestFirst})
	page("page, middle", deliver.LetterQuery{Cursor: uint64(n / 2)})
	page("page, a reason of every 100th", deliver.LetterQuery{Reason: "rare"})
	page("page, a reason of none", deliver.LetterQuery{Reason: "never"})
	took("one letter", func() error { _, err := c.DeadLetter(t.Context(), uint64(n/3)); return err })
	measureWork(t, took, c, n)
}

// measureWork retries and drops as many as a call does.
func measureWork(t *testing.T, took func(string, func() error), c *deliver.Consumer, n int) {
	t.Helper()
	var err error
	var p deliver.LetterProgress
	took("10,000 retried", func() error { p, err = c.RetryLetters(t.Context(), deliver.LetterWork{}); return err })
	retried := p.Done
	t.Logf("%-46s %d of them in one call", "", retried)
	took("10,000 dropped", func() error {
		p, err = c.DropLetters(t.Context(), deliver.LetterWork{Cursor: uint64(n / 2)})
		return err
	})
	dropped := p.Done
	t.Logf("%-46s %d of them in one call", "", dropped)
	took("the retried ones acked, their letters erased", func() error {
		for got := 0; got < retried; {
			ds := await(t, c, 500)
			ack(t, c, ds...)
			got += len(ds)
		}
		eventually(t, "their letters go", func() bool { return c.Stats().Dead == uint64(n-retried-dropped) })
		return nil
	})
}

// putLetters puts letters of the changes 1 to n, many at a time.
func putLetters(ctx context.Context, r *real, consumer string, n int) error {
	source := newMemLog()
	var letters []deliver.Letter
	for seq := uint64(1); seq <= uint64(n); seq++ {
		batch, err := source.fill(ins(fmt.Sprint(seq))).Seal(seq, lockstep.Mark{SystemID: 7, Timeline: 1, CommitLSN: lockstep.LSN(seq), Complete: true})
		if err != nil {
			return err
		}
		l := deliver.Letter{
			Seq: seq, Database: "app", Reason: "no good", State: deliver.StateParked, Attempts: 1, At: time.Now().UTC(), Table: "public.orders",
			PKs: json.RawMessage(fmt.Sprintf(`["%d"]`, seq)), Message: json.RawMessage(fmt.Sprintf(`{"seq":%d}`, seq)), Batch: append([]byte(nil), batch...),
		}
		if seq%100 == 0 {
			l.Reason = "rare"
		}
		if letters = append(letters, l); len(letters) == 1000 || seq == uint64(n) {
			if err := (realDead{r.dead}).PutSome(ctx, consumer, letters); err != nil {
				return err
			}
			letters = letters[:0]
		}
	}
	return nil
}

// BenchmarkNackedChangesGoToTheDeadLetters tells how many letters a second are written
// when workers give up batches of 500.
func BenchmarkNackedChangesGoToTheDeadLetters(b *testing.B) {
	const size = 500
	r := newReal(b, b.TempDir())
	run(b, r.broker)
	c, err := r.broker.Put(b.Context(), exhausting(deliver.Park, 1))
	if err != nil {
		b.Fatal(err)
	}
	dead, took := uint64(0), time.Duration(0)
	for b.Loop() {
		if err := fillReal(b.Context(), r.log, size, size, size); err != nil {
			b.Fatal(err)
		}
		started := time.Now()
		for got := 0; got < size; {
			ds := await(b, c, size-got)
			nack(b, c, deliver.NackOptions{Reason: "no good"}, ds...)
			got += len(ds)
		}
		dead += size
		eventually(b, "all are letters", func() bool { return c.Stats().Dead == dead })
		took += time.Since(started)
	}
	b.ReportMetric(float64(dead)/took.Seconds(), "letters/s")
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms/batch")
}
