package events_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/events"
)

func TestAnInsertedRowIsAnEventOfItsSubscriber(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	toto, again, tata := follow(t, s, "toto", "", 0), follow(t, s, "toto", "", 0), follow(t, s, "tata", "", 0)
	log.add(event(1, "toto"), other(), event(2, "tata"), event(3, "toto"))
	if e := toto.next(); e != (sent{"1", "made", `{"n": 1}`}) {
		t.Errorf("got %+v", e)
	}
	if got := toto.ids(1) + " " + again.ids(2) + " " + tata.ids(1); got != "3 1 3 2" {
		t.Errorf("got %s, want 3 for the one session, 1 3 for the other, and 2 for the other subscriber", got)
	}
	toto.silent(s, log)
}

func TestNothingButAnInsertIsAnEvent(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	f := follow(t, s, "toto", "", 1)
	row := event(1, "toto").row
	for _, action := range []lockstep.Action{lockstep.Update, lockstep.Delete, lockstep.Read} {
		log.add(change{action: action, row: row})
	}
	log.add(change{action: lockstep.Truncate})
	addressed := eventsTable()
	addressed.Consumer = "c"
	namesake := eventsTable()
	namesake.Schema = "other"
	log.add(change{action: lockstep.Insert, row: row, table: addressed}, change{action: lockstep.Insert, row: row, table: namesake},
		change{action: lockstep.Insert, row: `{"id":5,"type":"a","subscriber":null,"payload":1}`})
	f.silent(s, log)
}

// With a sequence the higher id may commit first.
func TestALowerIDThatCommitsLaterComesAfterAHigherOne(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	log.add(event(3, "toto"))
	log.add(event(2, "toto"))
	log.add(event(7, "tata"))
	log.add(event(1, "toto"), event(5, "toto"))
	for lastID, want := range map[string]string{"3": "2 1 5 9", "2": "1 5 9", "1": "5 9", "5": "9", "7": "1 5 9"} {
		t.Run(lastID, func(t *testing.T) {
			f := follow(t, s, "toto", lastID, 0)
			if want != "9" {
				if got := f.ids(strings.Count(want, " ")); got+" 9" != want {
					t.Errorf("behind %s came %s, want %s", lastID, got, want)
				}
			}
			f.silent(s, log)
		})
	}
}

func TestAnIDThatIsNotThereIsToldAsAGap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lastID         string
		forget         uint64
		reason, behind string
	}{
		"never was":             {"99", 1, "unknown_id", "4 6"},
		"of another kind":       {"b2b5fc1e-7cd4-4c56-a6e1-9d2b1f2e5d3f", 1, "unknown_id", "4 6"},
		"cannot be an id":       {"4\n", 1, "unknown_id", "4 6"},
		"removed":               {"4", 4, "retention", "6"},
		"everything is removed": {"4", 6, "retention", ""},
		"all there is":          {"0", 3, "retention", "6"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := newLog()
			s := newServer(t, log, events.Limits{})
			log.add(event(4, "toto"))
			log.add(other(), event(5, "tata"))
			log.add(event(6, "toto"))
			log.add(other())
			log.forget(c.forget)
			f := follow(t, s, "toto", c.lastID, 0)
			e := f.next()
			first := `"first_id":null`
			switch {
			case c.forget == 1:
				first = `"first_id":"4"`
			case c.forget == 3:
				first = `"first_id":"5"`
			case c.behind != "":
				first = `"first_id":"6"`
			}
			if e.name != "gap" || e.id != "" || !strings.Contains(e.data, `"reason":"`+c.reason+`"`) || !strings.Contains(e.data, first) {
				t.Errorf("got %+v, want a gap, %s, with %s", e, c.reason, first)
			}
			if c.behind != "" {
				if got := f.ids(strings.Count(c.behind, " ") + 1); got != c.behind {
					t.Errorf("behind the gap came %s, want %s", got, c.behind)
				}
			}
			f.silent(s, log)
		})
	}
}

func TestZeroIsEverything(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	log.add(event(1, "toto"), event(2, "toto"))
	if got := follow(t, s, "toto", "0", 0).ids(2); got != "1 2" {
		t.Errorf("got %s, want 1 2 without a gap", got)
	}
}

// A client that is cut off before its first event goes on from where it began.
func TestASessionBeginsWithTheIDBeforeIt(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	log.add(event(8, "tata"))
	log.add(event(7, "tata"), other())
	f := follow(t, s, "toto", "", 0)
	if b := f.block(); len(b) != 1 || b[0] != "id: 7" {
		t.Fatalf("the stream begins with %q, want the newest id", b)
	}
	log.add(event(9, "toto"))
	if got := follow(t, s, "toto", "7", 0).ids(1) + f.ids(1); got != "99" {
		t.Errorf("got %s, want 9 in both", got)
	}
}

func TestRetentionAndDamageInFrontOfASessionAreTold(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	for id := range 9 {
		log.add(event(id+1, "toto"))
	}
	log.damage(5, 6)
	f := follow(t, s, "toto", "2", 0)
	if got := f.ids(2); got != "3 4" {
		t.Errorf("got %s, want 3 4", got)
	}
	if e := f.next(); e.name != "gap" || e.data != `{"reason":"damage","last_event_id":null,"first_id":"7","first_seq":7}` {
		t.Errorf("got %+v, want the damage", e)
	}
	if got := f.ids(3); got != "7 8 9" {
		t.Errorf("got %s, want 7 8 9", got)
	}
	log.forget(4)
	f = follow(t, s, "toto", "", 2)
	if e := f.next(); e.name != "gap" || !strings.Contains(e.data, `"reason":"retention"`) || !strings.Contains(e.data, `"first_id":"4"`) {
		t.Errorf("got %+v, want a gap of retention", e)
	}
}

// What is lost is told also where no event comes behind it.
func TestDamageAtTheEndIsTold(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	f := follow(t, s, "toto", "", 0)
	log.add(event(1, "toto"))
	f.ids(1)
	log.damage(2, 2)
	log.add(event(2, "toto"))
	log.add(other())
	if e := f.next(); e.name != "gap" || e.data != `{"reason":"damage","last_event_id":null,"first_id":null,"first_seq":3}` {
		t.Errorf("got %+v, want the damage", e)
	}
}

func TestAPlaceBehindTheLogIsAGap(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	log.add(event(1, "toto"))
	if got := follow(t, s, "toto", "", 77).ids(2); got != "gap 1" {
		t.Errorf("got %s, want a gap, and what there is", got)
	}
}

// What capture may have missed may have been an event.
func TestAGapOfCaptureIsTold(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	f := follow(t, s, "toto", "", 0)
	mark := change{action: lockstep.Gap, table: &lockstep.Table{Key: lockstep.KeyRow}, extra: `,"gap":{"state":"start","reason":"slot_lost"}`}
	theirs := change{action: lockstep.Gap, table: other().table, extra: `,"gap":{"state":"start","reason":"table_rewritten"}`}
	log.add(event(1, "toto"), theirs, mark, event(2, "toto"))
	if got := f.ids(1); got != "1" {
		t.Errorf("got %s", got)
	}
	if e := f.next(); e.name != "gap" || e.data != `{"state":"start","reason":"slot_lost"}` {
		t.Errorf("got %+v, want the mark", e)
	}
	if got := f.ids(1); got != "2" {
		t.Errorf("got %s", got)
	}
}

func TestATableWithoutTheColumnsIsTold(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	f := follow(t, s, "toto", "", 0)
	log.add(change{action: lockstep.Insert, row: `{"id":1,"type":"a","payload":{}}`}, change{action: lockstep.Insert, row: `{"id":2,"type":"a","payload":{}}`}, event(3, "toto"))
	if e := f.next(); e.name != "error" || !strings.Contains(e.data, "subscriber") || !strings.Contains(e.data, "public.events") {
		t.Errorf("got %+v, want what is wrong, once", e)
	}
	if got := f.ids(1); got != "3" {
		t.Errorf("got %s, want 3", got)
	}
}

// A session that takes nothing holds a bounded amount, and nobody else up. It goes on
// where it was.
func TestASlowSessionMissesNothing(t *testing.T) {
	t.Parallel()
	log := newLog()
	const limit = 4 << 10
	s := newServer(t, log, events.Limits{QueueBytes: limit})
	slow, quick := follow(t, s, "toto", "", 0), follow(t, s, "toto", "", 0)
	const n = 5000
	for id := range n {
		log.add(event(id+1, "toto"))
		if got := quick.next(); got.id != sentID(id+1) {
			t.Fatalf("the quick one got %s, want %d", got.id, id+1)
		}
	}
	if open, _, _ := log.readers(); open != 1 {
		t.Errorf("%d readers are open, want that of the quick session", open)
	}
	first := 0
	for id := range n {
		if id == 0 {
			parts, err := slow.session.Next(t.Context(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range parts {
				first += len(part)
				slow.text += string(part)
			}
		}
		if got := slow.next(); got.id != sentID(id+1) {
			t.Fatalf("the slow one got %s, want %d", got.id, id+1)
		}
	}
	if first > limit {
		t.Errorf("%d bytes waited, want at most %d", first, limit)
	}
	log.add(event(n+1, "toto"))
	if got := slow.ids(1) + quick.ids(1); got != sentID(n+1)+sentID(n+1) {
		t.Errorf("got %s", got)
	}
}

func sentID(n int) string { return strconv.Itoa(n) }

func TestAnEventLargerThanTheQueueFits(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{QueueBytes: 100})
	f := follow(t, s, "toto", "", 0)
	log.add(change{action: lockstep.Insert, row: `{"id":1,"type":"a","subscriber":"toto","payload":"` + strings.Repeat("x", 1<<20) + `"}`}, event(2, "toto"))
	if got := f.ids(2); got != "1 2" {
		t.Errorf("got %s", got)
	}
}

func TestTheNumberOfSessionsAndTablesIsBounded(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{Sessions: 3, Tables: 2})
	open := func(name string) (*events.Session, error) {
		return s.Open(events.Request{Database: "app", Table: events.Table{Schema: "public", Name: name}, Subscriber: "toto"})
	}
	a, err := open("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := open("b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("c"); !errors.Is(err, events.ErrFull) {
		t.Errorf("a third table: %v, want ErrFull", err)
	}
	a.Close()
	a.Close()
	if c, err := open("c"); err != nil {
		t.Errorf("a table in the place of one that nobody follows any more: %v", err)
	} else {
		defer c.Close()
	}
	again, err := open("b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("b"); !errors.Is(err, events.ErrFull) {
		t.Errorf("a fourth session: %v, want ErrFull", err)
	}
	b.Close()
	again.Close()
	if _, err := s.Open(events.Request{Database: "nope", Table: table(), Subscriber: "toto"}); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("an unknown database: %v", err)
	}
}

func TestTheEndOfTheServerEndsSessions(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := events.New(events.Config{Log: func(string) (events.Log, error) { return log, nil }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	f := follow(t, s, "toto", "", 0)
	log.add(event(1, "toto"))
	f.ids(1)
	cancel()
	if _, err := f.session.Next(t.Context(), time.Minute); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Next: %v, want the end", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := s.Open(events.Request{Database: "app", Table: table(), Subscriber: "toto"}); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Open behind the end: %v", err)
	}
}
