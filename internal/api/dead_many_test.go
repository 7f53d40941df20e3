package api_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/stream"
)

func (d letters) ListBefore(ctx context.Context, c string, before uint64, limit int) ([]deliver.Letter, uint64, error) {
	l, next, err := d.Dead.ListBefore(ctx, c, before, limit)
	out := make([]deliver.Letter, len(l))
	for i := range l {
		out[i] = deliver.Letter(l[i])
	}
	return out, next, err
}

type deadPage struct {
	Data []struct {
		Seq     uint64
		Message *struct{ Action string }
	}
	Next    string `json:"next_cursor"`
	Stopped bool   `json:"stopped_early"`
}

func (p deadPage) seqs() string {
	var out []string
	for _, l := range p.Data {
		out = append(out, fmt.Sprint(l.Seq))
	}
	return strings.Join(out, " ")
}

func (r *real) dead(query string) deadPage {
	r.t.Helper()
	return mustJSON[deadPage](r.t, r.want(200, "GET", "/v1/consumers/orders/dead?"+query, "").body)
}

// exhausted makes the consumer orders with a dead letter for each key.
func exhausted(t *testing.T, keys ...int) *real {
	t.Helper()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", `{"name":"orders","start":"beginning","max_attempts":1}`)
	r.commit(keys...)
	k := r.next(fmt.Sprintf("batch_size=%d", len(keys)))
	for i, d := range k.Data {
		reason := "no stock"
		if i%2 == 1 {
			reason = "Timeout of the warehouse"
		}
		r.want(204, "POST", "/v1/consumers/orders/nack", fmt.Sprintf(`{"ack_tokens":[%q],"reason":%q}`, d.Token, reason))
	}
	pgtest.Eventually(t, 20*time.Second, "all are dead", func() bool { return len(r.dead("limit=1000").Data) == len(keys) })
	return r
}

func TestDeadLettersAreListedInBothOrdersAndNarrowed(t *testing.T) {
	t.Parallel()
	r := exhausted(t, 11, 12, 13, 21, 22)
	for query, want := range map[string]string{
		"": "1 2 3 4 5", "order=newest": "5 4 3 2 1", "order=newest&limit=2": "5 4", "order=newest&limit=2&cursor=4": "3 2", "limit=2&cursor=4": "5",
		"key=2": "2 4 5", "key=21": "4", "reason=TIMEOUT": "2 4", "reason=stock&order=newest": "5 3 1", "key=1&reason=timeout": "2 4", "reason=nothing": "",
	} {
		if got := r.dead(query).seqs(); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	if p := r.dead("order=newest&limit=4&cursor=5"); p.seqs() != "4 3 2 1" || p.Next != "" {
		t.Errorf("the last page: %+v", p)
	}
	if p := r.dead("reason=timeout&limit=1"); p.Next != "2" || p.Stopped || p.Data[0].Message == nil {
		t.Errorf("a full page: %+v", p)
	}
	if p := r.dead("messages=false&limit=1"); p.Data[0].Message != nil {
		t.Errorf("without messages: %+v", p)
	}
	wantProblem(t, r.do("GET", "/v1/consumers/orders/dead?order=sideways", ""), 400)
}

type worked struct {
	Retried, Dropped, Skipped, Left int
	Why                             string
	Next                            *string `json:"next_cursor"`
}

func (r *real) work(verb, body string) worked {
	r.t.Helper()
	return mustJSON[worked](r.t, r.want(200, "POST", "/v1/consumers/orders/dead/"+verb, body).body)
}

func TestManyDeadLettersAreRetriedAndDropped(t *testing.T) {
	t.Parallel()
	r := exhausted(t, 1, 2, 3, 4, 5, 6)
	if got := r.work("drop", `{"all":true,"reason":"timeout","before":"1h"}`); got.Dropped != 0 {
		t.Errorf("none is so old: %+v", got)
	}
	if got := r.work("drop", `{"all":true,"reason":"timeout"}`); got != (worked{Dropped: 3}) || r.dead("").seqs() != "1 3 5" {
		t.Errorf("dropped by reason: %+v, there are %s", got, r.dead("").seqs())
	}
	if got := r.work("retry", `{"seqs":[5,2,1,1]}`); got != (worked{Retried: 2}) {
		t.Errorf("retried by seq, one of them gone: %+v", got)
	}
	if got := r.work("retry", `{"all":true}`); got != (worked{Retried: 1}) {
		t.Errorf("retried what was left: %+v", got)
	}
	k := r.next("batch_size=10&wait_for=10s")
	if len(k.Data) != 3 || k.Data[0].Metadata.Seq != 1 || k.Data[2].Metadata.Seq != 5 {
		t.Errorf("handed out again: %+v", k)
	}
	if got := r.work("drop", `{"seqs":[3]}`); got.Dropped != 0 || got.Skipped != 1 || !strings.Contains(got.Why, "a worker has the change") {
		t.Errorf("dropped while a worker has it: %+v", got)
	}
	for _, body := range []string{`{}`, `{"all":true,"seqs":[1]}`, `{"seqs":[1],"reason":"x"}`, `{"all":true,"before":"soon"}`} {
		wantProblem(t, r.do("POST", "/v1/consumers/orders/dead/drop", body), 422)
	}
	var audited int
	if err := r.pool.QueryRow(t.Context(), `SELECT count(*) FROM lockstep.audit WHERE action IN ('dead.retry', 'dead.drop') AND target = 'orders' AND after ? 'done'`).Scan(&audited); err != nil || audited != 5 {
		t.Errorf("%d entries in the audit, want 5; %v", audited, err)
	}
}

func TestTwoPeopleRetryEachDeadLetterOnce(t *testing.T) {
	t.Parallel()
	keys := make([]int, 100)
	for i := range keys {
		keys[i] = i
	}
	r := exhausted(t, keys...)
	var people sync.WaitGroup
	done := make([]int, 3)
	for i := range done {
		people.Go(func() { done[i] = r.work("retry", `{"all":true}`).Retried })
	}
	people.Wait()
	if sum := done[0] + done[1] + done[2]; sum != len(keys) {
		t.Errorf("%v letters retried, want %d in all", done, len(keys))
	}
	k := r.next("batch_size=1000&wait_for=10s")
	for i, d := range k.Data {
		if d.Metadata.Seq != uint64(i+1) {
			t.Fatalf("the %dth is %d", i, d.Metadata.Seq)
		}
	}
	if len(k.Data) != len(keys) {
		t.Errorf("%d handed out again, want %d", len(k.Data), len(keys))
	}
}

func (d letters) PutSome(ctx context.Context, consumer string, list []deliver.Letter) error {
	stored := make([]stream.Letter, len(list))
	for i, letter := range list {
		stored[i] = stream.Letter(letter)
	}
	return d.Dead.PutSome(ctx, consumer, stored)
}

func (d letters) Find(ctx context.Context, consumer string, key, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := d.Dead.Find(ctx, consumer, key, after, limit)
	list := make([]deliver.Letter, len(found))
	for i, letter := range found {
		list[i] = deliver.Letter(letter)
	}
	return list, next, err
}
