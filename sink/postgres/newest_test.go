package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sink"
)

// guards are the two places of a row's seq.
func guards() []Guard { return []Guard{GuardColumn, GuardTable} }

const ordersDDL = `CREATE TABLE orders (id bigint PRIMARY KEY, a text, b text)`

const ordersSQL = `SELECT id, a, b FROM orders ORDER BY id`

// orders opens a sink for an empty public.orders.
func orders(t testing.TB, c Config) (*Postgres, string) {
	t.Helper()
	c.URL = pgtest.Database(t)
	pgtest.Exec(t, c.URL, ordersDDL)
	return open(t, c), c.URL
}

func TestOldChangesChangeNothing(t *testing.T) {
	t.Parallel()
	for _, guard := range guards() {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			p, url := orders(t, Config{Guard: guard})
			first, second := upsert(1, `{"id":1,"a":"old"}`), upsert(2, `{"id":1,"a":"new"}`)
			write(t, p, first)
			write(t, p, second)
			write(t, p, first)
			same(t, rows(t, url, ordersSQL), "1 new NULL")
			write(t, p, remove(3, `{"id":1}`))
			write(t, p, first, second)
			write(t, p, second)
			same(t, rows(t, url, ordersSQL), "")
			write(t, p, change(4, lockstep.Insert, `{"id":1,"a":"again"}`))
			write(t, p, remove(3, `{"id":1}`))
			same(t, rows(t, url, ordersSQL), "1 again NULL")
			other := open(t, Config{URL: url, Guard: guard}) // a process that knows nothing
			write(t, other, first, second, remove(3, `{"id":1}`))
			same(t, rows(t, url, ordersSQL), "1 again NULL")
		})
	}
}

// TestAnyRedeliveryEndsAsTheLog delivers a random log in random pieces, of which some
// come again, through two sinks, and compares with what the log says.
func TestAnyRedeliveryEndsAsTheLog(t *testing.T) {
	t.Parallel()
	for _, guard := range guards() {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(guard, seed), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, 5))
				p, url := orders(t, Config{Guard: guard, Truncate: true})
				sinks := []*Postgres{p, open(t, Config{URL: url, Guard: guard, Truncate: true})}
				log, want := history(random, 120)
				for at := 0; at < len(log); {
					if random.IntN(3) == 0 && at > 0 { // a replay
						from := random.IntN(at)
						write(t, sinks[random.IntN(2)], log[from:min(at, from+random.IntN(30)+1)]...)
						continue
					}
					n := min(1+random.IntN(20), len(log)-at)
					write(t, sinks[random.IntN(2)], log[at:at+n]...)
					at += n
				}
				same(t, rows(t, url, ordersSQL), want)
			})
		}
	}
}

// history makes a log of changes of few rows, and says what it ends in. Updates may
// leave b out: it was not sent, and stays.
func history(random *rand.Rand, n int) (log []sink.Message, want string) {
	type state struct{ a, b string }
	table := map[int]state{}
	for i := range n {
		seq, id := uint64(i+1), random.IntN(6)
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		old, there := table[id]
		switch k := random.IntN(20); {
		case k == 0:
			clear(table)
			log = append(log, change(seq, lockstep.Truncate, ""))
		case k < 5:
			delete(table, id)
			log = append(log, remove(seq, fmt.Sprintf(`{"id":%d}`, id)))
		case k < 12 && there:
			table[id] = state{a, old.b}
			log = append(log, upsert(seq, fmt.Sprintf(`{"id":%d,"a":%q}`, id, a)))
		default:
			table[id] = state{a, b}
			log = append(log, upsert(seq, fmt.Sprintf(`{"id":%d,"a":%q,"b":%q}`, id, a, b)))
		}
	}
	var lines []string
	for id := range 6 {
		if s, ok := table[id]; ok {
			lines = append(lines, fmt.Sprintf("%d %s %s", id, s.a, s.b))
		}
	}
	for i, l := range lines {
		if i > 0 {
			want += "\n"
		}
		want += l
	}
	return log, want
}

// TestADeleteWinsOverAWriteThatIsStillRunning: a process that is dead to us has a
// statement running, which began before the delete and ends after it.
func TestADeleteWinsOverAWriteThatIsStillRunning(t *testing.T) {
	t.Parallel()
	for _, guard := range guards() {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			p, url := orders(t, Config{Guard: guard})
			write(t, p, upsert(1, `{"id":9}`)) // definitions are read
			// The old write stops within its statement, when it inserts the row.
			pgtest.Exec(t, url, `CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN new; END $$`,
				`CREATE TRIGGER stop BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stop()`)
			holder := hold(t, url)
			old := open(t, Config{URL: url, Guard: guard})
			var running sync.WaitGroup
			running.Go(func() { write(t, old, upsert(2, `{"id":1,"a":"old"}`)) })
			waiting := func(n string) func() bool {
				return func() bool {
					return rows(t, url, `SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == n
				}
			}
			pgtest.Eventually(t, wait, "the old write to stop", waiting("1"))
			running.Go(func() { write(t, p, remove(3, `{"id":1}`)) })
			if guard == GuardColumn {
				pgtest.Eventually(t, wait, "the delete to wait", waiting("2"))
			}
			holder()
			running.Wait()
			same(t, rows(t, url, ordersSQL), "9 NULL NULL")
		})
	}
}

const wait = 10e9

// hold takes a lock until it is released.
func hold(t *testing.T, url string) (release func()) {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "SELECT pg_advisory_lock(42)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	return func() { _ = c.Close(context.Background()) }
}

func TestOneCallHoldsManyChangesOfAKey(t *testing.T) {
	t.Parallel()
	for _, guard := range guards() {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			p, url := orders(t, Config{Guard: guard})
			write(t, p,
				upsert(1, `{"id":1,"a":"a1","b":"b1"}`), upsert(2, `{"id":1,"a":"a2"}`), upsert(3, `{"id":2,"a":"x"}`),
				remove(4, `{"id":2}`), remove(5, `{"id":3}`), upsert(6, `{"id":3,"a":"back"}`))
			same(t, rows(t, url, ordersSQL), "1 a2 b1\n3 back NULL")
			if c := p.Counts(); c.Merged != 3 {
				t.Errorf("got %+v, want 3 merged", c)
			}
		})
	}
}

// TestKeysThatOnlyPostgresKnowsAsEqual: the texts differ, the values do not.
func TestKeysThatOnlyPostgresKnowsAsEqual(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id numeric PRIMARY KEY, a text)`)
	p := open(t, Config{URL: url, Guard: GuardColumn})
	write(t, p, upsert(1, `{"id":"1.0","a":"old"}`), upsert(2, `{"id":"1.00","a":"new"}`), upsert(3, `{"id":"2","a":"x"}`))
	same(t, rows(t, url, `SELECT id::int, a FROM orders ORDER BY id`), "1 new\n2 x")
}

// TestValuesThatChangeHands: what is unique moves from row to row.
func TestValuesThatChangeHands(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, a text UNIQUE)`)
	p := open(t, Config{URL: url})
	write(t, p, upsert(1, `{"id":1,"a":"x"}`), upsert(2, `{"id":2,"a":"y"}`))
	write(t, p, upsert(3, `{"id":1,"a":"z"}`), upsert(4, `{"id":2,"a":"x"}`), upsert(5, `{"id":1,"a":"y"}`))
	write(t, p, remove(6, `{"id":2}`), upsert(7, `{"id":3,"a":"x"}`))
	write(t, p, upsert(8, `{"id":4,"a":"w"}`), upsert(9, `{"id":3,"a":"v"}`), upsert(10, `{"id":5,"a":"x"}`))
	same(t, rows(t, url, `SELECT id, a FROM orders ORDER BY id`), "1 y\n3 v\n4 w\n5 x")
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	for _, guard := range guards() {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			p, url := orders(t, Config{Guard: guard, Truncate: true})
			before := []sink.Message{upsert(1, `{"id":1,"a":"x"}`), upsert(2, `{"id":2,"a":"y"}`), remove(3, `{"id":3}`)}
			empty, after := change(4, lockstep.Truncate, ""), upsert(5, `{"id":2,"a":"z"}`)
			write(t, p, append(slices.Clone(before), empty, after)...)
			same(t, rows(t, url, ordersSQL), "2 z NULL")
			write(t, p, before...)
			write(t, p, empty)
			same(t, rows(t, url, ordersSQL), "2 z NULL")
		})
	}
	p, url := orders(t, Config{})
	write(t, p, upsert(1, `{"id":1}`), change(2, lockstep.Truncate, ""), change(3, lockstep.Gap, ""))
	same(t, rows(t, url, ordersSQL), "1 NULL NULL")
	if c := p.Counts(); c.Ignored != 2 {
		t.Errorf("got %+v, want 2 ignored", c)
	}
}

func TestDeletedRowsAreForgottenInTime(t *testing.T) {
	t.Parallel()
	p, url := orders(t, Config{Guard: GuardTable})
	write(t, p, upsert(1, `{"id":1}`), upsert(2, `{"id":2}`), remove(3, `{"id":3}`))
	pgtest.Exec(t, url, `UPDATE lockstep_sink_position SET gone_at = gone_at - interval '9 days'`)
	fresh := open(t, Config{URL: url})
	write(t, fresh, remove(4, `{"id":2}`))
	same(t, rows(t, url, `SELECT count(*), count(gone_at) FROM lockstep_sink_position`), "2 1")
}
