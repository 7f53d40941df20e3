package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/stream"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The tests of this file run the routes against the real stream, deliveries and
// Postgres.

type streamLog struct{ *stream.Log }

func (l streamLog) Reader(from uint64) deliver.Reader { return l.Log.Reader(from) }

type letters struct{ *stream.Dead }

func (d letters) Put(ctx context.Context, c string, l deliver.Letter) error {
	return d.Dead.Put(ctx, c, stream.Letter(l))
}

func (d letters) Get(ctx context.Context, c string, seq uint64) (deliver.Letter, error) {
	l, err := d.Dead.Get(ctx, c, seq)
	return deliver.Letter(l), err
}

func (d letters) List(ctx context.Context, c string, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := d.Dead.List(ctx, c, after, limit)
	out := make([]deliver.Letter, len(found))
	for i, l := range found {
		out[i] = deliver.Letter(l)
	}
	return out, next, err
}

// real is a node of real parts, served on a port.
type real struct {
	t    testing.TB
	api  *api.API
	log  *stream.Log
	base string
	pool *pgxpool.Pool
	lsn  lockstep.LSN
}

func newReal(t testing.TB) *real {
	t.Helper()
	url := pgtest.Database(t)
	if err := pgdb.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgdb.Open(t.Context(), url, "api_test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r := &real{t: t, pool: pool}
	server, err := stream.Open(t.Context(), stream.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.log, err = server.Log(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.log.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.serve(r.broker(server))
	return r
}

func (r *real) broker(server *stream.Server) *deliver.Broker {
	r.t.Helper()
	states, err := server.States(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	dead, err := server.Dead(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	b := deliver.New(deliver.Config{
		Logs:   func(context.Context, string) (deliver.Log, error) { return streamLog{r.log}, nil },
		States: states, Dead: letters{dead}, Secret: bytes.Repeat([]byte("s"), 32),
		Mirrored: mirroredPulls,
	})
	r.run(b.Run)
	return b
}

// run runs f until the test ends.
func (r *real) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.t.Error(err)
		}
	})
}

func (r *real) serve(b *deliver.Broker) {
	r.t.Helper()
	tokens, err := auth.Open(auth.Config{Store: auth.Postgres{Pool: r.pool}})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := tokens.Load(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.api, err = api.New(api.Config{
		Tokens:    tokens,
		Consumers: &api.Registry{Broker: api.Deliver(b), Store: api.Postgres{Pool: r.pool}},
		Databases: func() []api.Database { return []api.Database{{Name: "app", Log: api.LogOf(r.log)}} },
		Audit:     api.Postgres{Pool: r.pool}, Backfills: &memBackfills{}, Mirrored: mirroredPulls,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := r.api.Listen(r.t.Context(), "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.base = "http://" + l.Addr().String()
	r.run((&api.Server{API: r.api, Listener: l}).Run)
}

// commit appends a transaction of inserts into public.orders, one per key.
func (r *real) commit(keys ...int) {
	r.t.Helper()
	var w lockstep.BatchWriter
	w.Reset(nil)
	table := &lockstep.Table{OID: 1, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}
	r.lsn += 100
	w.Begin(lockstep.Tx{CommitLSN: r.lsn, CommitTime: time.Now().UnixMicro(), XID: 7})
	number := w.Table(table)
	for i, key := range keys {
		row := fmt.Sprintf(`{"id":%d,"amount":"12.50","note":  "kept as it is"}`, key)
		pks := fmt.Sprintf(`["%d"]`, key)
		buf := append(append(w.Open(), row...), pks...)
		w.Close(buf, lockstep.RecordHead{
			Action: lockstep.Insert, Table: number, CommitIdx: uint32(i), RecordLen: len(row), PKsLen: len(pks),
			KeyHash: lockstep.KeyHashPart(lockstep.KeyHash(table), strconv.AppendInt(nil, int64(key), 10)),
		})
	}
	done := make(chan error, 1)
	mark := lockstep.Mark{SystemID: 1, Timeline: 1, CommitLSN: r.lsn, Ordinal: uint32(len(keys)), CommitIdx: uint32(len(keys) - 1), EndLSN: r.lsn + 8, Complete: true}
	if err := r.log.Append(r.t.Context(), &w, mark, func(err error) { done <- err }); err != nil {
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

func (r *real) do(method, target, body string) response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+target, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer w.Body.Close()
	data, err := io.ReadAll(w.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{w.StatusCode, w.Header, string(data)}
}

type taken struct {
	Data []struct {
		Token    string `json:"ack_token"`
		Attempt  int
		Record   json.RawMessage
		Metadata struct {
			Seq      uint64
			PKs      []string `json:"record_pks"`
			Consumer struct{ ID, Name string }
		}
	}
	Info struct {
		Pending    int `json:"num_pending"`
		AckPending int `json:"num_ack_pending"`
	}
}

func (k taken) tokens() string {
	var out []string
	for _, d := range k.Data {
		out = append(out, strconv.Quote(d.Token))
	}
	return "[" + strings.Join(out, ",") + "]"
}

func (r *real) next(query string) taken {
	r.t.Helper()
	got := r.do("GET", "/v1/http-consumers/orders/next?"+query, "")
	if got.status != 200 {
		r.t.Fatalf("next: %d %s", got.status, got.body)
	}
	return mustJSON[taken](r.t, got.body)
}

func (r *real) want(status int, method, target, body string) response {
	r.t.Helper()
	got := r.do(method, target, body)
	if got.status != status {
		r.t.Fatalf("%s %s: %d, want %d: %s", method, target, got.status, status, got.body)
	}
	return got
}

func TestTheWayOfAChangeFromTheStreamToItsAck(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/http-consumers", `{"name":"orders","start":"beginning"}`)
	if got := r.do("GET", "/v1/http-consumers/orders/next", ""); got.body != `{"data":[],"info":{"num_pending":0,"num_ack_pending":0}}`+"\n" {
		t.Errorf("nothing there: %s", got.body)
	}
	polled := make(chan taken, 1)
	go func() { polled <- r.next("batch_size=10&wait_for=30s") }()
	r.commit(1, 2, 1)
	first := <-polled
	if len(first.Data) != 3 || string(first.Data[0].Record) != `{"id":1,"amount":"12.50","note":  "kept as it is"}` || first.Data[2].Metadata.Seq != 3 || first.Data[0].Attempt != 1 ||
		first.Data[0].Metadata.Consumer.Name != "orders" || first.Info.AckPending != 3 {
		t.Fatalf("taken %+v", first)
	}
	ack := `{"ack_tokens":` + first.tokens() + `}`
	r.want(204, "POST", "/v1/http-consumers/orders/ack", ack)
	r.want(204, "POST", "/v1/http-consumers/orders/ack", ack) // again
	if got := r.next(""); len(got.Data) != 0 || got.Info.Pending != 0 || got.Info.AckPending != 0 {
		t.Errorf("after the ack: %+v", got)
	}
	forged := strings.Replace(ack, first.Data[0].Token[:8], "AAAAAAAA", 1)
	if got := r.do("POST", "/v1/http-consumers/orders/ack", forged); got.status != 409 && got.status != 400 {
		t.Errorf("a forged token: %d %s", got.status, got.body)
	}
	wantProblem(t, r.do("POST", "/v1/http-consumers/orders/ack", `{"ack_tokens":["nonsense"]}`), 400)
}

func TestANackedChangeComesBackAndAStaleTokenIsRefused(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/http-consumers", `{"name":"orders","start":"beginning","backoff":{"first":"1ms","max":"1ms","jitter":0}}`)
	r.commit(1, 2)
	first := r.next("batch_size=2")
	r.want(204, "POST", "/v1/http-consumers/orders/nack", `{"ack_tokens":[`+strconv.Quote(first.Data[0].Token)+`],"delay":0,"reason":"no stock"}`)
	again := r.next("batch_size=2&wait_for=10s")
	if len(again.Data) != 1 || again.Data[0].Attempt != 2 || again.Data[0].Metadata.Seq != 1 {
		t.Fatalf("taken again: %+v", again)
	}
	p := wantProblem(t, r.do("POST", "/v1/http-consumers/orders/ack", `{"ack_tokens":`+first.tokens()+`}`), 409)
	if !cmp.Equal(p.Stale, []string{first.Data[0].Token}) {
		t.Errorf("stale %q, want the first token", p.Stale)
	}
	r.want(204, "POST", "/v1/http-consumers/orders/extend", `{"ack_tokens":`+again.tokens()+`,"by":"60s"}`)
	got := r.want(200, "GET", "/v1/databases/app/changes/1", "")
	if !strings.Contains(got.body, `"state":"in_flight","attempts":1,"holder":"local@127.0.0.1"`) {
		t.Errorf("where it is: %s", got.body)
	}
	r.want(204, "POST", "/v1/http-consumers/orders/ack", `{"ack_tokens":`+again.tokens()+`}`)
	if got := r.want(200, "GET", "/v1/databases/app/changes/2", ""); !strings.Contains(got.body, `"state":"settled"`) {
		t.Errorf("where the other is: %s", got.body)
	}
}

func TestDeadLettersOverHTTP(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", `{"name":"orders","start":"beginning","max_attempts":1}`)
	r.commit(1, 2)
	k := r.next("batch_size=2")
	r.want(204, "POST", "/v1/consumers/orders/nack", `{"ack_tokens":`+k.tokens()+`,"reason":"no stock"}`)
	var page struct {
		Data []struct {
			Seq                  uint64
			State, Reason, Table string
			Attempts             int
			Message              struct{ Record json.RawMessage }
		}
		Next *string `json:"next_cursor"`
	}
	pgtest.Eventually(t, 10*time.Second, "both are dead", func() bool {
		page = mustJSON[struct {
			Data []struct {
				Seq                  uint64
				State, Reason, Table string
				Attempts             int
				Message              struct{ Record json.RawMessage }
			}
			Next *string `json:"next_cursor"`
		}](t, r.want(200, "GET", "/v1/consumers/orders/dead", "").body)
		return len(page.Data) == 2
	})
	l := page.Data[0]
	if l.Seq != 1 || l.State != "parked" || !strings.Contains(l.Reason, "no stock") || l.Table != "public.orders" || l.Attempts != 1 || string(l.Message.Record) != `{"id":1,"amount":"12.50","note":  "kept as it is"}` {
		t.Errorf("letter %+v", l)
	}
	r.want(204, "POST", "/v1/consumers/orders/dead/1/retry", "")
	r.want(204, "DELETE", "/v1/consumers/orders/dead/2", "")
	wantProblem(t, r.do("GET", "/v1/consumers/orders/dead/2", ""), 404)
	if got := r.next("wait_for=10s"); len(got.Data) != 1 || got.Data[0].Metadata.Seq != 1 {
		t.Errorf("retried: %+v", got)
	}
}

func TestWorkersTogetherTakeEveryChangeOnceAndEachKeyInOrder(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", `{"name":"orders","start":"beginning"}`)
	const keys, rounds = 20, 25
	var mu sync.Mutex
	last, total := map[string]uint64{}, 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for ctx.Err() == nil {
				k := r.next("batch_size=7&wait_for=200ms")
				mu.Lock()
				for _, d := range k.Data {
					key := d.Metadata.PKs[0]
					if d.Metadata.Seq <= last[key] {
						t.Errorf("key %s: seq %d after %d", key, d.Metadata.Seq, last[key])
					}
					last[key] = d.Metadata.Seq
					total++
				}
				done := total >= keys*rounds
				mu.Unlock()
				if len(k.Data) > 0 {
					r.want(204, "POST", "/v1/consumers/orders/ack", `{"ack_tokens":`+k.tokens()+`}`)
				}
				if done {
					return
				}
			}
		})
	}
	for range rounds {
		var tx []int
		for key := range keys {
			tx = append(tx, key)
		}
		r.commit(tx...)
	}
	workers.Wait()
	if total != keys*rounds {
		t.Errorf("%d changes taken, want %d", total, keys*rounds)
	}
}

func TestSeekPeekPauseOverHTTP(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", `{"name":"orders"}`)
	r.commit(1, 2, 3)
	k := r.next("batch_size=3&wait_for=10s")
	r.want(204, "POST", "/v1/consumers/orders/seek", `{"to":"seq:2"}`)
	wantProblem(t, r.do("POST", "/v1/consumers/orders/ack", `{"ack_tokens":`+k.tokens()+`}`), 409)
	wantProblem(t, r.do("POST", "/v1/consumers/orders/seek", `{"to":"yesterday"}`), 400)
	if got := r.want(200, "GET", "/v1/consumers/orders/peek?limit=5", ""); strings.Count(got.body, `"seq":`) != 2 || strings.Contains(got.body, "ack_token") {
		t.Errorf("peek: %s", got.body)
	}
	r.want(204, "POST", "/v1/consumers/orders/pause", "")
	if got := r.next("batch_size=3"); len(got.Data) != 0 {
		t.Errorf("taken while paused: %+v", got)
	}
	if got := r.want(200, "GET", "/v1/consumers/orders", ""); !strings.Contains(got.body, `"paused":true,"status":"paused"`) {
		t.Errorf("shown while paused: %s", got.body)
	}
	r.want(204, "POST", "/v1/consumers/orders/resume", "")
	if got := r.next("batch_size=3"); len(got.Data) != 2 || got.Data[0].Metadata.Seq != 2 {
		t.Errorf("taken after resume: %+v", got)
	}
}

func TestDefinitionsAreInPostgresAndComeBack(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", strings.Replace(fullBody, "GitHub Pull Requests", "orders", 1))
	r.want(200, "PATCH", "/v1/consumers/orders", `{"max_attempts":9}`)
	r.want(204, "POST", "/v1/consumers/orders/pause", "")
	stored, err := api.Postgres{Pool: r.pool}.Load(t.Context())
	if err != nil || len(stored) != 1 {
		t.Fatalf("stored: %+v, %v", stored, err)
	}
	d := stored[0]
	want := deliver.Definition{
		ID: d.ID, Name: "orders", Kind: "http", Database: "app", Tables: []string{"public.orders", "-public.audit"}, Actions: []lockstep.Action{lockstep.Insert, lockstep.Update},
		Filter: "record.amount > 100", Transform: `{"id": record.id}`, Start: "seq:7", Backfill: true, OrderBy: deliver.OrderBy{Columns: []string{"tenant"}}, AckWait: 90 * time.Second,
		MaxInFlight: 10, MaxAttempts: 9, OnExhausted: "park_key", Backoff: deliver.Backoff{First: 2 * time.Second, Max: time.Minute, Jitter: 0.5}, Batch: deliver.Batch{Size: 1},
		Metadata: json.RawMessage(`{"team": "<a&b>"}`), Paused: true, ManagedBy: "api", CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
	}
	if diff := cmp.Diff(want, d); diff != "" || d.ID == "" || d.CreatedAt.IsZero() {
		t.Errorf("-want +stored\n%s", diff)
	}
	wantProblem(t, r.do("POST", "/v1/consumers", `{"name":"orders"}`), 409)
	r.want(204, "DELETE", "/v1/consumers/orders", "")
	if stored, err := (api.Postgres{Pool: r.pool}).Load(t.Context()); err != nil || len(stored) != 0 {
		t.Errorf("after the deletion: %+v, %v", stored, err)
	}
	var actions []string
	rows, err := r.pool.Query(t.Context(), "SELECT action || ' ' || target || ' ' || actor || ' ' || (before IS NOT NULL) || ' ' || (after IS NOT NULL) FROM lockstep.audit ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			t.Fatal(err)
		}
		actions = append(actions, one)
	}
	if diff := cmp.Diff([]string{
		"consumer.create orders local false true", "consumer.change orders local true true", "consumer.pause orders local true true", "consumer.delete orders local true false",
	}, actions); diff != "" {
		t.Errorf("audit: -want +got\n%s", diff)
	}
}

func TestWithoutPostgresDeliveryGoesOnAndDefinitionsDoNotChange(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", `{"name":"orders","start":"beginning"}`)
	r.commit(1)
	r.pool.Close()
	k := r.next("wait_for=10s")
	r.want(204, "POST", "/v1/consumers/orders/ack", `{"ack_tokens":`+k.tokens()+`}`)
	for _, call := range [][3]string{{"POST", "/v1/consumers", `{"name":"new"}`}, {"PATCH", "/v1/consumers/orders", `{"max_attempts":9}`}, {"DELETE", "/v1/consumers/orders", ""}} {
		wantProblem(t, r.do(call[0], call[1], call[2]), 503)
	}
	got := r.want(200, "GET", "/v1/consumers", "").body
	if !strings.Contains(got, `"max_attempts":0`) || strings.Contains(got, `"new"`) {
		t.Errorf("half a change was made: %s", got)
	}
}

func TestEventsFromTheRealStream(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.commit(1, 2)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.base+"/v1/databases/app/changes?from=beginning", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	c := &client{t: t, lines: newLines(w.Body)}
	if got := c.ids(2); !cmp.Equal(got, []string{"1", "2"}) {
		t.Errorf("replayed %v", got)
	}
	r.commit(3)
	if got := c.ids(1); !cmp.Equal(got, []string{"3"}) {
		t.Errorf("live %v", got)
	}
}
