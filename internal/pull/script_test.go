package pull_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/pull"
	"lockstep/source"
)

// The place of a feed is saved before the first page of a backfill, and changes are
// followed while it runs.
func TestChangesAreFollowedDuringTheBackfill(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 1000)
	var wrong string
	b := newBench(t, "fake", f)
	b.config.Workers = 1
	gate := make(chan struct{})
	f.script(func(ctx context.Context, method, _ string, n int) error {
		if method != "backfill" {
			return nil
		}
		if n == 1 && len(b.query("SELECT FROM lockstep.sync_state WHERE collection = 'log' AND cursors ? 'change'")) != 1 {
			wrong = "the first page was asked for before the feed's place was saved"
		}
		if n == 3 {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return nil
	})
	e := b.run()
	e.eventually(t, "the third page", func() bool { return f.count("backfill thing") == 3 })
	f.set("thing", "t000001", "new")
	f.set("thing", "zzz", "new")
	e.eventually(t, "the changes", func() bool { return len(b.query("SELECT FROM fake.thing WHERE _raw ->> 'value' = 'new'")) == 2 })
	if s := e.Status(); s.State != pull.Backfilling {
		t.Errorf("the state is %s", s.State)
	}
	close(gate)
	f.same(b, e, "thing")
	if wrong != "" {
		t.Error(wrong)
	}
}

// A sweep deletes what is gone, and nothing that a list hides or that nobody may see.
func TestASweepDeletesWhatIsGoneOnly(t *testing.T) {
	t.Parallel()
	c := thing("thing")
	c.SweepEvery = 300 * time.Millisecond
	f := newFake(c)
	f.fill("thing", 400)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	f.vanish("thing", "t000003", "t000004")
	f.mu.Lock()
	f.objects["thing"]["t999999"] = "no event told of it"
	delete(f.sorted, "thing")
	f.shown = func(method, _, id string) bool { return method != "ids" || id != "t000007" } // hidden
	f.mu.Unlock()
	f.same(b, e, "thing")
	if c := e.collection(t, "fake:thing"); c.SweptAt.IsZero() || c.Deleted != 2 {
		t.Errorf("status %+v", c)
	}
	if n := f.count("get thing t000007"); n == 0 {
		t.Error("what was not listed was not asked for")
	}
	// Now nothing is listed, and the API does not say why: everything stays.
	f.mu.Lock()
	f.shown = func(method, _, _ string) bool { return method != "ids" }
	f.mu.Unlock()
	f.script(func(_ context.Context, method, _ string, _ int) error {
		if method == "get" {
			return refuse(source.Forbidden)
		}
		return nil
	})
	b.logged(t, "sweep thing held")
	f.same(b, e, "thing")
	f.mu.Lock()
	asked := 0
	for call, n := range f.calls {
		if strings.HasPrefix(call, "get") {
			asked += n
		}
	}
	sweeps := f.calls["ids thing"]
	f.mu.Unlock()
	if asked > 200*sweeps {
		t.Errorf("%d records were asked for in %d sweeps", asked, sweeps)
	}
}

// Without a request for one record the safety valve judges.
func TestASweepThatCannotAsk(t *testing.T) {
	t.Parallel()
	c := source.Collection{Name: "thing", Feed: "log", IDs: true, SweepEvery: 200 * time.Millisecond}
	f := newFake(c)
	f.fill("thing", 300)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	f.vanish("thing", "t000001")
	f.same(b, e, "thing")
	var most []string
	for id := range f.truth("thing") {
		most = append(most, id)
	}
	f.vanish("thing", most[:200]...)
	b.logged(t, "sweep thing held")
	if n := len(b.rows("thing")); n != 299 {
		t.Errorf("%d rows are left", n)
	}
}

// A sweep of many ids: all of them are gone, and memory stays small.
func TestASweepOfManyIDs(t *testing.T) {
	t.Parallel()
	const many = 100_000
	c := thing("thing")
	c.SweepEvery = 2 * time.Second
	f := newFake(c)
	f.page = 5000
	f.fill("thing", many)
	b := newBench(t, "fake", f)
	e := b.run()
	e.eventually(t, "the backfill", func() bool { return !e.Status().BackfilledAt.IsZero() })
	f.vanish("thing", "t000005")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	vanished := time.Now()
	e.eventually(t, "the sweep", func() bool { return e.collection(t, "fake:thing").SweptAt.After(vanished) })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	if n := b.query("SELECT count(*) FROM fake.thing")[0][0]; n != fmt.Sprint(many-1) {
		t.Errorf("%s rows", n)
	}
}

// Collections without a feed are read again, changes and deletions are found so.
func TestACollectionWithoutAFeed(t *testing.T) {
	t.Parallel()
	f := newFake(source.Collection{Name: "thing", Get: true, IDs: true, SweepEvery: 300 * time.Millisecond}, source.Collection{Name: "virtual", Virtual: true})
	f.fill("thing", 250)
	f.fill("virtual", 3)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	f.set("thing", "t000001", "new")
	f.set("thing", "zzz", "new")
	f.vanish("thing", "t000002")
	f.same(b, e, "thing", "virtual")
	for i := range 3 {
		f.set("thing", "t000001", fmt.Sprint(i))
		e.wait(t)
		if got := b.rows("thing")["t000001"]; !equal(got, body("t000001", fmt.Sprint(i))) {
			t.Fatalf("after a wait it is %s", got)
		}
	}
}

// One collection's trouble is its own.
func TestOneCollectionsTroubleIsItsOwn(t *testing.T) {
	t.Parallel()
	f := newFake(thing("good"), thing("forbidden"), thing("circle"), thing("refused"), thing("invalid"))
	for _, c := range f.list {
		f.fill(c.Name, 250)
	}
	f.script(func(_ context.Context, method, name string, _ int) error {
		switch {
		case method != "backfill":
			return nil
		case name == "forbidden":
			return refuse(source.Forbidden)
		case name == "refused":
			return refuse(source.Unauthorized) // there only
		case name == "invalid":
			return refuse(source.Invalid)
		}
		return nil
	})
	b := newBench(t, "fake", circling{f}, "good", "forbidden", "circle", "refused", "invalid", "unknown")
	e := b.run()
	f.same(b, e, "good")
	want := map[string]pull.State{"good": pull.Polling, "forbidden": pull.Blocked, "circle": pull.Failing, "refused": pull.Blocked, "invalid": pull.Failing, "unknown": pull.Blocked}
	e.eventually(t, "each state", func() bool {
		for name, state := range want {
			if c := e.collection(t, "fake:"+name); c.State != state || c.Reason == "" && state != pull.Polling {
				return false
			}
		}
		return true
	})
	f.set("good", "new", "new")
	f.same(b, e, "good")
	if n := f.count("backfill circle"); n > 200 {
		t.Errorf("a circle was gone round %d times", n)
	}
	f.script(nil)
	f.same(b, e, "good", "forbidden", "refused", "invalid")
}

// circling is a source with a list that goes in circles.
type circling struct{ *fake }

func (c circling) Backfill(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	page, err := c.fake.Backfill(ctx, collection, at)
	if collection == "circle" && page.Next == nil {
		page.Next = json.RawMessage(`"c000099"`)
	}
	return page, err
}

// A record that cannot be fetched holds up no feed; the others of its page are there.
func TestARecordThatCannotBeFetched(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"), thing("other"))
	f.fed = true
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	f.script(func(_ context.Context, method, name string, _ int) error {
		if method == "get" && name == "thing bad" {
			return refuse(source.Invalid)
		}
		return nil
	})
	for i := range 30 {
		f.set("thing", fmt.Sprint("good", i), "new")
	}
	f.set("thing", "bad", "new")
	f.set("other", "one", "new")
	f.same(b, e, "other", "thing") // bad by reading the list again
}

// A feed whose place is forgotten begins anew; the API that forgets it always is not
// asked in a loop.
func TestAFeedThatForgets(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 250)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	f.script(func(_ context.Context, method, _ string, _ int) error {
		if method == "changes" {
			return refuse(source.Restart)
		}
		return nil
	})
	_ = holds(time.Second, func() bool { return false })
	if n := f.count("changes log"); n > 60 {
		t.Errorf("it was asked %d times", n)
	}
	f.vanish("thing", "t000001")
	f.set("thing", "t000002", "new")
	f.script(nil)
	f.same(b, e, "thing")
	e.wait(t)
	if n := len(b.rows("thing")); n != 249 {
		t.Errorf("%d rows", n)
	}
}

// The trailing pass asks for what has settled, with a cursor of its own.
func TestTheTrailingPass(t *testing.T) {
	t.Parallel()
	c := thing("thing")
	c.Settle, c.Trailing = 50*time.Millisecond, 400*time.Millisecond
	f := newFake(c)
	b := newBench(t, "fake", f)
	e := b.run()
	f.set("thing", "a", "new")
	f.same(b, e, "thing")
	before := time.Now()
	f.set("thing", "b", "new")
	e.wait(t)
	if len(b.rows("thing")) != 2 {
		t.Errorf("the wait did not wait for the settling time: %s", time.Since(before))
	}
	e.eventually(t, "the trailing cursor", func() bool {
		got := b.query("SELECT cursors -> 'trailing', cursors -> 'change' FROM lockstep.sync_state WHERE collection = 'log'")
		return len(got) == 1 && got[0][0] == "2" && got[0][1] == "2"
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settles[c.Settle] == 0 || f.settles[c.Trailing] == 0 || len(f.settles) != 2 {
		t.Errorf("it was asked with settle %v", f.settles)
	}
}

// A table that was dropped is filled again, whatever is known of it.
func TestATableThatWasDropped(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 250)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	pgtest.Exec(t, b.url, "DROP TABLE fake.thing")
	f.set("thing", "t000001", "new")
	f.same(b, e, "thing")
	e.kill(t)
	pgtest.Exec(t, b.url, "DROP TABLE fake.thing")
	e = b.run()
	f.same(b, e, "thing")
}

// While Postgres is away the API is left alone.
func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 4000)
	f.page = 20
	refusing := make(chan struct{})
	f.script(func(ctx context.Context, method, _ string, n int) error {
		if method == "backfill" && n > 20 { // the rest comes when Postgres refuses
			select {
			case <-refusing:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	b := newBench(t, "fake", f)
	e := b.run()
	e.eventually(t, "a page", func() bool { return e.collection(t, "fake:thing").Records > 0 })
	pgtest.Exec(t, b.url, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '57P03'; END $$",
		"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON fake.thing FOR EACH STATEMENT EXECUTE FUNCTION refuse()")
	close(refusing)
	e.eventually(t, "trouble", func() bool { return e.collection(t, "fake:thing").State == pull.Failing })
	asked := f.count("backfill thing")
	_ = holds(500*time.Millisecond, func() bool { return false })
	if n := f.count("backfill thing") - asked; n > 15 {
		t.Errorf("%d pages were read meanwhile", n)
	}
	pgtest.Exec(t, b.url, "DROP TRIGGER refuse ON fake.thing")
	f.same(b, e, "thing")
}

// A sync at rest writes nothing.
func TestASyncAtRestWritesNothing(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t, nil)
	if err := cluster.CreateDatabase(t.Context(), "rest"); err != nil {
		t.Fatal(err)
	}
	f := newFake(thing("thing"))
	f.fill("thing", 500)
	b := benchAt(t, cluster.URL("rest"), "fake", f)
	e := b.run()
	e.wait(t)
	e.becomes(t, pull.Polling)
	wal := func() string { return b.query("SELECT pg_current_wal_insert_lsn()")[0][0] }
	e.eventually(t, "rest", func() bool {
		before := wal()
		polls := f.count("changes log")
		for f.count("changes log") < polls+10 && holds(time.Second, func() bool { return f.count("changes log") >= polls+10 }) {
			continue
		}
		return wal() == before
	})
}

// Hints are bounded and deduplicated; where a record cannot be fetched, the feed is
// polled.
func TestManyHints(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"), source.Collection{Name: "other", Feed: "others"})
	b := newBench(t, "fake", f)
	b.config.Every = time.Hour
	e := b.run()
	e.wait(t)
	gate := make(chan struct{})
	f.script(func(ctx context.Context, method, _ string, _ int) error {
		if method == "get" {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return nil
	})
	var hints []source.Record
	for i := range 9000 {
		hints = append(hints, source.Record{Collection: "thing", ID: fmt.Sprint(i)})
	}
	if err := e.Hint(t.Context(), hints); err != nil {
		t.Fatal(err)
	}
	if err := e.Hint(t.Context(), hints); err != nil {
		t.Errorf("the same hints again: %v", err)
	}
	for i := range hints {
		hints[i].ID += "x"
	}
	if err := e.Hint(t.Context(), hints); err == nil {
		t.Error("18,000 hints were taken")
	}
	polls := f.count("changes others")
	if err := e.Hint(t.Context(), []source.Record{{Collection: "other", ID: "x"}}); err != nil {
		t.Fatal(err)
	}
	e.eventually(t, "a poll", func() bool { return f.count("changes others") > polls })
	close(gate)
	e.eventually(t, "the last", func() bool { return f.count("get thing 8999") > 0 })
}

// A resync is done even if the engine ends right after it was asked for.
func TestAResyncSurvives(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 250)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	pgtest.Exec(t, b.url, "DELETE FROM fake.thing WHERE id < 't000100'")
	f.vanish("thing", "t000200")
	if err := e.Resync(t.Context(), []string{"thing"}); err != nil {
		t.Fatal(err)
	}
	e.kill(t)
	e = b.run()
	f.same(b, e, "thing")
	if err := e.Resync(t.Context(), []string{"nothing"}); err == nil {
		t.Error("an unknown collection was resynced")
	}
	if !slices.Contains(b.log(), "sweep thing completed") {
		t.Error("deletions were not looked for")
	}
}

// Two contents of one version: the record itself is asked for when it has settled.
func TestADoubtfulRecordIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 10)
	f.version, f.rank = time.Now().Add(-time.Hour), source.RankEvent
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	f.set("thing", "t000001", "new") // an event counts less than a list of the same version
	f.same(b, e, "thing")
	if f.count("get thing t000001") == 0 {
		t.Error("it was not asked for")
	}
}
