package engine_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// endpoint is a receiver that answers as it is told, and checks the order of each key.
type endpoint struct {
	*httptest.Server
	mu      sync.Mutex
	status  int
	header  http.Header
	byKey   map[string][]uint64 // the seqs of each key, each once
	seen    map[uint64]int
	signed  int
	faults  []string
	refused int
}

func newEndpoint(t testing.TB) *endpoint {
	t.Helper()
	e := &endpoint{status: 200, byKey: map[string][]uint64{}, seen: map[uint64]int{}}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var got struct {
		change
		Data []change `json:"data"`
	}
	_ = json.Unmarshal(body, &got)
	if len(got.Data) == 0 {
		got.Data = []change{got.change}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.Copy(w.Header(), e.header)
	if w.WriteHeader(e.status); e.status >= 300 {
		e.refused++
		return
	}
	if r.Header.Get("Webhook-Signature") != "" {
		e.signed++
	}
	for _, c := range got.Data {
		seq, key := c.Metadata.Seq, strings.Join(c.Metadata.PKs, ",")
		list := e.byKey[key]
		if e.seen[seq]++; e.seen[seq] == 1 {
			if len(list) > 0 && seq < list[len(list)-1] {
				e.faults = append(e.faults, fmt.Sprintf("key %s: %d after %d", key, seq, list[len(list)-1]))
			}
			e.byKey[key] = append(list, seq)
		}
	}
}

type change struct {
	Metadata struct {
		Seq uint64   `json:"seq"`
		PKs []string `json:"record_pks"`
	} `json:"metadata"`
}

func (e *endpoint) answer(status int, header http.Header) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.header, e.refused = status, header, 0
}

func (e *endpoint) distinct() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

func (e *endpoint) refusals() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.refused
}

func (e *endpoint) check(t testing.TB, want int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.faults[:min(len(e.faults), 10)] {
		t.Error(f)
	}
	if len(e.seen) != want {
		t.Errorf("%d changes arrived, want %d", len(e.seen), want)
	}
}

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func hook(t testing.TB, api *client.Client, name, url, more string) client.Consumer {
	t.Helper()
	c, err := api.CreateConsumer(t.Context(), json.RawMessage(fmt.Sprintf(
		`{"name":%q,"kind":"webhook","tables":["public.orders"],"start":"beginning","backoff":{"first":"20ms","max":"200ms"},"webhook":{"url":%q,"secret":%q,"allow_private":true}%s}`,
		name, url, hookSecret, more)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func state(t testing.TB, api *client.Client, name string) string {
	t.Helper()
	c, err := api.Consumer(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if c.Destination == nil {
		return ""
	}
	return c.Destination.State
}

func TestADeadWebhookCatchesUpInOrderAndHoldsNobodyElse(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, n int)`)
	n := newNode(t, url, "")
	n.start()
	dead, well := newEndpoint(t), newEndpoint(t)
	dead.answer(500, nil)
	hook(t, n.api, "dead", dead.URL, `,"max_attempts":3`)
	hook(t, n.api, "well", well.URL, "")
	for round := range 20 {
		pgtest.Exec(t, url, fmt.Sprintf(`INSERT INTO orders SELECT g, %d FROM generate_series(1, 50) g ON CONFLICT (id) DO UPDATE SET n = excluded.n`, round))
	}
	pgtest.Eventually(t, 30*time.Second, "everything to arrive at the one that is well", func() bool { return well.distinct() == 1000 })
	pgtest.Eventually(t, 30*time.Second, "the breaker of the other to open", func() bool { return state(t, n.api, "dead") == "open" })
	failed, _, err := n.api.Attempts(t.Context(), "dead", client.AttemptQuery{Failed: true, Limit: 5})
	if err != nil || len(failed) != 5 || failed[0].Status != 500 || failed[0].Method != "POST" || failed[0].Error == "" || strings.Contains(string(failed[0].Raw), "whsec_") {
		t.Errorf("attempts: %+v, %v", failed, err)
	}
	dead.answer(200, nil)
	pgtest.Eventually(t, 60*time.Second, "everything to arrive", func() bool { return dead.distinct() == 1000 })
	dead.check(t, 1000)
	well.check(t, 1000)
	if dead.signed == 0 {
		t.Error("no request was signed")
	}
	if c, err := n.api.Consumer(t.Context(), "dead"); err != nil || c.Stats.Dead > 0 {
		t.Errorf("%d changes of the dead one went to the dead letters (%v)", c.Stats.Dead, err)
	}
}

func TestWebhooksFollowTheirDefinitionsAndOutliveAKill(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, n int)`)
	n := newNode(t, url, "")
	n.start()
	first, second := newEndpoint(t), newEndpoint(t)
	made := hook(t, n.api, "hooks", first.URL, "")
	if strings.Contains(string(made.Raw), hookSecret) {
		t.Error("the secret shows")
	}
	for _, column := range []string{"definition::text", "(SELECT string_agg(concat(before, after), ' ') FROM lockstep.audit)"} {
		if text := fmt.Sprint(pgtest.Query(t, url, "SELECT "+column+" FROM lockstep.consumer")); strings.Contains(text, hookSecret[6:]) || !strings.Contains(text, "127.0.0.1") {
			t.Errorf("%s holds the secret, or nothing: %s", column, text)
		}
	}
	pgtest.Exec(t, url, `INSERT INTO orders SELECT generate_series(1, 200), 0`)
	pgtest.Eventually(t, 30*time.Second, "the first changes", func() bool { return first.distinct() == 200 })
	first.answer(503, nil)
	pgtest.Exec(t, url, `UPDATE orders SET n = 1`)
	pgtest.Eventually(t, 30*time.Second, "refusals", func() bool { return first.refusals() > 5 })
	n.kill()
	n.start()
	first.answer(200, nil)
	pgtest.Eventually(t, 60*time.Second, "the rest after a kill", func() bool { return first.distinct() == 400 })
	first.check(t, 400)
	if first.signed < 400 {
		t.Errorf("%d requests were signed: the secret did not outlive the kill", first.signed)
	}
	if _, err := n.api.UpdateConsumer(t.Context(), "hooks", json.RawMessage(fmt.Sprintf(`{"webhook":{"url":%q}}`, second.URL))); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, `UPDATE orders SET n = 2`)
	pgtest.Eventually(t, 30*time.Second, "changes at the other address", func() bool { return second.distinct() == 200 })
	second.check(t, 200)
	replayed(t, n.api, second)
	goneAndBack(t, n.api, url, second)
	if err := n.api.DeleteConsumer(t.Context(), "hooks"); err != nil {
		t.Fatal(err)
	}
	before := second.distinct()
	hook(t, n.api, "other", second.URL, `,"batch":{"size":50}`)
	pgtest.Eventually(t, 30*time.Second, "a further consumer", func() bool { return second.distinct() > before })
}

// replayed asks for changes again.
func replayed(t *testing.T, api *client.Client, to *endpoint) {
	t.Helper()
	times := func(seq uint64) int {
		to.mu.Lock()
		defer to.mu.Unlock()
		return to.seen[seq]
	}
	pgtest.Eventually(t, 30*time.Second, "all to be settled", func() bool {
		c, err := api.Consumer(t.Context(), "hooks")
		return err == nil && c.Stats.FloorSeq >= 600
	})
	if k, err := api.Replay(t.Context(), "hooks", client.Replay{Seq: 500}); k != 1 || err != nil {
		t.Fatalf("replay: %d, %v", k, err)
	}
	pgtest.Eventually(t, 30*time.Second, "the replay of one", func() bool { return times(500) == 2 })
	if k, err := api.Replay(t.Context(), "hooks", client.Replay{From: "501", To: "510"}); k != 10 || err != nil {
		t.Fatalf("replay: %d, %v", k, err)
	}
	pgtest.Eventually(t, 30*time.Second, "the replay of ten", func() bool { return times(501) == 2 && times(510) == 2 })
	if got, err := api.TestConsumer(t.Context(), "hooks"); err != nil || !got.Delivered {
		t.Errorf("test: %+v, %v", got, err)
	}
}

// goneAndBack has the endpoint answer 410.
func goneAndBack(t *testing.T, api *client.Client, url string, to *endpoint) {
	t.Helper()
	before := to.distinct()
	to.answer(410, nil)
	pgtest.Exec(t, url, `INSERT INTO orders VALUES (1000, 1)`)
	pgtest.Eventually(t, 30*time.Second, "the consumer to be gone", func() bool { return state(t, api, "hooks") == "gone" })
	c, err := api.Consumer(t.Context(), "hooks")
	if err != nil || c.Status != "paused" || c.Health.Status != "error" || !strings.Contains(c.Health.Reason, "410") {
		t.Errorf("shown: %s", c.Raw)
	}
	to.answer(200, nil)
	if err := api.ResumeConsumer(t.Context(), "hooks"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 30*time.Second, "the change that was refused", func() bool { return to.distinct() == before+1 })
}
