package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/pgdb/pgtest"
)

// serve runs a server; the returned function stops it and waits.
func (n *node) serve(t testing.TB, s api.Server) (base string, stop func() error) {
	t.Helper()
	l, err := n.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.API, s.Listener, s.Logger = n.API, l, slog.New(slog.NewTextHandler(n.logged, nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return "http://" + l.Addr().String(), stop
}

func get(t testing.TB, url string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return http.DefaultClient.Do(r)
}

func TestStoppingWakesLongPollsEndsStreamsAndLeavesNothingRunning(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	n := newNode(t)
	n.log.add(`{"id":1}`)
	base, stop := n.serve(t, api.Server{})
	polled := make(chan string, 1)
	go func() {
		w, err := get(t, base+"/v1/consumers/orders/next?wait_for=5m")
		if err != nil {
			polled <- err.Error()
			return
		}
		defer w.Body.Close()
		data, _ := io.ReadAll(w.Body)
		polled <- fmt.Sprint(w.StatusCode, " ", string(data))
	}()
	w, err := get(t, base+"/v1/databases/app/changes?from=beginning")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	lines := bufio.NewReader(w.Body)
	for line := ""; !strings.HasPrefix(line, "data: "); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Eventually(t, 10*time.Second, "the long poll waits", func() bool { return n.consumer("orders").waited() > 0 })
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if got := <-polled; !strings.HasPrefix(got, `200 {"data":[],`) {
		t.Errorf("the long poll got %s", got)
	}
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "\n" {
		t.Errorf("the stream ended with %q, %v; want the end of the event", rest, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestALongPollOutlivesTheTimeoutsOfOrdinaryCalls(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	base, _ := n.serve(t, api.Server{HeaderTimeout: 50 * time.Millisecond, ReadTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		r, err := http.NewRequestWithContext(t.Context(), method, base+"/v1/consumers/orders/next?wait_for=400ms", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		data, err := io.ReadAll(w.Body)
		_ = w.Body.Close()
		if err != nil || w.StatusCode != 200 || !strings.HasPrefix(string(data), `{"data":[]`) {
			t.Errorf("%s: %d %s %v", method, w.StatusCode, data, err)
		}
	}
}

// deadlines is a connection that remembers its write deadlines.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

func TestAWorkerThatTakesNothingIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, target := range []string{"/v1/consumers/orders/next", "/v1/consumers/orders/next?wait_for=1"} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		n.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+target, nil))
		if len(w.set) == 0 || time.Until(w.set[len(w.set)-1]) <= 0 {
			t.Errorf("%s: write deadlines %v; want the last one ahead", target, w.set)
		}
	}
}

func TestASlowSenderIsCutOff(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	base, _ := n.serve(t, api.Server{HeaderTimeout: 50 * time.Millisecond, ReadTimeout: 50 * time.Millisecond})
	for _, start := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n",
		"POST /v1/consumers/orders/ack HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, start); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("%q: %v; want the server to hang up", start, err)
		}
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	base, _ := n.serve(t, api.Server{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	if w.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", w.StatusCode)
	}
}

func TestListenRefusesToBeReachableWithoutAToken(t *testing.T) {
	t.Parallel()
	if _, err := newNode(t).Listen(t.Context(), "0.0.0.0:0"); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: %v", err)
	}
	l, err := newNode(t, auth.Static{Name: "a", Token: "a", Scopes: []string{"admin"}}).Listen(t.Context(), "0.0.0.0:0")
	if err != nil {
		t.Fatalf("with a token: %v", err)
	}
	defer l.Close()
	if _, err := newNode(t).Listen(t.Context(), "127.0.0.1:"+fmt.Sprint(l.Addr().(*net.TCPAddr).Port)); err == nil || !strings.Contains(err.Error(), "listen") {
		t.Errorf("a port in use: %v", err)
	}
}

func TestAnOpenNodeAnswersOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// As if somebody had put it behind a listener of their own.
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/v1/consumers", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7300}))
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	wantProblem(t, response{w.Code, w.Header(), w.Body.String()}, http.StatusForbidden)
}

func TestReadinessTellsTheTruth(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.parts = []api.Part{{Name: "capture app", Ready: true}, {Name: "stream", Ready: true}}
	if got := n.do("GET", "/readyz", ""); got.status != 200 || !strings.Contains(got.body, `"ready":true`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	n.parts[0] = api.Part{Name: "capture app", Reason: "connect to postgres://app:hunter2@db/app: refused"}
	got := n.do("GET", "/readyz", "")
	if got.status != 503 || !strings.Contains(got.body, "capture app") || !strings.Contains(got.body, "refused") || strings.Contains(got.body, "hunter2") {
		t.Errorf("%d %s", got.status, got.body)
	}
	n.parts[0] = api.Part{Name: "capture app", Ready: true}
	unread, err := auth.Open(auth.Config{Store: &memTokens{}})
	if err != nil {
		t.Fatal(err)
	}
	n2 := newNodeWith(t, func(c *api.Config) { c.Tokens = unread })
	if got := n2.do("GET", "/readyz", ""); got.status != 503 || !strings.Contains(got.body, "tokens") {
		t.Errorf("nobody can come in yet: %d %s", got.status, got.body)
	}
	if got := n.do("GET", "/healthz", ""); got.status != 200 {
		t.Errorf("healthz: %d", got.status)
	}
}

func TestStatusShowsEverythingInOneAnswer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1}`)
	got := mustJSON[api.NodeStatus](t, n.do("GET", "/v1/status", "").body)
	if got.Version != "test" || !got.Open || len(got.Databases) != 1 || got.Databases[0].LastSeq != 1 || !got.Databases[0].Connected || len(got.Consumers) != 3 || got.Consumers[1].Name != "orders" {
		t.Errorf("%+v", got)
	}
	if got := n.do("GET", "/metrics", ""); !strings.Contains(got.body, `lockstep_http_requests_total{code="200",method="GET",route="/v1/status"} 1`) {
		t.Errorf("metrics lack the call:\n%s", got.body)
	}
}
