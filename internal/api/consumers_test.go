package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/api"
)

const fullBody = `{"name":"GitHub Pull Requests","kind":"http","database":"app","tables":["public.orders","-public.audit"],"actions":["insert","update"],
 "filter":"record.amount > 100","transform":"{\"id\": record.id}","start":"seq:7","backfill":true,"order_by":["tenant"],"ack_wait":"90s","max_in_flight":10,"max_attempts":5,
 "on_exhausted":"park_key","backoff":{"first":"2s","max":"1m","jitter":0.5},"batch":{"size":1,"wait":"0ms"},"metadata":{"team":"<a&b>"}}`

func TestAConsumerIsMadeOfTheKeysOfTheConfiguration(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	got := n.do("POST", "/v1/consumers", fullBody)
	if got.status != 201 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	v := mustJSON[api.ConsumerView](t, got.body)
	if got.header.Get("Location") != "/v1/consumers/"+v.ID {
		t.Errorf("Location %q", got.header.Get("Location"))
	}
	for _, want := range []string{
		`"name":"GitHub Pull Requests"`, `"kind":"http"`, `"database":"app"`, `"tables":["public.orders","-public.audit"]`, `"actions":["insert","update"`,
		`"filter":"record.amount > 100"`, `"transform":"{\"id\": record.id}"`, `"start":"seq:7"`, `"backfill":true`, `"order_by":["tenant"]`, `"ack_wait":"1m30s"`,
		`"max_in_flight":10`, `"max_attempts":5`, `"on_exhausted":"park_key"`, `"backoff":{"first":"2s","max":"1m","jitter":0.5}`, `"metadata":{"team":"<a&b>"}`,
		`"paused":false`, `"status":"active"`, `"health":{"status":"ok"}`, `"managed_by":"api"`, `"created_at":`, `"updated_at":`, `"stats":{`,
	} {
		if !strings.Contains(got.body, want) {
			t.Errorf("the answer lacks %s:\n%s", want, got.body)
		}
	}
	for _, id := range []string{v.ID, "GitHub%20Pull%20Requests"} {
		if again := n.do("GET", "/v1/consumers/"+id, ""); again.body != got.body {
			t.Errorf("GET by %s differs:\n%s\n%s", id, again.body, got.body)
		}
	}
}

func TestTheDefaultsOfAConsumer(t *testing.T) {
	t.Parallel()
	got := newNode(t).do("POST", "/v1/http-consumers", `{"name":"a"}`)
	v := mustJSON[api.HTTPConsumerView](t, got.body)
	if v.Database != "app" || v.Kind != "http" || v.Start != "now" || v.AckWait != "30s" || v.MaxInFlight != 1000 || v.MaxAttempts != 0 || v.OnExhausted != "park" ||
		v.DeliverPolicy != "new" || v.AckWaitMS != 30_000 || v.MaxAckPending != 1000 || v.MaxDeliver != -1 || v.FilterCollection != nil || v.Backoff != (api.BackoffView{First: "1s", Max: "10m", Jitter: 0.15}) {
		t.Errorf("%s", got.body)
	}
	for _, want := range []string{`"order_by":"key"`, `"tables":[]`, `"metadata":null`, `"filter_collection_id":null`} {
		if !strings.Contains(got.body, want) {
			t.Errorf("the answer lacks %s: %s", want, got.body)
		}
	}
}

func TestWhatABackoffLeavesOutIsTheDefault(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for i, c := range []struct {
		said string
		want api.BackoffView
	}{
		{`{"first":"10ms"}`, api.BackoffView{First: "10ms", Max: "10m", Jitter: 0.15}},
		{`{"max":"500ms"}`, api.BackoffView{First: "500ms", Max: "500ms", Jitter: 0.15}},
		{`{"first":"1h"}`, api.BackoffView{First: "1h", Max: "1h", Jitter: 0.15}},
		{`{"jitter":0}`, api.BackoffView{First: "1s", Max: "10m"}},
	} {
		got := n.do("POST", "/v1/consumers", fmt.Sprintf(`{"name":"c%d","backoff":%s}`, i, c.said))
		if v := mustJSON[api.ConsumerView](t, got.body); v.Backoff != c.want {
			t.Errorf("%s became %+v, want %+v", c.said, v.Backoff, c.want)
		}
	}
}

func TestTheOlderFormIsMapped(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1}`, `{"id":2}`)
	for i, c := range []struct{ body, start string }{
		{`"deliver_policy":"all","ack_wait_ms":60000,"max_ack_pending":7,"max_deliver":3,"metadata":{"a":1}`, "beginning"},
		{`"deliver_policy":"new","ack_wait_ms":60000,"max_ack_pending":7,"max_deliver":3,"metadata":{"a":1}`, "now"},
		{`"deliver_policy":"last","ack_wait_ms":60000,"max_ack_pending":7,"max_deliver":3,"metadata":{"a":1}`, "seq:2"},
		{`"deliver_policy":"1h","ack_wait_ms":60000,"max_ack_pending":7,"max_deliver":3,"metadata":{"a":1},"filters":{}`, "1h"},
	} {
		got := n.do("POST", "/v1/http-consumers", fmt.Sprintf(`{"name":"a%d",%s}`, i, c.body))
		d := n.consumer(fmt.Sprintf("a%d", i)).Definition()
		if d.Start != c.start || d.AckWait != time.Minute || d.MaxInFlight != 7 || d.MaxAttempts != 3 || string(d.Metadata) != `{"a":1}` {
			t.Errorf("%s: %d %s", c.body, got.status, got.body)
		}
	}
	if got := n.do("POST", "/v1/http-consumers", `{"name":"forever","max_deliver":-1}`); got.status != 201 || n.consumer("forever").Definition().MaxAttempts != 0 {
		t.Errorf("max_deliver -1: %d %s", got.status, got.body)
	}
}

func TestBadDefinitionsNameEveryFaultAndMakeNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for name, c := range map[string]struct {
		target, body string
		locations    []string
	}{
		"no name":               {"/v1/consumers", `{}`, []string{"body.name"}},
		"a name with a slash":   {"/v1/consumers", `{"name":"a/b"}`, []string{"body.name"}},
		"unknown database":      {"/v1/consumers", `{"name":"a","database":"b"}`, []string{"body.database"}},
		"bad expressions":       {"/v1/consumers", `{"name":"a","filter":"record.","transform":"("}`, []string{"body.filter", "body.transform"}},
		"unknown actions":       {"/v1/consumers", `{"name":"a","actions":["insert","upsert"]}`, []string{"body.actions[1]"}},
		"bad lengths of time":   {"/v1/consumers", `{"name":"a","ack_wait":"long","backoff":{"first":"x","max":"-1s"}}`, []string{"body.ack_wait", "body.backoff.first", "body.backoff.max"}},
		"out of range":          {"/v1/consumers", `{"name":"a","max_attempts":-1,"max_in_flight":2000000}`, []string{"body.max_attempts", "body.max_in_flight"}},
		"zero is no default":    {"/v1/consumers", `{"name":"a","max_in_flight":0,"ack_wait":0}`, []string{"body.max_in_flight", "body.ack_wait"}},
		"unknown kind":          {"/v1/consumers", `{"name":"a","kind":"smoke"}`, []string{"body.kind"}},
		"kind of later":         {"/v1/consumers", `{"name":"a","kind":"kafka"}`, []string{"body.kind"}},
		"both forms":            {"/v1/http-consumers", `{"name":"a","ack_wait":"1s","ack_wait_ms":1000}`, []string{"body.ack_wait_ms"}},
		"policy":                {"/v1/http-consumers", `{"name":"a","deliver_policy":"some"}`, []string{"body.deliver_policy"}},
		"max_deliver 0":         {"/v1/http-consumers", `{"name":"a","max_deliver":0}`, []string{"body.max_deliver"}},
		"not an HTTP consumer":  {"/v1/http-consumers", `{"name":"a","kind":"stdout"}`, []string{"body.kind"}},
		"older keys, new route": {"/v1/consumers", `{"name":"a","ack_wait_ms":1000}`, []string{"body.ack_wait_ms"}},
		"order of two kinds":    {"/v1/consumers", `{"name":"a","order_by":7}`, []string{"body.order_by"}},
		"start":                 {"/v1/consumers", `{"name":"a","start":"yesterday"}`, []string{"body.start"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := wantProblem(t, n.do("POST", c.target, c.body), 422)
			var got []string
			for _, e := range p.Errors {
				got = append(got, e.Location)
			}
			for _, want := range c.locations {
				if !strings.Contains(strings.Join(got, " ")+" ", want) {
					t.Errorf("faults at %v, want %v: %s", got, c.locations, p.Detail)
				}
			}
			if n.consumer("a") != nil {
				t.Error("a consumer was made")
			}
		})
	}
}

func TestANameIsTakenOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := wantProblem(t, n.do("POST", "/v1/consumers", `{"name":"orders"}`), 409)
	if !strings.Contains(p.Detail, "orders") {
		t.Errorf("detail %q", p.Detail)
	}
	if got := n.do("POST", "/v1/consumers", `{"name":"new"}`); got.status != 201 {
		t.Fatal(got.body)
	}
	wantProblem(t, n.do("PATCH", "/v1/consumers/new", `{"name":"orders"}`), 409)
}

func TestPatchChangesWhatItNamesAndNothingElse(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.do("POST", "/v1/consumers", fullBody)
	before := n.consumer("GitHub Pull Requests").Definition()
	got := n.do("PATCH", "/v1/consumers/"+before.ID, `{"ack_wait":"2m","filter":"","backoff":{"max":"5m"}}`)
	if got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	want := before
	want.AckWait, want.Filter, want.Backoff.Max = 2*time.Minute, "", 5*time.Minute
	after := n.consumer("GitHub Pull Requests").Definition()
	if !after.UpdatedAt.After(before.UpdatedAt) {
		t.Error("updated_at did not move")
	}
	want.UpdatedAt = after.UpdatedAt
	if d := cmp.Diff(want, after); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for body, location := range map[string]string{`{"start":"now"}`: "body.start", `{"database":"other"}`: "body.database", `{"kind":"stdout"}`: "body.kind", `{"max_in_flight":0}`: "body.max_in_flight"} {
		if p := wantProblem(t, n.do("PATCH", "/v1/consumers/"+before.ID, body), 422); p.Errors[0].Location != location {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
}

func TestWhatTheConfigurationDefinesIsChangedThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for method, body := range map[string]string{"PATCH": `{"max_attempts":1}`, "DELETE": ""} {
		p := wantProblem(t, n.do(method, "/v1/consumers/filed", body), 409)
		if !strings.Contains(p.Detail, "lockstep.yml:12") {
			t.Errorf("%s: %q does not say where it is defined", method, p.Detail)
		}
	}
}

func TestDeleteRemovesAConsumer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if got := n.do("DELETE", "/v1/http-consumers/orders", ""); got.status != 204 || got.body != "" {
		t.Errorf("%d %s", got.status, got.body)
	}
	wantProblem(t, n.do("GET", "/v1/http-consumers/orders", ""), 404)
}

func TestListsHoldTheConsumersOfTheirFamily(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for target, want := range map[string][]string{"/v1/consumers": {"filed", "orders", "printed"}, "/v1/http-consumers": {"filed", "orders"}} {
		var got []string
		body := n.do("GET", target, "").body
		for _, v := range mustJSON[api.List[api.ConsumerView]](t, body).Data {
			got = append(got, v.Name)
		}
		if !cmp.Equal(got, want) || !strings.Contains(body, `"next_cursor":null`) {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}
