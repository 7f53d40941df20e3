package mirror_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/mirror"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/source"
)

// day is when the tests' records change.
func day(seconds int) time.Time {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seconds) * time.Second)
}

// customers is a collection with declared fields.
func customers() source.Collection {
	return source.Collection{Name: "customer", Volatile: []string{"seen", "links.url"}, Fields: []source.Field{
		{Name: "id", Type: source.Text},
		{Name: "email", Type: source.Text},
		{Name: "balance", Type: source.Integer},
		{Name: "rate", Type: source.Numeric},
		{Name: "created", Type: source.Unix},
		{Name: "address", Type: source.JSON},
		{Name: "city", Path: "address.city", Type: source.Text},
	}}
}

// anything is a collection whose fields are discovered.
func anything() source.Collection { return source.Collection{Name: "thing"} }

// fixture is a mirror over a database of its own.
type fixture struct {
	*mirror.Mirror
	t    testing.TB
	url  string
	pool *pgxpool.Pool
	id   string
	stop func() // ends the engine
}

func newFixture(t testing.TB, collections ...source.Collection) *fixture {
	t.Helper()
	return fixtureAt(t, pgtest.Database(t), collections...)
}

func fixtureAt(t testing.TB, url string, collections ...source.Collection) *fixture {
	t.Helper()
	if err := pgdb.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, url: url, id: uuid.NewString()}
	f.open()
	f.prepare(collections...)
	return f
}

// open opens the mirror and takes its lock, as an engine that starts does.
func (f *fixture) open() {
	f.t.Helper()
	pool, err := pgdb.Open(f.t.Context(), f.url, "test")
	if err != nil {
		f.t.Fatal(err)
	}
	f.pool = pool
	f.Mirror, err = mirror.Open(f.t.Context(), mirror.Config{Pool: pool, Sync: f.id, Name: "acme", Provider: "api"})
	if err != nil {
		pool.Close()
		f.t.Fatal(err)
	}
	unlock, err := f.Lock(f.t.Context())
	if err != nil {
		pool.Close()
		f.t.Fatal(err)
	}
	f.stop = sync.OnceFunc(func() { unlock(); pool.Close() })
	f.t.Cleanup(f.stop)
}

// restart ends the engine and begins another.
func (f *fixture) restart(collections ...source.Collection) {
	f.t.Helper()
	f.stop()
	f.open()
	f.prepare(collections...)
}

func (f *fixture) prepare(collections ...source.Collection) {
	f.t.Helper()
	if err := f.Prepare(f.t.Context(), collections); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) apply(c mirror.Change) mirror.Result {
	f.t.Helper()
	r, err := f.Apply(f.t.Context(), c)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// put applies records of one collection, read at a second of the day.
func (f *fixture) put(collection string, at int, records ...source.Record) mirror.Result {
	f.t.Helper()
	return f.apply(mirror.Change{Collection: collection, Records: records, At: day(at)})
}

func (f *fixture) query(sql string, args ...any) [][]string {
	f.t.Helper()
	return pgtest.Query(f.t, f.url, sql, args...)
}

func (f *fixture) want(sql string, rows ...[]string) {
	f.t.Helper()
	got := f.query(sql)
	if len(got) == 0 && len(rows) == 0 {
		return
	}
	if diff := cmp.Diff(rows, got); diff != "" {
		f.t.Errorf("%s (-want +got):\n%s", sql, diff)
	}
}

// eventually waits until a query gives the one value.
func (f *fixture) eventually(sql, want string) {
	f.t.Helper()
	pgtest.Eventually(f.t, 30*time.Second, sql+" = "+want, func() bool {
		got := f.query(sql)
		return len(got) == 1 && got[0][0] == want
	})
}

func (f *fixture) result(got, want mirror.Result) {
	f.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("result (-want +got):\n%s", diff)
	}
}

// record is one that was listed, changed at a second of the day (0: not said).
func record(id string, version int, data string) source.Record {
	r := source.Record{ID: id, Rank: source.RankList, Data: json.RawMessage(data)}
	if version != 0 {
		r.Version = day(version)
	}
	return r
}

// gone is a deletion, told with a time (0: found out by asking).
func gone(id string, version int) source.Record {
	r := source.Record{ID: id, Deleted: true, Reason: "event"}
	if version != 0 {
		r.Version = day(version)
	} else {
		r.Reason = "not_found"
	}
	return r
}

func row(values ...string) []string { return values }

func customer(id string, version, balance int) source.Record {
	return record(id, version, fmt.Sprintf(`{"id":%q,"email":"%s@example.com","balance":%d,"rate":1.10,"created":1700000000,"address":{"city":"Ulm"}}`, id, id, balance))
}

// compact is a uuid without its dashes.
func compact(id string) string { return strings.ReplaceAll(id, "-", "") }

// as is the URL with another user.
func as(t testing.TB, database, user string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}
