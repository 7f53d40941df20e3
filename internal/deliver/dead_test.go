package deliver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

// exhausting is a definition whose changes may fail n times.
func exhausting(how string, n int) deliver.Definition {
	return definition(func(d *deliver.Definition) {
		d.OnExhausted, d.MaxAttempts = how, n
		d.Backoff = deliver.Backoff{First: time.Millisecond, Max: time.Millisecond}
	})
}

// fail nacks a change and waits for its letter.
func fail(t *testing.T, c *deliver.Consumer, d deliver.Delivery) {
	t.Helper()
	nack(t, c, deliver.NackOptions{Reason: "no good"}, d)
	eventually(t, "the letter is there and counted", func() bool {
		l, err := c.DeadLetter(t.Context(), d.Record.Seq())
		if err != nil {
			return false
		}
		w, err := c.Where(t.Context(), d.Record.Seq())
		return err == nil && l.State != deliver.StateRetrying && (w.State == deliver.ChangeParked || w.State == deliver.ChangeBlocked)
	})
}

func wantLetters(t *testing.T, c *deliver.Consumer, expected string) {
	t.Helper()
	var got string
	eventually(t, "letters "+expected, func() bool {
		letters, _, err := c.Dead(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		parts := make([]string, len(letters))
		for i, l := range letters {
			parts[i] = fmt.Sprintf("%d:%s", l.Seq, l.State)
		}
		got = strings.Join(parts, " ")
		return got == expected
	})
}

func TestParkedChangeLetsItsKeyGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(exhausting(deliver.Park, 2))
	nack(t, c, deliver.NackOptions{}, next(t, c, 1)...)
	fail(t, c, await(t, c, 1)[0])
	l, err := c.DeadLetter(t.Context(), 1)
	if err != nil || l.Reason != "no good" || l.Attempts != 2 || l.Table != "public.orders" || string(l.PKs) != `["a"]` || l.State != deliver.StateParked {
		t.Fatalf("got %+v, error %v", l, err)
	}
	var message struct{ Metadata map[string]any }
	if err := json.Unmarshal(l.Message, &message); err != nil || message.Metadata["consumer"] != nil || message.Metadata["seq"] != 1.0 {
		t.Errorf("message %s, error %v", l.Message, err)
	}
	ds := await(t, c, 5)
	want(t, "then", ds, "a@2")
	ack(t, c, ds...)
	if s := c.Stats(); s.Parked != 1 || s.Dead != 1 || s.Floor != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestLeaseThatRanOutTooOftenParks(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a")...)
		c := r.put(exhausting(deliver.Park, 1))
		ds := next(t, c, 1)
		<-time.After(2 * time.Minute)
		l, err := c.DeadLetter(t.Context(), 1)
		if err != nil || l.Reason != "lease expired" {
			t.Fatalf("got %+v, error %v", l, err)
		}
		wantStale(t, c, ds...)
	})
}

func TestRetriedLetterComesLateWhenItsKeyHasGoneOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "b")...)
	c := r.put(exhausting(deliver.Park, 1))
	ds := next(t, c, 2)
	fail(t, c, ds[0]) // a
	fail2 := ds[1]
	ack(t, c, fail2)
	out := await(t, c, 1)
	want(t, "the next of a", out, "a@2")
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	wantLetters(t, c, "1:retrying")
	want(t, "while a later one is out", next(t, c, 5), "")
	ack(t, c, out...)
	late := await(t, c, 5)
	want(t, "the letter", late, "a@1late")
	if !strings.Contains(string(c.AppendDelivery(nil, late[0])), `"late":true`) {
		t.Error("the message does not say that it is late")
	}
	ack(t, c, late...)
	wantLetters(t, c, "")
}

func TestRetriedLetterIsNotLateWhenNothingWentBy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a")...)
	d := exhausting(deliver.Park, 1)
	c := r.put(d)
	fail(t, c, next(t, c, 1)[0])
	c = r.restart(d)
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.log.append(t, ins("a")...)
	want(t, "the letter and the one behind it", await(t, c, 5), "a@1 a@2")
}

func TestRetryOutlivesRetentionAndRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "a", extra: `,"n":1`})
	d := exhausting(deliver.Park, 1)
	c := r.put(d)
	fail(t, c, next(t, c, 1)[0])
	r.log.append(t, ins("b")...)
	ack(t, c, next(t, c, 1)...)
	r.log.retain(2)
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	c = r.restart(d)
	ds := await(t, c, 5)
	if string(ds[0].Record.Row()) != `{"id":"a","n":1}` {
		t.Errorf("got %s", ds[0].Record.Row())
	}
	ack(t, c, ds...)
	wantLetters(t, c, "")
}

func TestParkKeySendsEverythingOfTheKeyToTheDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "b")...)
	d := exhausting(deliver.ParkKey, 1)
	c := r.put(d)
	ds := next(t, c, 2)
	fail(t, c, ds[0])
	wantLetters(t, c, "1:parked 2:parked")
	ack(t, c, ds[1])
	c = r.restart(d)
	r.log.append(t, ins("a", "b")...)
	out := await(t, c, 5)
	want(t, "only b goes on", out, "b@5")
	ack(t, c, out...)
	wantLetters(t, c, "1:parked 2:parked 4:parked")
	if err := c.Retry(t.Context(), 2); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "letter 1") {
		t.Fatalf("retry out of turn: error %v, want ErrConflict that names letter 1", err)
	}
	if err := c.Drop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{2, 4} {
		if err := c.Retry(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	r.log.append(t, ins("a")...)
	var all []deliver.Delivery
	for len(all) < 3 {
		out = await(t, c, 5)
		ack(t, c, out...)
		all = append(all, out...)
	}
	want(t, "in order", all, "a@2 a@4 a@6")
	wantLetters(t, c, "")
}

func TestBlockedKeyWaitsForAPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "b", "b")...)
	d := exhausting(deliver.Block, 1)
	c := r.put(d)
	ds := next(t, c, 2)
	ack(t, c, ds[1])
	fail(t, c, ds[0])
	wantLetters(t, c, "1:blocked")
	c = r.restart(d)
	want(t, "b goes on", next(t, c, 5), "b@4")
	if s := c.Stats(); s.BlockedKeys != 1 || len(s.Blocked) == 0 || s.Blocked[0].Seq != 1 {
		t.Errorf("stats %+v", s)
	}
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	out := next(t, c, 5)
	want(t, "after the retry", out, "a@1 a@2")
	nack(t, c, deliver.NackOptions{}, out[0])
	wantLetters(t, c, "1:blocked")
	eventually(t, "blocked again", func() bool { return c.Stats().BlockedKeys == 1 })
	if err := c.Drop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	want(t, "after the drop", await(t, c, 5), "a@2")
	wantLetters(t, c, "")
}

func TestFilterThatFailsParksItsChangeOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "a", extra: `,"n":"x"`}, row{key: "a", extra: `,"n":5`}, row{key: "b", extra: `,"n":5`})
	c := r.put(definition(func(d *deliver.Definition) { d.Filter = "record.n > 1" }))
	out := await(t, c, 5)
	for len(out) < 2 {
		out = append(out, await(t, c, 5)...)
	}
	wantLetters(t, c, "1:parked")
	if l, _ := c.DeadLetter(t.Context(), 1); !strings.HasPrefix(l.Reason, "filter: ") {
		t.Errorf("reason %q", l.Reason)
	}
}

func TestTransformThatFailsParksItsChangeOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "a", extra: `,"n":"x"`}, row{key: "a", extra: `,"n":5`})
	c := r.put(definition(func(d *deliver.Definition) { d.Transform = "{n: record.n / 2}" }))
	out := await(t, c, 5)
	want(t, "the one whose transform works", out, "a@2")
	ack(t, c, out...)
	wantLetters(t, c, "1:parked")
	l, _ := c.DeadLetter(t.Context(), 1)
	if !strings.HasPrefix(l.Reason, "transform: ") || !strings.HasPrefix(string(l.Message), `{"record":null,"changes":null,"action":"insert","metadata":{`) {
		t.Errorf("reason %q, message %s; want one that shows no row, since nobody knows what the transform would have masked", l.Reason, l.Message)
	}
	// The row is kept for a retry with a transform that works.
	d := c.Definition()
	d.Transform = "{n: record.n}"
	c = r.put(d)
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if ds := await(t, c, 5); show(ds) != "a@1late" || string(ds[0].Row) != `{"n":"x"}` {
		t.Errorf("retried: %s with %s", show(ds), ds[0].Row)
	}
}

func TestKeyWaitsUntilItsLetterIsOnDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(exhausting(deliver.Park, 1))
	ds := next(t, c, 1)
	r.dead.mu.Lock()
	r.dead.fail = errDisk
	r.dead.mu.Unlock()
	nack(t, c, deliver.NackOptions{}, ds...)
	want(t, "without its letter", next(t, c, 5), "")
	r.dead.mu.Lock()
	r.dead.fail = nil
	r.dead.mu.Unlock()
	want(t, "with it", await(t, c, 5), "a@2")
	wantLetters(t, c, "1:parked")
}

func TestLetterOfAChangeThatIsAckedAfterASeekBackGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a")...)
	c := r.put(exhausting(deliver.Park, 1))
	fail(t, c, next(t, c, 1)[0])
	if err := c.Seek(t.Context(), "beginning"); err != nil {
		t.Fatal(err)
	}
	ds := next(t, c, 1)
	want(t, "replayed", ds, "a@1")
	ack(t, c, ds...)
	wantLetters(t, c, "")
}

func TestParkByHandLetsTheKeyGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(definition(nil))
	hour := time.Hour
	nack(t, c, deliver.NackOptions{Delay: &hour}, next(t, c, 1)...)
	if err := c.Park(t.Context(), 1, "poison"); err != nil {
		t.Fatal(err)
	}
	out := await(t, c, 5)
	want(t, "then", out, "a@2")
	if err := c.Park(t.Context(), 2, ""); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("park of what is out: error %v, want ErrConflict", err)
	}
	if l, _ := c.DeadLetter(t.Context(), 1); l.Reason != "poison" {
		t.Errorf("got %+v", l)
	}
}

func TestCallsOnLettersThatAreNotThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	_, err := c.DeadLetter(t.Context(), 5)
	for _, err := range []error{err, c.Retry(t.Context(), 5), c.Drop(t.Context(), 5)} {
		if !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
	}
}

func TestLetterThatIsNotThereIsToldOnce(t *testing.T) {
	t.Parallel()
	c := newRig(t).put(definition(nil))
	for what, err := range map[string]error{
		"show": func() error { _, err := c.DeadLetter(t.Context(), 42); return err }(), "retry": c.Retry(t.Context(), 42), "drop": c.Drop(t.Context(), 42),
	} {
		if !errors.Is(err, lockstep.ErrNotFound) || strings.Count(err.Error(), "dead letter") != 1 {
			t.Errorf("%s: got %v, want one sentence of the kind ErrNotFound", what, err)
		}
	}
}
