package kinds_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/kinds"
	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestFaultsOfWebhookSettingsNameTheirField(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{
		`{"url":"https://a.test/x"}`: "",
		`{"url":"https://a.test","secret":"` + secret + `","secrets":["` + secret + `",{"key":"` + secret + `","until":"2026-11-01T00:00:00Z"}],"headers":{"X-A":7},"timeout":"5s","gzip":"true","concurrency":"4"}`:         "",
		`{"url":"https://a.test","method":"put","path":"'/orders/' + string(record.id)","add_headers":"{\"X-Action\": action}","event_type":"'orders.' + action","format":"cloudevents","source":"/x","allow_private":true}`: "",
		``:                         "url",
		`{}`:                       "url",
		`7`:                        "",
		`{"urll":1,"timeout":"x"}`: "timeout urll",
		`{"url":"https://a.test","concurrency":1000}`:                                                "concurrency",
		`{"url":"https://a.test","concurrency":-1}`:                                                  "concurrency",
		`{"url":"https://a.test","gzip":"perhaps"}`:                                                  "gzip",
		`{"url":"https://a.test","handshake":true,"origin":"events.example.com","request_rate":120}`: "",
		`{"url":"https://a.test","handshake":"perhaps","request_rate":-1}`:                           "handshake request_rate",
		`{"url":"https://a.test","headers":[1]}`:                                                     "headers",
		`{"url":"https://a.test","secrets":{"a":1}}`:                                                 "secrets",
		`{"url":"https://a.test","secrets":[{"until":"x"}]}`:                                         "secrets",
		`{"url":{"a":1}}`: "url",
		`{"url":"https://a.test","path":"record."}`:    "path",
		`{"url":"https://a.test","method":"record +"}`: "method",
	} {
		var fields []string
		problems := kinds.Check("webhook", json.RawMessage(settings))
		for _, p := range problems {
			fields = append(fields, p.Field)
		}
		if got := strings.Join(fields, " "); got != want || settings == "7" && len(problems) != 1 {
			t.Errorf("%s: faults at %q, want %q: %+v", settings, got, want, problems)
		}
	}
	for _, bad := range []string{`{"url":"ftp://a.test"}`, `{"url":"https://127.0.0.1"}`, `{"url":"https://a.test","secret":"topsecret"}`, `{"url":"https://a.test","format":"xml"}`, `{"url":"https://a.test","origin":"a.test"}`, `{"url":"https://a.test","handshake":true,"origin":"topsecret/"}`} {
		problems := kinds.Check("webhook", json.RawMessage(bad))
		if len(problems) != 1 || strings.Contains(problems[0].Message, "topsecret") {
			t.Errorf("%s: %+v", bad, problems)
		}
	}
	if p := kinds.Check("stdout", json.RawMessage(`{"a":1}`)); len(p) != 1 {
		t.Errorf("stdout with settings: %+v", p)
	}
	if p := kinds.Check("stdout", nil); p != nil || !kinds.Sends("stdout") || kinds.Sends("http") {
		t.Errorf("stdout: %+v", p)
	}
	if p := kinds.Check("carrier pigeon", nil); len(p) != 1 {
		t.Errorf("an unknown kind: %+v", p)
	}
}

func TestSecretsAreNotShownAndAChangeKeepsThem(t *testing.T) {
	t.Parallel()
	old := json.RawMessage(`{"url":"https://a.test/T0/B0/deep?k=deep","secret":"` + secret + `","secrets":[{"key":"whsec_deep","until":"2026-11-01T00:00:00Z"}],"headers":{"Authorization":"Bearer deep"},"timeout":"5s","other":"deep"}`)
	shown := string(kinds.Shown("webhook", old))
	want := `{"headers":{"Authorization":"[hidden]"},"secret":"[hidden]","secrets":[{"key":"[hidden]","until":"2026-11-01T00:00:00Z"}],"timeout":"5s","url":"https://a.test/…"}`
	if shown != want {
		t.Errorf("shown\n%s\nwant\n%s", shown, want)
	}
	merged, err := kinds.Merge("webhook", old, json.RawMessage(strings.Replace(shown, `"5s"`, `"9s"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(merged, &got); err != nil {
		t.Fatal(err)
	}
	if got["secret"] != secret || got["timeout"] != "9s" || got["url"] != "https://a.test/T0/B0/deep?k=deep" || got["headers"].(map[string]any)["Authorization"] != "Bearer deep" {
		t.Errorf("what came back as it was shown: %s", merged)
	}
	merged, err = kinds.Merge("webhook", old, json.RawMessage(`{"secret":null,"url":"https://b.test"}`))
	if err != nil || strings.Contains(string(merged), secret) || !strings.Contains(string(merged), "b.test") || !strings.Contains(string(merged), "Bearer deep") {
		t.Errorf("after a change: %s, %v", merged, err)
	}
	if _, err := kinds.Merge("webhook", old, json.RawMessage(`7`)); err == nil {
		t.Error("a number is taken for settings")
	}
}

// Who writes down what is shown must see that something is missing.
func TestAURLWithAUserIsNotShownAsOneWithout(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct{ with, shown, without string }{
		"nats":  {"nats://bob:deep@h.test:4222", "nats://h.test:4222/…", "nats://h.test:4222"},
		"redis": {"redis://:deep@h.test:6379", "redis://h.test:6379/…", "redis://h.test:6379"},
	} {
		if got := string(kinds.Shown(kind, json.RawMessage(`{"url":"`+c.with+`"}`))); got != `{"url":"`+c.shown+`"}` {
			t.Errorf("%s: shown as %s, want %s", c.with, got, c.shown)
		}
		if got := string(kinds.Shown(kind, json.RawMessage(`{"url":"`+c.without+`"}`))); got != `{"url":"`+c.without+`"}` {
			t.Errorf("%s: shown as %s", c.without, got)
		}
	}
}

func TestAWebhookByExpressions(t *testing.T) {
	t.Parallel()
	var method, path, header string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		method, path, header = r.Method, r.URL.String(), r.Header.Get("X-Table")
	}))
	defer server.Close()
	settings := `{"url":"` + server.URL + `/base","allow_private":true,"path":"'/orders/' + string(record.id) + '?a=' + action","method":"action == 'delete' ? 'DELETE' : 'PUT'","add_headers":"{'X-Table': metadata.table_name}"}`
	opened, err := kinds.Open("webhook", kinds.Target{}, json.RawMessage(settings))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Sink.Close(context.Background()) }()
	write := func(body string) (int, error) {
		return opened.Sink.Write(t.Context(), []sink.Message{{Seq: 1, Action: lockstep.Delete, IdempotencyKey: "a-1", Body: json.RawMessage(body), Record: json.RawMessage(`{}`), PKs: json.RawMessage(`["7"]`)}})
	}
	n, err := write(`{"record":{"id":12345678901234567890},"changes":null,"action":"delete","metadata":{"table_name":"orders"}}`)
	if n != 1 || err != nil || method != "DELETE" || path != "/base/orders/12345678901234567890?a=delete" || header != "orders" {
		t.Errorf("%d, %v: %s %s %s", n, err, method, path, header)
	}
	// An expression that fails is the change's fault, not the endpoint's.
	if n, err := write(`{"record":{"id":1},"changes":null,"action":"insert","metadata":{"table_name":["a"]}}`); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestStdoutWritesLines(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	lines := kinds.Lines(&out)
	opened, err := kinds.Open("stdout", kinds.Target{Stdout: lines}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := opened.Sink.Write(context.Background(), []sink.Message{{Body: json.RawMessage("{\n}")}, {Body: json.RawMessage(`{"a":1}`)}})
	if n != 2 || err != nil || out.String() != "{ }\n{\"a\":1}\n" || !slices.Contains(kinds.Names(), "stdout") {
		t.Errorf("%d, %v, %q", n, err, out.String())
	}
}
