package deliver_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/deliver"
)

// timed runs a test with a broker whose time stands still until everybody waits.
func timed(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		test(t, r)
		r.stop()
	})
}

// A process that stood still, or a network that passed nothing, ends the leases of
// everything that was handed out, at once.
func TestLateAcksAreStaleHoweverManyLeasesEnded(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		const n = 1000
		keys := make([]string, n)
		for i := range keys {
			keys[i] = "k" + strconv.Itoa(i)
		}
		r.log.append(t, ins(keys...)...)
		c := r.put(definition(func(d *deliver.Definition) { d.AckWait, d.MaxInFlight = 10*time.Second, 2*n }))
		lost := next(t, c, n)
		time.Sleep(11 * time.Second) // fake time
		again := next(t, c, n)
		ack(t, c, again...)
		wantStale(t, c, lost...)
		ack(t, c, again...)
	})
}

func TestAckTwiceIsSuccessAlsoAfterARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	d := definition(nil)
	c := r.put(d)
	ds := next(t, c, 2)
	ack(t, c, ds[0])
	ack(t, c, ds[0])
	c = r.restart(d)
	ack(t, c, ds[0])
	wantStale(t, c, ds[1])
	want(t, "what was not acked", next(t, c, 2), "b@2")
}

func TestStaleTokensAreToldAndTheOthersApplied(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "b")...)
		c := r.put(definition(func(d *deliver.Definition) { d.AckWait = 10 * time.Second }))
		lost := next(t, c, 1)
		time.Sleep(5 * time.Second) // fake time
		kept := next(t, c, 1)
		time.Sleep(6 * time.Second)
		stale, err := c.Ack(t.Context(), tokens(lost[0], kept[0]))
		if diff := cmp.Diff(tokens(lost[0]), stale); err != nil || diff != "" {
			t.Fatalf("error %v, stale tokens differ (-want +got):\n%s", err, diff)
		}
		again := next(t, c, 2)
		want(t, "what comes again", again, "a@1#2")
		ack(t, c, again...)
		wantStale(t, c, lost...)
	})
}

func TestForeignAndForgedTokensAreStaleMalformedOnesInvalid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	c := r.put(definition(nil))
	other := r.put(definition(func(d *deliver.Definition) { d.Name = "other" }))
	own, foreign := next(t, c, 1), next(t, other, 1)
	wantStale(t, c, foreign...)

	raw, err := base64.RawURLEncoding.DecodeString(own[0].Token)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(raw); i++ {
		forged := slices.Clone(raw)
		forged[i] ^= 1
		text := base64.RawURLEncoding.EncodeToString(forged)
		if stale, err := c.Ack(t.Context(), []string{text}); err != nil || len(stale) != 1 {
			t.Fatalf("byte %d forged: stale %v, error %v", i, stale, err)
		}
	}
	good := own[0].Token
	for _, bad := range []string{"", "x", good[1:], good + "A", good[:10] + "!" + good[11:], good[:10] + "\n" + good[11:], strings.Repeat("A", len(good))} {
		if _, err := c.Ack(t.Context(), []string{good, bad}); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%q: got error %v, want ErrInvalid", bad, err)
		}
	}
	if s := c.Stats(); s.Acked != 0 {
		t.Errorf("%d acks were applied beside malformed tokens", s.Acked)
	}
	ack(t, c, own...)
}

func TestNackHoldsTheKeyBackAndLetsOthersGo(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "a", "b", "b")...)
		c := r.put(definition(nil))
		ds := next(t, c, 2)
		want(t, "first", ds, "a@1 b@3")
		delay := 15 * time.Second
		nack(t, c, deliver.NackOptions{Delay: &delay, Reason: "no"}, ds[0])
		ack(t, c, ds[1])
		want(t, "while a waits", next(t, c, 10), "b@4")
		began := time.Now()
		want(t, "after the delay", await(t, c, 10), "a@1#2 a@2")
		if waited := time.Since(began); waited != delay {
			t.Errorf("came after %s, want %s", waited, delay)
		}
	})
}

func TestBackoffDoublesUpToItsMaximumWithJitter(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a")...)
		c := r.put(definition(func(d *deliver.Definition) {
			d.Backoff = deliver.Backoff{First: time.Second, Max: 5 * time.Second, Jitter: 0.2}
		}))
		for i, base := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			began := time.Now()
			ds := await(t, c, 1)
			low, high := base*8/10, base*12/10
			if waited := time.Since(began); waited < low || waited > high || ds[0].Attempt != i+1 {
				t.Errorf("attempt %d after %s, want attempt %d after %s to %s", ds[0].Attempt, waited, i+1, low, high)
			}
			nack(t, c, deliver.NackOptions{}, ds...)
		}
	})
}

func TestReleaseDoesNotCountAnAttempt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(definition(func(d *deliver.Definition) { d.MaxAttempts = 1 }))
	for range 5 {
		ds := next(t, c, 2)
		want(t, "each time", ds, "a@1 a@2")
		nack(t, c, deliver.NackOptions{Mode: deliver.Release}, ds...)
	}
}

func TestNackOfOneGivesBackLaterOnesOfItsKeyOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "a", "b")...)
	c := r.put(definition(nil))
	ds := next(t, c, 10)
	want(t, "all", ds, "a@1 a@2 a@3 b@4")
	nack(t, c, deliver.NackOptions{Mode: deliver.Release}, ds[1])
	wantStale(t, c, ds[2])
	ack(t, c, ds[0], ds[3])
	want(t, "what was given back", next(t, c, 10), "a@2 a@3")
}

func TestFollowersThatNobodyTriedGainNoAttempt(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "a", "a")...)
		c := r.put(definition(func(d *deliver.Definition) { d.AckWait = 10 * time.Second }))
		ds := next(t, c, 3)
		zero := time.Duration(0)
		nack(t, c, deliver.NackOptions{Delay: &zero}, ds...) // followers named too: covered
		ds = next(t, c, 3)
		want(t, "after a nack of all", ds, "a@1#2 a@2 a@3")
		ack(t, c, ds[0])
		time.Sleep(11 * time.Second)
		want(t, "after the leases of the rest ran out", next(t, c, 3), "a@2#2 a@3")
	})
}

func TestNackRepeatedIsNotStale(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(definition(nil))
	ds := next(t, c, 2)
	nack(t, c, deliver.NackOptions{}, ds...)
	nack(t, c, deliver.NackOptions{}, ds...) // its answer got lost
	if s := c.Stats(); s.Nacked != 1 {
		t.Errorf("counted %d nacks, want 1", s.Nacked)
	}
}

func TestNackAfterAckChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(definition(nil))
	ds := next(t, c, 1)
	ack(t, c, ds...)
	nack(t, c, deliver.NackOptions{}, ds...)
	want(t, "then", next(t, c, 5), "a@2")
}

func TestExtendKeepsTheLease(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "a", "a")...)
		c := r.put(definition(func(d *deliver.Definition) { d.AckWait = 10 * time.Second }))
		ds := next(t, c, 2)
		time.Sleep(9 * time.Second)
		if stale, err := c.Extend(t.Context(), tokens(ds[0]), time.Minute); err != nil || len(stale) > 0 {
			t.Fatalf("stale %v, error %v", stale, err)
		}
		time.Sleep(30 * time.Second)
		want(t, "the later one ran out, but its key is held", next(t, c, 3), "")
		wantStale(t, c, ds[1])
		ack(t, c, ds[0])
		want(t, "after the first", next(t, c, 3), "a@2 a@3")
	})
}

func TestExtendEndsAfterTwelveHours(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a")...)
		c := r.put(definition(func(d *deliver.Definition) { d.AckWait = time.Hour }))
		ds := next(t, c, 1)
		began := time.Now()
		for {
			time.Sleep(50 * time.Minute)
			stale, err := c.Extend(t.Context(), tokens(ds...), 6*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if len(stale) > 0 {
				break
			}
		}
		if held := time.Since(began); held < 12*time.Hour || held > 13*time.Hour {
			t.Errorf("held for %s, want twelve hours", held)
		}
	})
}

func TestLeaseThatRanOutIsHandedOutAtOnceToAWaiter(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a")...)
		c := r.put(definition(func(d *deliver.Definition) { d.AckWait = 10 * time.Second }))
		next(t, c, 1)
		began := time.Now()
		want(t, "the waiter", await(t, c, 1), "a@1#2")
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("waited %s, want the lease's 10s", waited)
		}
	})
}

func TestDeliveryIsTheContractsObject(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "7", extra: `,"amount":"12.50"`})
	c := r.put(definition(func(d *deliver.Definition) { d.Transform = `{"n": record.id}` }))
	ds := next(t, c, 1)
	var got struct {
		Token    string          `json:"ack_token"`
		Attempt  int             `json:"attempt"`
		Record   json.RawMessage `json:"record"`
		Changes  json.RawMessage `json:"changes"`
		Action   string          `json:"action"`
		Metadata struct {
			Seq      int             `json:"seq"`
			Consumer json.RawMessage `json:"consumer"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(c.AppendDelivery(nil, ds[0]), &got); err != nil {
		t.Fatal(err)
	}
	if got.Token != ds[0].Token || got.Attempt != 1 || string(got.Record) != `{"n":"7"}` || string(got.Changes) != "null" || got.Action != "insert" ||
		got.Metadata.Seq != 1 || string(got.Metadata.Consumer) != `{"id":"`+c.ID()+`","name":"orders"}` {
		t.Errorf("got %+v", got)
	}
}
