package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/locksteptest"
	"lockstep/sink"
)

// TestStatusMeans is the table of README.md.
func TestStatusMeans(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	w := e.open(t, Config{})
	byPath := e.open(t, Config{PathFor: func(sink.Message) (string, error) { return "x", nil }})
	for kind, list := range map[sink.Kind][]int{
		"":             {200, 201, 202, 204, 299},
		sink.Refused:   {300, 301, 302, 304, 307, 308, 401, 402, 403, 404, 405, 406, 407, 411, 417, 421, 426, 428, 451},
		sink.Rejected:  {400, 412, 413, 414, 415, 418, 422, 431},
		sink.Retry:     {408, 409, 423, 424, 425, 500, 501, 505, 507, 599},
		sink.Throttled: {429, 502, 503, 504},
		sink.Gone:      {410},
	} {
		for _, status := range list {
			e.status(status, "Location", "http://169.254.169.254/latest/meta-data")
			before := len(e.seen())
			n, err := w.Write(t.Context(), []sink.Message{change(1, "a")})
			if kindIs(err) != kind || (err == nil) != (n == 1) {
				t.Errorf("%d: n = %d, kind %q, want %q: %v", status, n, kindIs(err), kind, err)
			}
			var refused *sink.Error
			if err != nil && (!errors.As(err, &refused) || refused.Status != status || !strings.Contains(err.Error(), "127.0.0.1:")) {
				t.Errorf("%d: %v", status, err)
			}
			if sent := len(e.seen()) - before; sent != 1 {
				t.Errorf("%d: %d requests", status, sent)
			}
			if lockstep.Retryable(err) != (kind == sink.Retry || kind == sink.Throttled) {
				t.Errorf("%d: retryable is %v", status, lockstep.Retryable(err))
			}
		}
	}
	e.status(302, "Location", "http://169.254.169.254/")
	_, err := w.Write(t.Context(), []sink.Message{change(1, "a")})
	mustContain(t, fmt.Sprint(err), "redirects are not followed")
	if strings.Contains(err.Error(), "169") {
		t.Errorf("got %v", err)
	}
	e.status(404)
	if _, err := byPath.Write(t.Context(), []sink.Message{change(1, "a")}); kindIs(err) != sink.Rejected {
		t.Errorf("404 at a path of the change's own: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "1.5": 2 * time.Second, "-3": 0, "soon": 0, "99999999999999999999": longest, "7,8": 0, "1.2.3": 0, ".": 0, "Inf": 0,
		"Sat, 21 Nov 2026 10:02:00 GMT": time.Minute, "Saturday, 21-Nov-26 10:02:00 GMT": time.Minute, "Sat Nov 21 10:02:00 2026": time.Minute,
		"Sat, 21 Nov 2026 09:00:00 GMT": 0, "Sat, 21 Nov 2099 09:00:00 GMT": longest,
	} {
		// The endpoint's clock is a minute ahead.
		if got := retryAfter(value, "Sat, 21 Nov 2026 10:01:00 GMT", now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
	if got := retryAfter("Sat, 21 Nov 2026 10:02:00 GMT", "", now); got != 2*time.Minute {
		t.Errorf("without a date: %s", got)
	}
	e := newEndpoint(t)
	w := e.open(t, Config{})
	for _, status := range []int{429, 500, 503, 422} {
		e.status(status, "Retry-After", "120")
		_, err := w.Write(t.Context(), []sink.Message{change(1, "a")})
		var refused *sink.Error
		if want := map[int]time.Duration{422: 0}; !errors.As(err, &refused) || refused.After != map[bool]time.Duration{true: 2 * time.Minute}[status != 422]+want[status] {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestFailedNamesOnlyThese: the others of the batch are delivered.
func TestFailedNamesOnlyThese(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	w := e.open(t, Config{})
	list := []sink.Message{change(1, "a"), change(2, "b"), change(3, "a"), change(4, "c"), change(5, "d")}
	for answer, want := range map[string][]int{
		`{"failed":["sys-1-2-0"]}`:           {1},
		`{"ok":true,"failed":[2, "4"]}`:      {1, 3},
		`{"failed":[1]}`:                     {0, 2}, // and the later one of its key
		`{"failed":[1,"1","sys-1-1-0"]}`:     {0, 2},
		"\n {\"a\":[{}],\n\"failed\": [5] }": {4},
	} {
		e.answers(text(answer))
		n, err := w.Write(t.Context(), list)
		var partial *sink.PartialError
		if !errors.As(err, &partial) {
			t.Errorf("%s: %v", answer, err)
			continue
		}
		var got []int
		for _, f := range partial.Failed {
			got = append(got, f.Index)
			if kindIs(f.Err) != sink.Retry {
				t.Errorf("%s: %v", answer, f.Err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || n != want[0] {
			t.Errorf("%s: n = %d, %s", answer, n, diff)
		}
	}
	e.answers(text(`{"failed":["sys-1-9-0"]}`))
	if n, err := w.Write(t.Context(), []sink.Message{change(9, "a")}); n != 0 || kindIs(err) != sink.Retry {
		t.Errorf("one change: n = %d, %v", n, err)
	}
}

func text(body string) func(http.ResponseWriter, received) bool {
	return func(w http.ResponseWriter, _ received) bool {
		_, _ = w.Write([]byte(body))
		return true
	}
}

// TestRubbishIn2xxIsSuccess, unless it may hide a list of failures.
func TestRubbishIn2xxIsSuccess(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	w := e.open(t, Config{})
	list := []sink.Message{change(1, "a"), change(2, "b")}
	for answer, want := range map[string]sink.Kind{
		"":                                 "",
		"ok":                               "",
		"<html>\"failed\"</html>":          "",
		`{"failed":0}`:                     "",
		`{"failed":false}`:                 "",
		`{"failed":null}`:                  "",
		`{"failed":[]}`:                    "",
		`{"failed":{"1":"x"}}`:             "",
		`["failed"]`:                       "",
		`{"result":{"failed":[1]}}`:        "",
		`{"failed"`:                        "",
		strings.Repeat("x", 3*AnswerLimit): "",
		`{"failed":[1`:                     sink.Retry,
		`{"failed":[{"id":1}]}`:            sink.Retry,
		`{"failed":[77]}`:                  sink.Retry, // not of this batch: all come again
		`{"failed":[` + strings.Repeat("1,", AnswerLimit):                                                     sink.Retry,
		`{"failed":"` + strings.Repeat("1,", AnswerLimit):                                                     "",
		`{"log":"` + strings.Repeat("x", AnswerLimit-20) + `","failed":[` + strings.Repeat("1,", 100) + `1]}`: sink.Retry,
	} {
		e.answers(text(answer))
		_, err := w.Write(t.Context(), list)
		if kindIs(err) != want {
			t.Errorf("%.60s: kind %q, want %q: %v", answer, kindIs(err), want, err)
		}
	}
}

// TestABatchThatIsRejectedIsTakenApart: only the bad ones are rejected, and a key stops
// at its bad one.
func TestABatchThatIsRejectedIsTakenApart(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	w := e.open(t, Config{})
	var list []sink.Message
	for i := range 16 {
		list = append(list, change(uint64(i+1), fmt.Sprint("k", i%8)))
	}
	e.answers(func(w http.ResponseWriter, r received) bool {
		for _, b := range bodies(t, Lockstep, r.Body) {
			if strings.Contains(string(b), `"id":"k3"`) {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return false
			}
		}
		return true
	})
	n, err := w.Write(t.Context(), list)
	var partial *sink.PartialError
	if !errors.As(err, &partial) || n != 3 || len(partial.Failed) != 2 ||
		partial.Failed[0].Index != 3 || kindIs(partial.Failed[0].Err) != sink.Rejected ||
		partial.Failed[1].Index != 11 || kindIs(partial.Failed[1].Err) != sink.Retry {
		t.Fatalf("n = %d, %v", n, err)
	}
	if got := e.arrivals(t, Lockstep); len(got) != 14 {
		t.Errorf("%d changes arrived, want 14", len(got))
	}
	if sent := len(e.seen()); sent > 11 {
		t.Errorf("%d requests", sent)
	}
	e.answers(func(w http.ResponseWriter, r received) bool { // it breaks while it is taken apart
		if len(bodies(t, Lockstep, r.Body)) > 4 {
			w.WriteHeader(http.StatusBadRequest)
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return false
	})
	if n, err := w.Write(t.Context(), list); n != 0 || kindIs(err) != sink.Throttled {
		t.Errorf("n = %d, %v", n, err)
	}
}

// TestAnEndpointThatHangs in one of several ways costs one time-out.
func TestAnEndpointThatHangs(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	e := newEndpoint(t)
	t.Cleanup(func() { close(over) })
	w := e.open(t, Config{Timeout: 300 * time.Millisecond})
	tick := func(w http.ResponseWriter) bool {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return false
			case <-ticker.C:
				if _, err := w.Write([]byte(" ")); err != nil {
					return false
				}
				if http.NewResponseController(w).Flush() != nil {
					return false
				}
			}
		}
	}
	for name, answer := range map[string]func(http.ResponseWriter, received) bool{
		"never answers":        func(http.ResponseWriter, received) bool { <-over; return false },
		"answers byte by byte": func(w http.ResponseWriter, _ received) bool { return tick(w) },
		"fails byte by byte":   func(w http.ResponseWriter, _ received) bool { w.WriteHeader(500); return tick(w) },
		"stops in the middle": func(w http.ResponseWriter, _ received) bool {
			w.Header().Set("Content-Length", "9")
			_ = http.NewResponseController(w).Flush()
			<-over
			return false
		},
		"cuts its own answer": func(w http.ResponseWriter, _ received) bool {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("1"))
			return false
		},
		"panics": func(http.ResponseWriter, received) bool { panic(http.ErrAbortHandler) },
		"has too many headers": func(w http.ResponseWriter, _ received) bool {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
			return false
		},
		"speaks something else": func(w http.ResponseWriter, _ received) bool { return hijack(t, w, "SSH-2.0-canary\r\n") },
	} {
		e.answers(answer)
		began := time.Now()
		_, err := w.Write(t.Context(), []sink.Message{change(1, "a")})
		if took := time.Since(began); kindIs(err) != sink.Retry || took > 3*time.Second || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: after %s %v", name, took, err)
		}
	}
	e.answers(nil)
	if _, err := w.Write(t.Context(), []sink.Message{change(1, "a")}); err != nil {
		t.Error(err)
	}
}

func hijack(t testing.TB, w http.ResponseWriter, text string) bool {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return false
	}
	defer c.Close()
	_, _ = c.Write([]byte(text))
	return false
}

// TestErrorsSayWhatIsWrong: what a person must know, and nothing else.
func TestErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	tls, plain := newTLSEndpoint(t), newEndpoint(t)
	var config net.ListenConfig
	closed, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for url, want := range map[string]struct {
		kind sink.Kind
		text string
	}{
		tls.URL: {sink.Refused, "of an authority that is not trusted"},
		strings.Replace(plain.URL, "http:", "https:", 1): {sink.Retry, "does not speak TLS"},
		"http://" + closed.Addr().String():               {sink.Retry, "no connection: connection refused"},
		"http://nowhere.invalid":                         {sink.Retry, "DNS"},
	} {
		w, err := New(Config{URL: url + "/path-secret", AllowPrivate: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(t.Context(), []sink.Message{change(1, "a")})
		if kindIs(err) != want.kind && !strings.Contains(url, "invalid") || strings.Contains(fmt.Sprint(err), "path-secret") {
			t.Errorf("%s: kind %s, %v", url, kindIs(err), err)
		}
		if !strings.Contains(url, "invalid") {
			mustContain(t, fmt.Sprint(err), want.text)
		}
		_ = w.Close(t.Context())
	}
	p := locksteptest.NewProxy(t, tls.Listener.Addr().String())
	w := tls.open(t, Config{URL: strings.Replace(p.Address(), "127.0.0.1", "https://localhost", 1)})
	_, err = w.Write(t.Context(), []sink.Message{change(1, "a")})
	mustContain(t, fmt.Sprint(err), "its certificate is for another name")
}

// TestAttemptsAreTold: what people need to see, without what they must not.
func TestAttemptsAreTold(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	var told []Attempt
	w := e.open(t, Config{
		URL: e.URL + "/secret-path?token=secret-token", Secrets: []Secret{{Key: key(1)}}, Headers: map[string]string{"Authorization": "secret"}, Kept: 10,
		PathFor: func(sink.Message) (string, error) { return "orders/7", nil },
		Attempt: func(_ context.Context, a Attempt) { told = append(told, a) },
	})
	e.status(503, "Retry-After", "1", "Set-Cookie", "secret")
	m := change(1, "a")
	m.Attempt = 4
	if _, err := w.Write(t.Context(), []sink.Message{m}); err == nil {
		t.Fatal("no error")
	}
	e.answers(text(`{"failed":[1], "and so on":1}`))
	_, _ = w.Write(t.Context(), []sink.Message{change(1, "a"), change(2, "b")})
	if len(told) != 2 {
		t.Fatalf("%d attempts", len(told))
	}
	a := told[0]
	if a.Status != 503 || a.Err == nil || a.Number != 4 || a.ID != m.IdempotencyKey || a.Method != "POST" || !cmp.Equal(a.Seqs, []uint64{1}) ||
		string(a.RequestBody) != string(m.Body[:10]) || a.RequestSize != len(m.Body) || a.Duration <= 0 || a.AnswerHeader.Get("Retry-After") != "1" {
		t.Errorf("got %+v", a)
	}
	if !strings.HasSuffix(a.URL, "/…/orders/7") || strings.Contains(fmt.Sprintf("%+v", a), "secret") {
		t.Errorf("got %+v", a)
	}
	b := told[1]
	if b.Status != 200 || b.Failed != 1 || !cmp.Equal(b.Seqs, []uint64{1, 2}) || string(b.AnswerBody) != `{"failed":` || b.Err != nil {
		t.Errorf("got %+v", b)
	}
}

func TestATestEventIsSentInEachFormat(t *testing.T) {
	t.Parallel()
	for _, format := range []Format{Lockstep, Plain, CloudEvents, CloudEventsStructured, CloudEventsBatch} {
		e := newEndpoint(t)
		told := 0
		w := e.open(t, Config{Format: format, Attempt: func(context.Context, Attempt) { told++ }})
		a, err := w.Test(t.Context())
		if err != nil || !a.Test || a.Status != 200 || told != 1 || len(a.RequestBody) == 0 {
			t.Errorf("%s: %v, %+v", format, err, a)
		}
		got := e.seen()[0]
		if got.Header.Get("Lockstep-Test") != "1" || !strings.Contains(string(got.Body), "test event of Lockstep") {
			t.Errorf("%s: %v %s", format, got.Header, got.Body)
		}
		e.status(401)
		if a, err := w.Test(t.Context()); kindIs(err) != sink.Refused || a.Status != 401 {
			t.Errorf("%s: %v, %+v", format, err, a)
		}
	}
}

// TestAnAnswerWithoutEndIsNotRead: it is delivered, and a bounded part of the answer came
// over.
func TestAnAnswerWithoutEndIsNotRead(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	var kept int
	w := e.open(t, Config{Timeout: 20 * time.Second, Kept: 1 << 30, Attempt: func(_ context.Context, a Attempt) { kept = len(a.AnswerBody) }})
	ended := make(chan struct{})
	e.answers(func(w http.ResponseWriter, _ received) bool {
		defer close(ended)
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return true
			}
		}
	})
	if _, err := w.Write(t.Context(), []sink.Message{change(1, "a")}); err != nil {
		t.Fatal(err)
	}
	<-ended
	if kept != AnswerLimit {
		t.Errorf("%d bytes were read", kept)
	}
}
