package sandbox_test

import (
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/sandbox"
)

// counter is the smallest world: a step adds a record.
type counter struct {
	mu   sync.Mutex
	at   []time.Time
	slow time.Duration // what a step takes, in synctest
}

func (w *counter) Step(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slow > 0 {
		<-time.After(w.slow)
	}
	w.at = append(w.at, at)
}

func (w *counter) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = nil
}

func (w *counter) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.at)
}

func (w *counter) Collections() []sandbox.Collection {
	return []sandbox.Collection{{Name: "step", Count: w.count()}}
}

func (w *counter) Records(collection string) (iter.Seq2[string, []byte], bool) {
	n := w.count()
	return func(yield func(string, []byte) bool) {
		for i := range n {
			if !yield(strconv.Itoa(i), fmt.Appendf(nil, `{"id":%d}`, i)) {
				return
			}
		}
	}, collection == "step"
}

// api is a simulated API behind a real server, that answers every path with its
// number of steps and 1000 characters.
type api struct {
	*sandbox.Core
	world  *counter
	t      testing.TB
	url    string
	client *http.Client
	served int
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	a.served++
	if f := sandbox.CallOf(r.Context()).Spoiled(); f != nil {
		sandbox.WriteJSON(w, http.StatusOK, map[string]any{"own": f.Kind, "n": f.N})
		return
	}
	sandbox.WriteJSON(w, http.StatusOK, map[string]any{"steps": a.world.count(), "pad": strings.Repeat("x", 1000)})
}

func config(a *api) sandbox.Config {
	return sandbox.Config{
		Name: "test", Seed: 1, World: a.world, Vendor: http.HandlerFunc(a.serve), Kinds: map[string]string{"own": "the vendor's own"},
		Refuse: func(status int) (string, []byte) {
			return "application/json", fmt.Appendf(nil, `{"refused":%d}`, status)
		},
	}
}

func open(t testing.TB) *api {
	t.Helper()
	a := &api{world: &counter{}, t: t}
	a.Core = sandbox.New(config(a))
	server := httptest.NewServer(a.Core)
	t.Cleanup(server.Close)
	a.url, a.client = server.URL, server.Client()
	a.client.Timeout = 10 * time.Second
	a.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return a
}

// do returns the whole answer, or the error that the client had.
func (a *api) do(method, path, body string) (status int, header http.Header, text string, err error) {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer sk_test_verysecretkey1234")
	w, err := a.client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	return w.StatusCode, w.Header, string(b), err
}

func (a *api) get(path string) string {
	a.t.Helper()
	status, _, text, err := a.do(http.MethodGet, path, "")
	if err != nil || status != http.StatusOK {
		a.t.Fatalf("GET %s: %d %s %v", path, status, text, err)
	}
	return text
}

func (a *api) control(path, body string) string {
	a.t.Helper()
	status, _, text, err := a.do(http.MethodPost, "/_sandbox/"+path, body)
	if err != nil || status >= 300 {
		a.t.Fatalf("POST %s %s: %d %s %v", path, body, status, text, err)
	}
	return text
}
