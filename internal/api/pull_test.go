package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/api"
)

var noExpiry time.Time

func TestNextHasTheShapeOfTheContract(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.consumer("orders")
	if got := n.do("GET", "/v1/http-consumers/orders/next", ""); got.body != `{"data":[],"info":{"num_pending":0,"num_ack_pending":0}}`+"\n" || got.status != 200 {
		t.Errorf("nothing there: %d %s", got.status, got.body)
	}
	c.give(`"record":1`, `"record":{"a":  1.10}`, `"record":3`)
	got := n.do("GET", "/v1/http-consumers/orders/next?batch_size=2", "")
	const want = `{"data":[{"ack_token":"t0","attempt":1,"record":1},{"ack_token":"t1","attempt":1,"record":{"a":  1.10}}],"info":{"num_pending":1,"num_ack_pending":2}}` + "\n"
	if got.body != want || got.header.Get("Content-Type") != "application/json" || got.header.Get("Content-Length") != fmt.Sprint(len(want)) {
		t.Errorf("two of three: %s %v", got.body, got.header)
	}
	if got := n.do("POST", "/v1/consumers/"+c.Definition().ID+"/next", ""); !strings.Contains(got.body, `"record":3`) {
		t.Errorf("by POST without a body, by id, default of one: %s", got.body)
	}
}

func TestNextTakesParametersByQueryAndByBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, query, body string
		want                int
	}{
		"query":              {"GET", "?batch_size=2&wait_for=1000", "", 2},
		"query, with unit":   {"GET", "?batch_size=2&wait_for=1000ms", "", 2},
		"body":               {"POST", "", `{"batch_size":3,"wait_for":"1s"}`, 3},
		"body, number":       {"POST", "", `{"batch_size":3,"wait_for":1000}`, 3},
		"body, text":         {"POST", "", `{"batch_size":3,"wait_for":"1000"}`, 3},
		"body wins":          {"POST", "?batch_size=1", `{"batch_size":3}`, 3},
		"body without it":    {"POST", "?batch_size=2", `{"wait_for":0}`, 2},
		"body of space":      {"POST", "?batch_size=2", " \n", 2},
		"limits":             {"GET", "?batch_size=1000&wait_for=5m", "", 4},
		"null is left out":   {"POST", "?batch_size=2", `{"batch_size":null,"wait_for":null}`, 2},
		"curl's body type":   {"POST", "", `{"batch_size":2}`, 2},
		"zero wait, default": {"GET", "?wait_for=0", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.consumer("orders").give(`"record":1`, `"record":2`, `"record":3`, `"record":4`)
			got := n.do(c.method, "/v1/consumers/orders/next"+c.query, c.body, "Content-Type: application/x-www-form-urlencoded")
			if n := strings.Count(got.body, "ack_token"); n != c.want || got.status != 200 {
				t.Errorf("%d changes, want %d: %d %s", n, c.want, got.status, got.body)
			}
		})
	}
}

func TestALongPollEndsAsSoonAsThereIsAChange(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	answers := make(chan response)
	go func() { answers <- n.do("GET", "/v1/consumers/orders/next?wait_for=60s", "") }()
	n.consumer("orders").give(`"record":1`)
	if got := <-answers; !strings.Contains(got.body, `"record":1`) {
		t.Errorf("answer %s", got.body)
	}
}

func TestAnAnswerLargerThanAChunkIsWhole(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var messages []string
	for i := range 100 {
		messages = append(messages, fmt.Sprintf(`"record":{"i":%d,"text":"%s"}`, i, strings.Repeat("x", 10_000)))
	}
	n.consumer("orders").give(messages...)
	got := n.do("GET", "/v1/consumers/orders/next?batch_size=100", "")
	type delivery struct{ Record struct{ I int } }
	var order []int
	for _, d := range mustJSON[struct{ Data []delivery }](t, got.body).Data {
		order = append(order, d.Record.I)
	}
	if len(order) != 100 || !slices.IsSorted(order) {
		t.Errorf("changes %v", order)
	}
}

func TestAckNackAndExtendPassOnWhatTheySay(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, c := range []struct{ verb, body, want string }{
		{"ack", `{"ack_tokens":["a","b"]}`, "ack a,b"},
		{"nack", `{"ack_tokens":["a"]}`, "nack a mode=0 delay=none reason="},
		{"nack", `{"ack_tokens":["a"],"delay":"30s","reason":"no stock"}`, "nack a mode=0 delay=30s reason=no stock"},
		{"nack", `{"ack_tokens":["a"],"delay":0}`, "nack a mode=0 delay=0s reason="},
		{"nack", `{"ack_tokens":["a"],"release":true}`, "nack a mode=1 delay=none reason="},
		{"extend", `{"ack_tokens":["a"],"by":"60s"}`, "extend a by=1m0s"},
		{"extend", `{"ack_tokens":["a"],"by":1500}`, "extend a by=1.5s"},
	} {
		got := n.do("POST", "/v1/http-consumers/orders/"+c.verb, c.body)
		if got.status != http.StatusNoContent || got.body != "" {
			t.Errorf("%s %s: %d %q; want 204 without a body", c.verb, c.body, got.status, got.body)
		}
		if settled := n.consumer("orders").settled; settled[len(settled)-1] != c.want {
			t.Errorf("%s %s: %q, want %q", c.verb, c.body, settled[len(settled)-1], c.want)
		}
	}
}

func TestStaleTokensAreNamed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, verb := range []string{"ack", "nack", "extend"} {
		n.consumer("orders").stale = []string{"b"}
		p := wantProblem(t, n.do("POST", "/v1/consumers/orders/"+verb, `{"ack_tokens":["a","b"]`+map[string]string{"extend": `,"by":"1s"`}[verb]+`}`), http.StatusConflict)
		if !cmp.Equal(p.Stale, []string{"b"}) {
			t.Errorf("%s: stale %q", verb, p.Stale)
		}
	}
}

func TestPeekShowsWithoutTaking(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.consumer("orders").give(`"record":1`, `"record":2`)
	for range 2 {
		if got := n.do("GET", "/v1/consumers/orders/peek?limit=1", ""); got.body != `{"data":[{"record":1}],"info":{"num_pending":2,"num_ack_pending":0}}`+"\n" {
			t.Errorf("peek: %s", got.body)
		}
	}
}

func TestDeadLettersCanBeReadInPagesRetriedAndDropped(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.consumer("orders")
	for seq := uint64(1); seq <= 3; seq++ {
		c.letters = append(c.letters, api.Letter{
			Seq: seq, State: "parked", Reason: "no \"stock\"", Attempts: 3, At: time.Unix(0, 0), Table: "public.orders",
			PKs: []byte(`["7"]`), Message: []byte(`{"record":{"a":  1.10}}`),
		})
	}
	const one = `{"seq":%d,"state":"parked","reason":"no \"stock\"","attempts":3,"at":"1970-01-01T00:00:00Z","table":"public.orders","record_pks":["7"],"message":{"record":{"a":  1.10}}}`
	got := n.do("GET", "/v1/consumers/orders/dead?limit=2", "")
	if want := fmt.Sprintf(`{"data":[`+one+`,`+one+`],"next_cursor":"2"}`+"\n", 1, 2); got.body != want {
		t.Errorf("first page:\n%s want\n%s", got.body, want)
	}
	if got := n.do("GET", "/v1/consumers/orders/dead?limit=2&cursor=2", ""); got.body != fmt.Sprintf(`{"data":[`+one+`],"next_cursor":null}`+"\n", 3) {
		t.Errorf("last page: %s", got.body)
	}
	if got := n.do("GET", "/v1/consumers/orders/dead/2", ""); got.body != fmt.Sprintf(one+"\n", 2) {
		t.Errorf("one: %s", got.body)
	}
	for _, call := range [][2]string{{"POST", "1/retry"}, {"DELETE", "2"}} {
		if got := n.do(call[0], "/v1/consumers/orders/dead/"+call[1], ""); got.status != 204 {
			t.Errorf("%s %s: %d %s", call[0], call[1], got.status, got.body)
		}
	}
	if len(c.letters) != 1 || c.letters[0].Seq != 3 {
		t.Errorf("letters left: %+v", c.letters)
	}
}

func TestSeekAndPauseReachTheConsumer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.consumer("filed") // positions and pauses are state: the configuration does not own them
	if got := n.do("POST", "/v1/consumers/filed/seek", `{"to":"seq:42"}`); got.status != 204 || c.sought != "seq:42" {
		t.Errorf("seek: %d %s, sought %q", got.status, got.body, c.sought)
	}
	for _, verb := range []string{"pause", "resume"} {
		if got := n.do("POST", "/v1/consumers/filed/"+verb, ""); got.status != 204 || c.Standing().Paused != (verb == "pause") {
			t.Errorf("%s: %d, paused %v", verb, got.status, c.Standing().Paused)
		}
	}
}
