package mirror_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/source"
)

func TestApplyFillsTypedColumns(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	r := customer("cus_1", 5, 12345678901234567)
	r.Created = day(1)
	f.result(f.put("customer", 10, r), mirror.Result{Inserted: 1})
	f.want(`SELECT id, email, balance, rate, created AT TIME ZONE 'UTC', address, city, _created_at AT TIME ZONE 'UTC', _updated_at AT TIME ZONE 'UTC',
		_synced_at AT TIME ZONE 'UTC', _rank, length(_fingerprint), _raw ->> 'rate', _notes FROM api.customer`,
		row("cus_1", "cus_1@example.com", "12345678901234567", "1.10", "2023-11-14 22:13:20", `{"city": "Ulm"}`, "Ulm",
			"2026-11-01 00:00:01", "2026-11-01 00:00:05", "2026-11-01 00:00:10", "2", "16", "1.10", "NULL"))
	f.result(f.put("customer", 20, customer("cus_1", 15, 2)), mirror.Result{Updated: 1})
	f.want("SELECT balance, _created_at IS NOT NULL FROM api.customer", row("2", "t"))
}

func TestRowsCursorsAndLogCommitTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	_, err := f.Apply(t.Context(), mirror.Change{Collection: "customer", Records: []source.Record{customer("a", 1, 1)},
		States: []mirror.State{{Name: "nameless", Cursor: json.RawMessage(`1`)}}})
	if !errors.Is(err, lockstep.ErrInvalid) {
		t.Fatalf("got %v, want ErrInvalid for the state's name", err)
	}
	f.want("SELECT id FROM api.customer")
	f.apply(mirror.Change{Collection: "customer", Records: []source.Record{customer("a", 1, 1)},
		States:  []mirror.State{{Name: "backfill:customer", Cursor: json.RawMessage(`{"after":"a"}`)}, {Name: "change:events", Cursor: json.RawMessage(`"evt_1"`)}},
		Entries: []mirror.Entry{{Kind: "backfill", Collection: "customer", Outcome: "started"}}})
	states, err := f.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]json.RawMessage{"backfill:customer": json.RawMessage(`{"after": "a"}`), "change:events": json.RawMessage(`"evt_1"`)}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	f.want("SELECT kind, collection, outcome FROM lockstep.sync_log WHERE kind = 'backfill'", row("backfill", "customer", "started"))
	f.apply(mirror.Change{States: []mirror.State{{Name: "backfill:customer"}}})
	if states, _ = f.States(t.Context()); len(states) != 1 {
		t.Errorf("the state was not forgotten: %v", states)
	}
}

// Nothing is written for what is there, not even a transaction's end.
func TestEqualPagesWriteNoWAL(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t, map[string]string{"wal_level": "logical"})
	if err := cluster.CreateDatabase(t.Context(), "mirror"); err != nil {
		t.Fatal(err)
	}
	f := fixtureAt(t, cluster.URL("mirror"), customers())
	var page []source.Record
	for i := range 500 {
		page = append(page, customer(fmt.Sprint("cus_", i), 5, i))
	}
	page = append(page, gone("cus_gone", 3))
	change := mirror.Change{Collection: "customer", Records: page, At: day(10), States: []mirror.State{{Name: "change:events", Cursor: json.RawMessage(`{"at":"x"}`)}}}
	f.apply(change)
	f.apply(change)
	f.query("CHECKPOINT")
	again := func() {
		for range 20 {
			if r := f.apply(change); r.Unchanged != len(page) {
				t.Fatalf("got %+v, want %d unchanged", r, len(page))
			}
		}
	}
	again() // the server's own doings after the first pages, such as hint bits, come to rest
	before := f.wal()
	again()
	// Key order, white space, escapes and volatile values do not count.
	reordered := record("cus_7", 5, `{"balance":7, "created":1700000000,"email":"cus\u005f7@example.com","rate":1.10,"seen":99,"id":"cus_7","address":{"city":"Ulm"}}`)
	f.result(f.put("customer", 11, reordered), mirror.Result{Unchanged: 1})
	if after := f.wal(); after != before {
		t.Errorf("21 pages that changed nothing wrote WAL from %s to %s", before, after)
	}
}

// wal is the end of the WAL, when the server's own writing has come to rest.
func (f *fixture) wal() string {
	f.t.Helper()
	return f.query("SELECT pg_current_wal_insert_lsn()")[0][0]
}

func TestOnePageMayHoldARecordTwiceAndManyCollections(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers(), anything())
	thing := record("t1", 1, `{"id":"t1","name":"x"}`)
	thing.Collection = "thing"
	r := f.put("customer", 10, customer("a", 3, 3), customer("a", 5, 5), customer("a", 4, 4), thing, gone("b", 7), customer("b", 6, 1))
	f.result(r, mirror.Result{Inserted: 2, Stale: 3, Unchanged: 1})
	f.want("SELECT id, balance FROM api.customer", row("a", "5"))
	f.want("SELECT id, name FROM api.thing", row("t1", "x"))
}

func TestAHintWithoutDataIsNoTruth(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 1, customer("a", 1, 1))
	f.result(f.put("customer", 9, source.Record{ID: "a", Version: day(8)}), mirror.Result{})
	f.want("SELECT balance FROM api.customer", row("1"))
}

func TestOrderOfVersions(t *testing.T) {
	t.Parallel()
	event := func(r source.Record) source.Record { r.Rank = source.RankEvent; return r }
	object := func(r source.Record) source.Record { r.Rank = source.RankObject; return r }
	type step struct {
		at     int
		record source.Record
	}
	for name, c := range map[string]struct {
		steps []step
		want  string // the balance; empty: no row
	}{
		"an older version is stale":                  {[]step{{10, customer("a", 5, 5)}, {20, customer("a", 4, 4)}}, "5"},
		"of one version the better look wins":        {[]step{{10, customer("a", 5, 1)}, {20, event(customer("a", 5, 2))}, {30, object(customer("a", 5, 3))}, {40, customer("a", 5, 4)}}, "3"},
		"of one version and rank the later one wins": {[]step{{20, customer("a", 5, 2)}, {10, customer("a", 5, 1)}}, "2"},
		"without versions the later look wins":       {[]step{{20, customer("a", 0, 2)}, {10, customer("a", 0, 1)}, {30, customer("a", 0, 3)}}, "3"},
		"a later look that found no change counts":   {[]step{{10, customer("a", 0, 1)}, {30, customer("a", 0, 1)}, {20, customer("a", 0, 2)}}, "1"},
		"a version before a later look is stale":     {[]step{{20, customer("a", 0, 2)}, {19, event(customer("a", 15, 1))}}, "2"},
		"a version after a look is newer":            {[]step{{20, customer("a", 0, 2)}, {30, event(customer("a", 25, 3))}}, "3"},
		"a version of the future does not stick":     {[]step{{10, customer("a", 400*24*3600, 1)}, {20, customer("a", 15, 2)}}, "2"},
		"a deletion beats an older update":           {[]step{{30, gone("a", 20)}, {31, customer("a", 10, 1)}, {40, object(customer("a", 19, 2))}}, ""},
		"a deletion beats an update of its second":   {[]step{{10, customer("a", 20, 1)}, {30, gone("a", 20)}}, ""},
		"an old deletion is stale":                   {[]step{{30, customer("a", 25, 1)}, {31, gone("a", 20)}}, "1"},
		"a newer version is alive again":             {[]step{{30, gone("a", 20)}, {31, customer("a", 21, 1)}}, "1"},
		"not found, then listed again":               {[]step{{10, customer("a", 5, 1)}, {20, gone("a", 0)}, {30, customer("a", 5, 2)}}, "2"},
		"not found, then an old page comes":          {[]step{{20, gone("a", 0)}, {15, customer("a", 5, 1)}}, ""},
		"not found, then an old event comes":         {[]step{{20, gone("a", 0)}, {30, event(customer("a", 5, 1))}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, customers())
			for _, s := range c.steps {
				f.put("customer", s.at, s.record)
			}
			got := f.query("SELECT balance FROM api.customer")
			if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || got[0][0] != c.want) {
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
}

func TestRepairOverrulesVersionsButNotLaterLooks(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 10, customer("a", 9, 9), customer("b", 9, 9))
	f.put("customer", 30, customer("b", 25, 25))
	repair := mirror.Change{Collection: "customer", Records: []source.Record{customer("a", 3, 3), customer("b", 3, 3)}, At: day(20), Repair: true}
	f.result(f.apply(repair), mirror.Result{Updated: 1, Stale: 1})
	f.want("SELECT id, balance FROM api.customer ORDER BY id", row("a", "3"), row("b", "25"))
}

func TestDoubtfulRecordsAreNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 10, customer("a", 9, 1))
	r := f.put("customer", 11, customer("a", 9, 2))
	f.result(r, mirror.Result{Updated: 1, Doubtful: []source.Record{{Collection: "customer", ID: "a"}}})
}

func TestSweepStopsAtTheValve(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	var page []source.Record
	for i := range 200 {
		page = append(page, customer(fmt.Sprintf("c%03d", i), 5, i))
	}
	f.put("customer", 10, page...)
	missing := func(n int) mirror.Change {
		s := mirror.Missing{Collection: "customer", Started: day(100)}
		for i := range n {
			s.IDs = append(s.IDs, fmt.Sprintf("c%03d", i))
		}
		return mirror.Change{Missing: []mirror.Missing{s}, At: day(110)}
	}
	f.result(f.apply(missing(51)), mirror.Result{Held: 51})
	f.want("SELECT count(*) FROM api.customer", row("200"))
	f.want("SELECT collection, outcome FROM lockstep.sync_log WHERE kind = 'sweep'", row("customer", "held"))
	f.result(f.apply(missing(50)), mirror.Result{Deleted: 50})
	f.want("SELECT count(*), min(reason) FROM lockstep.tombstone", row("50", "sweep"))
	f.result(f.apply(missing(50)), mirror.Result{})
	f.result(f.put("customer", 120, customer("c001", 5, 1)), mirror.Result{Resurrected: 1})
	f.want("SELECT count(*) FROM lockstep.tombstone", row("49"))
}

func TestSweepKeepsWhatCameSinceItBegan(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 10, customer("old", 5, 1))
	f.put("customer", 100, customer("read", 0, 1), customer("new", 105, 1))
	sweep := mirror.Missing{Collection: "customer", IDs: []string{"old", "read", "new", "unknown"}, Started: day(100)}
	f.result(f.apply(mirror.Change{Missing: []mirror.Missing{sweep}, At: day(110)}), mirror.Result{Deleted: 1})
	f.want("SELECT id FROM api.customer ORDER BY id", row("new"), row("read"))
}

func TestIdsAreExact(t *testing.T) {
	t.Parallel()
	numbered := source.Collection{Name: "issue", Fields: []source.Field{{Name: "id", Type: source.Integer}, {Name: "n", Type: source.Integer}}}
	f := newFixture(t, anything(), numbered)
	f.put("thing", 1, record("a", 1, `{"v":1}`), record("A", 1, `{"v":2}`), record("9007199254740993", 1, `{"v":3}`))
	f.want("SELECT id, v FROM api.thing ORDER BY id", row("9007199254740993", "3"), row("A", "2"), row("a", "1"))
	r := f.put("issue", 1, record("9007199254740993", 1, `{"n":1}`), record("20", 1, `{"n":2}`), record("I_kw", 1, `{"n":3}`))
	f.result(r, mirror.Result{Inserted: 2, Parked: 1})
	f.want("SELECT id, n FROM api.issue ORDER BY id", row("20", "2"), row("9007199254740993", "1"))
	rows, err := f.Rows(t.Context(), "issue", "20", 10)
	if err != nil || len(rows) != 1 || rows[0].ID != "9007199254740993" {
		t.Errorf("rows after 20: %v, %v", rows, err)
	}
}

func TestRowsForVerify(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	a, b := customer("a", 5, 1), customer("B", 0, 2)
	f.put("customer", 10, a, b)
	rows, err := f.Rows(t.Context(), "customer", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	want := []mirror.Row{{ID: "B", SyncedAt: day(10)}, {ID: "a", Version: day(5), SyncedAt: day(10)}}
	for i, r := range []source.Record{b, a} {
		r.Collection = "customer"
		if want[i].Fingerprint, err = f.Fingerprint(r); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestApplyNeedsPreparedCollections(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	_, err := f.Apply(t.Context(), mirror.Change{Collection: "other", Records: []source.Record{record("a", 1, `{}`)}})
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "other") {
		t.Errorf("got %v, want ErrInvalid naming the collection", err)
	}
}
