package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"lockstep"
	"lockstep/sink"
)

// write delivers messages and returns what the endpoint saw of it.
func write(t testing.TB, e *endpoint, c Config, messages ...sink.Message) []received {
	t.Helper()
	before := len(e.seen())
	n, err := e.open(t, c).Write(t.Context(), messages)
	if n != len(messages) || err != nil {
		t.Fatalf("n = %d of %d, %v", n, len(messages), err)
	}
	return e.seen()[before:]
}

func TestLockstepSendsTheMessageAsItIs(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	m := change(7, "a")
	m.Attempt = 3
	got := write(t, e, Config{Secrets: []Secret{{Key: key(1)}}, Headers: map[string]string{"authorization": "Bearer x"}}, m)
	if len(got) != 1 || string(got[0].Body) != string(m.Body) || got[0].Method != "POST" || got[0].Path != "/hook" {
		t.Fatalf("got %+v", got)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Webhook-Id": m.IdempotencyKey, "Lockstep-Attempt": "3", "Authorization": "Bearer x", "User-Agent": "Lockstep-Webhook/1",
	} {
		if have := got[0].Header.Get(name); have != want {
			t.Errorf("%s is %q, want %q", name, have, want)
		}
	}
	verify(t, got[0], key(1))
}

// verify checks the signature with the official library.
func verify(t testing.TB, r received, secret string) {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(r.Body, r.Header); err != nil {
		t.Error(err)
	}
}

func TestSeveralChangesAreOneBody(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	a, b := change(1, "a"), change(2, "b")
	got := write(t, e, Config{Secrets: []Secret{{Key: key(1)}}}, a, b)
	if len(got) != 1 || string(got[0].Body) != fmt.Sprintf(`{"data":[%s,%s]}`, a.Body, b.Body) {
		t.Fatalf("got %s", got[0].Body)
	}
	verify(t, got[0], key(1))
	again := write(t, e, Config{}, a, b)
	other := write(t, e, Config{}, a, change(3, "c"))
	if id := got[0].Header.Get("Webhook-Id"); !strings.HasPrefix(id, "batch-") || again[0].Header.Get("Webhook-Id") != id || other[0].Header.Get("Webhook-Id") == id {
		t.Errorf("the ids are %q, %q again and %q for another batch", id, again[0].Header.Get("Webhook-Id"), other[0].Header.Get("Webhook-Id"))
	}
	if got := write(t, e, Config{Format: Plain}, a, b); string(got[0].Body) != fmt.Sprintf(`[%s,%s]`, a.Record, b.Record) {
		t.Errorf("plain: got %s", got[0].Body)
	}
}

func TestPlainSendsTheRecordAlone(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	m := change(1, "a")
	got := write(t, e, Config{Format: Plain, Headers: map[string]string{"Content-Type": "application/vnd.shop+json"}}, m)[0]
	if string(got.Body) != string(m.Record) || got.Header.Get("Webhook-Signature") != "" ||
		got.Header.Get("Content-Type") != "application/vnd.shop+json" || got.Header.Get("Lockstep-Action") != "update" {
		t.Errorf("got %s %v", got.Body, got.Header)
	}
	m.Action, m.Record = lockstep.Truncate, nil
	if got := write(t, e, Config{Format: Plain}, m)[0]; string(got.Body) != "null" {
		t.Errorf("got %s", got.Body)
	}
}

// TestCloudEventsAreReadByTheOfficialLibrary parses the requests of all modes.
func TestCloudEventsAreReadByTheOfficialLibrary(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	m := change(42, "Grüße \"7\" 100%\n")
	for _, format := range []Format{CloudEvents, CloudEventsStructured, CloudEventsBatch} {
		got := write(t, e, Config{Format: format}, m, change(43, "b"))
		var events []cloudevents.Event
		for _, r := range got {
			req := httptest.NewRequestWithContext(t.Context(), r.Method, r.Path, strings.NewReader(string(r.Body)))
			req.Header = r.Header
			if format == CloudEventsBatch {
				list, err := cehttp.NewEventsFromHTTPRequest(req)
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, list...)
				continue
			}
			one, err := cehttp.NewEventFromHTTPRequest(req)
			if err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			events = append(events, *one)
		}
		if len(events) != 2 {
			t.Fatalf("%s: %d events", format, len(events))
		}
		ev := events[0]
		if err := ev.Validate(); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		subject := ev.Subject()
		if format == CloudEvents {
			subject = unescape(t, subject) // the library leaves the header as it is
		}
		want := []string{m.IdempotencyKey, "/databases/app", "lockstep.public.orders.update", `Grüße "7" 100%%0A`, "2026-11-21T10:00:00.123456Z", "00000000000000000042", "application/json"}
		have := []string{ev.ID(), ev.Source(), ev.Type(), subject, ev.Time().Format(time.RFC3339Nano), fmt.Sprint(ev.Extensions()["sequence"]), ev.DataContentType()}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
		if string(ev.Data()) != string(m.Body) {
			t.Errorf("%s: the data is %s", format, ev.Data())
		}
	}
}

// unescape is what a receiver does with a header of binary mode.
func unescape(t testing.TB, s string) string {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		var c byte
		if _, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err != nil {
			t.Fatal(err)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String()
}

func TestTheSubjectIsTheKey(t *testing.T) {
	t.Parallel()
	for pks, want := range map[string]string{`["7"]`: "7", `["a/b","c"]`: "a%2Fb/c", `[]`: "", `["a/b"]`: "a/b", ``: ""} {
		if got := subject([]byte(pks)); got != want {
			t.Errorf("%s: got %q, want %q", pks, got, want)
		}
	}
}

func TestABatchIsPartedByTheLargestBody(t *testing.T) {
	t.Parallel()
	for format, most := range map[Format]int{Lockstep: 1200, Plain: 200, CloudEventsBatch: 1200} {
		e := newEndpoint(t)
		list := make([]sink.Message, 20)
		for i := range list {
			list[i] = change(uint64(i+1), fmt.Sprint("k", i))
		}
		got := write(t, e, Config{Format: format, MaxBody: most}, list...)
		if len(got) < 2 {
			t.Errorf("%s: %d requests", format, len(got))
		}
		n := 0
		for _, r := range got {
			n += len(bodies(t, format, r.Body))
			if len(r.Body) > most {
				t.Errorf("%s: a body of %d bytes", format, len(r.Body))
			}
		}
		if n != len(list) {
			t.Errorf("%s: %d changes were sent", format, n)
		}
	}
	e := newEndpoint(t)
	large := change(2, "large")
	large.Body = slices.Concat(large.Body[:len(large.Body)-1], []byte(`,"x":"`+strings.Repeat("x", 2000)+`"}`))
	n, err := e.open(t, Config{MaxBody: 1200}).Write(t.Context(), []sink.Message{change(1, "a"), large, change(3, "large"), change(4, "b")})
	var partial *sink.PartialError
	if !errors.As(err, &partial) || len(partial.Failed) != 2 || n != 1 || kindIs(partial.Failed[0].Err) != sink.Rejected || kindIs(partial.Failed[1].Err) != sink.Retry {
		t.Errorf("n = %d, %v", n, err)
	}
}

func kindIs(err error) sink.Kind {
	var e *sink.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Kind
}

func TestGzipSignsTheBodyBefore(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	list := make([]sink.Message, 30)
	for i := range list {
		list[i] = change(uint64(i+1), fmt.Sprint("k", i))
	}
	got := write(t, e, Config{Gzip: true, Secrets: []Secret{{Key: key(1)}}}, list...)[0]
	if got.Header.Get("Content-Encoding") != "gzip" || len(bodies(t, Lockstep, got.Body)) != 30 {
		t.Errorf("got %v", got.Header)
	}
	verify(t, got, key(1))
	if small := write(t, e, Config{Gzip: true}, list[0])[0]; small.Header.Get("Content-Encoding") != "" {
		t.Error("a small body was compressed")
	}
}

// TestSecretsRotate: both while the old one lasts, and nothing unsigned behind the last.
func TestSecretsRotate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got http.Header
		w, err := New(Config{
			URL:       "https://example.com/hook",
			Secrets:   []Secret{{Key: key(2), Until: time.Now().Add(2 * time.Hour)}, {Key: key(1), Until: time.Now().Add(time.Hour)}},
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) { got = r.Header; return reply(200, ""), nil }),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close(t.Context()) }()
		m := change(1, "a")
		for _, want := range []int{2, 1, 0} {
			n, err := w.Write(t.Context(), []sink.Message{m})
			if want == 0 {
				if n != 0 || kindIs(err) != sink.Refused {
					t.Fatalf("with no valid secret: n = %d, %v", n, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if list := strings.Fields(got.Get("Webhook-Signature")); len(list) != want {
				t.Errorf("%d signatures, want %d", len(list), want)
			}
			verify(t, received{Header: got, Body: m.Body}, key(2))
			time.Sleep(time.Hour)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func reply(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, ContentLength: int64(len(body))}
}

func TestChangesDecideWhereTheyGo(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	c := Config{
		URL: e.URL + "/api/?token=t",
		PathFor: func(m sink.Message) (string, error) {
			return "orders/" + strings.Trim(string(m.PKs), `[]"`) + "?full=1", nil
		},
		MethodFor: func(m sink.Message) (string, error) {
			return map[bool]string{true: "DELETE", false: "PUT"}[m.Action == lockstep.Delete], nil
		},
		HeadersFor: func(m sink.Message) (map[string]string, error) {
			return map[string]string{"X-Table": m.Table}, nil
		},
	}
	gone := change(4, "b")
	gone.Action = lockstep.Delete
	got := write(t, e, c, change(1, "a"), change(2, "a"), change(3, "b"), gone, change(5, "a"))
	var have []string
	for _, r := range got {
		have = append(have, fmt.Sprint(r.Method, " ", r.Path, " ", r.Header.Get("X-Table"), " ", len(bodies(t, Lockstep, r.Body))))
	}
	want := []string{"PUT /api/orders/a?token=t&full=1 orders 2", "PUT /api/orders/b?token=t&full=1 orders 1", "DELETE /api/orders/b?token=t&full=1 orders 1", "PUT /api/orders/a?token=t&full=1 orders 1"}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

func TestAPathLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	for tail, want := range map[string]string{
		"x": "/api/x", "/x/y": "/api/x/y", "": "/api", "?a=1": "/api?a=1", "a b": "/api/a%20b", "a%2Fb": "/api/a%2Fb",
		"//evil.example/x": "/api//evil.example/x", "https://evil.example": "/api/https://evil.example", "@evil": "/api/@evil",
		"..": "", "../x": "", "x/../../y": "", "%2e%2e/x": "", `..\x`: "", "x#y": "", "%zz": "", "a\nb": "", "a%2f..%2fb": "",
	} {
		e := newEndpoint(t)
		w := e.open(t, Config{URL: e.URL + "/api", PathFor: func(sink.Message) (string, error) { return tail, nil }})
		_, err := w.Write(t.Context(), []sink.Message{change(1, "a")})
		got := e.seen()
		switch {
		case want == "" && (kindIs(err) != sink.Rejected || len(got) > 0):
			t.Errorf("%q: %v, and %d requests", tail, err, len(got))
		case want != "" && (err != nil || len(got) != 1 || got[0].Path != want):
			t.Errorf("%q: %v, %v, want %s", tail, err, got, want)
		}
	}
}

func TestFunctionsThatFailRejectTheChange(t *testing.T) {
	t.Parallel()
	canary := errors.New("no canary in record.amount")
	for name, c := range map[string]Config{
		"path":    {PathFor: func(sink.Message) (string, error) { return "", canary }},
		"method":  {MethodFor: func(sink.Message) (string, error) { return "GET canary", nil }},
		"headers": {HeadersFor: func(sink.Message) (map[string]string, error) { return map[string]string{"X": "canary\r\nY: 1"}, nil }},
		"reserved": {HeadersFor: func(sink.Message) (map[string]string, error) {
			return map[string]string{"webhook-signature": "canary"}, nil
		}},
		"CloudEvents": {Format: CloudEventsBatch, TypeFor: func(sink.Message) (string, error) { return "", canary }},
	} {
		e := newEndpoint(t)
		_, err := e.open(t, c).Write(t.Context(), []sink.Message{change(1, "a")})
		if kindIs(err) != sink.Rejected || strings.Contains(err.Error(), "canary") || len(e.seen()) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	good := Config{URL: "https://example.com/hook"}
	for want, change := range map[string]func(*Config){
		"expected https://":       func(c *Config) { c.URL = "ftp://example.com" },
		"names no host":           func(c *Config) { c.URL = "https:///x" },
		"user information":        func(c *Config) { c.URL = "https://user:hunter2@example.com" },
		"fragment":                func(c *Config) { c.URL += "#x" },
		"cannot be read":          func(c *Config) { c.URL = "https://example.com/%zz-hunter2" },
		"is loopback":             func(c *Config) { c.URL = "http://127.0.0.1:9000" },
		"clouds keep":             func(c *Config) { c.URL = "http://169.254.169.254/latest" },
		"format \"xml\"":          func(c *Config) { c.Format = "xml" },
		"method \"GET\"":          func(c *Config) { c.Method = "GET" },
		"does not begin with":     func(c *Config) { c.Secrets = []Secret{{Key: "hunter2"}} },
		"is not base64":           func(c *Config) { c.Secrets = []Secret{{Key: "whsec_hunter2!"}} },
		"24 to 64":                func(c *Config) { c.Secrets = []Secret{{Key: "whsec_aHVudGVyMg=="}} },
		"Host is set by":          func(c *Config) { c.Headers = map[string]string{"host": "hunter2"} },
		"Webhook-Id is set by":    func(c *Config) { c.Headers = map[string]string{"Webhook-Id": "hunter2"} },
		"Content-Type is set by":  func(c *Config) { c.Headers = map[string]string{"Content-Type": "hunter2"} },
		"another control":         func(c *Config) { c.Headers = map[string]string{"X-A": "hunter2\r\nX-B: c"} },
		"no name of a header":     func(c *Config) { c.Headers = map[string]string{"X A": "hunter2"} },
		"plain is not signed":     func(c *Config) { c.Format, c.Secrets = Plain, []Secret{{Key: key(1)}} },
		"must be a URI reference": func(c *Config) { c.Source = "%zz" },
		"must not be negative":    func(c *Config) { c.Timeout = -1 },
	} {
		c := good
		change(&c)
		_, err := New(c)
		if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(fmt.Sprint(err), want) || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("got %v, want %q in it, and no secret", err, want)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", Config{Secrets: []Secret{{Key: key(1)}}}, []Secret{{Key: key(1)}}, Secret{Key: key(1)}); strings.Contains(text, key(1)) {
		t.Errorf("a secret shows in %s", text)
	}
}
