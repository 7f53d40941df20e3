package examples_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// watched serves an example's page with a script that tells the test what it shows.
type watched struct {
	*httptest.Server
	mu    sync.Mutex
	shown string // guarded by mu
	again string // guarded by mu: the page is to be loaded again when it shows this; empty: it is not
}

const watching = `<script>
  let told = Promise.resolve() // one after the other: what is told last is what is shown
  const tell = () => {
    told = told.then(async () => {
      const answer = await fetch('/shown', { method: 'POST', body: document.body.innerText })
      if ((await answer.text()) === 'again') location.reload()
    })
  }
  new MutationObserver(tell).observe(document.body, { subtree: true, childList: true, characterData: true })
  tell()
</script></html>`

func watch(t *testing.T, at string) *watched {
	t.Helper()
	target, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Path != "/" {
				return nil
			}
			page, err := io.ReadAll(r.Body)
			page = bytes.Replace(page, []byte("</html>"), []byte(watching), 1)
			r.Body = io.NopCloser(bytes.NewReader(page))
			r.ContentLength = int64(len(page))
			r.Header.Set("Content-Length", strconv.Itoa(len(page)))
			return err
		},
	}
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/shown" {
			proxy.ServeHTTP(out, r)
			return
		}
		body := read(t, r)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.shown = string(body); w.again != "" && strings.Contains(w.shown, w.again) {
			w.again, w.shown = "", ""
			_, _ = io.WriteString(out, "again")
		}
	}))
	t.Cleanup(w.Close)
	return w
}

// events returns the lines that the page shows below its heading, and its state.
func (w *watched) events() (state string, list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(w.shown) {
		line = strings.TrimSpace(line)
		switch {
		case line == "live", line == "waiting", line == "connecting":
			state = line
		case line != "" && line != "Events":
			list = append(list, line)
		}
	}
	return state, list
}

// reload has the page loaded again when it shows a text.
func (w *watched) reload(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.again = text
}

func (w *watched) reloaded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.again == ""
}

// browse opens a page in a browser of its own, until the test ends.
func browse(t *testing.T, chromium, page string) {
	t.Helper()
	c := exec.Command(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), page)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its processes end with it
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		defer timer.Stop()
		_ = c.Wait() // it says that it was killed
	})
}

// TestSSEBrowser: in a real browser, over a restart of the node, and of the browser.
func TestSSEBrowser(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium")
	}
	address := freeAddress(t)
	p := newProgram(t, nil, build(t, "sse-browser"))
	page := watch(t, "http://"+address)
	n := newNode(t, "test-token-of-the-administrator", fmt.Sprintf("cors: [%q]\ntokens:\n  - {name: test, token: test-token-of-the-administrator, scopes: [admin]}\n"+
		"  - {name: web, token: test-token-of-the-application, scopes: [\"consume:ann\"]}\n", page.URL))
	n.exec("CREATE TABLE events (id bigserial PRIMARY KEY, type text, timestamp timestamptz DEFAULT now(), subscriber text, payload jsonb)")
	p.env = []string{"LISTEN=" + address, "LOCKSTEP_SERVER=" + n.url(), "LOCKSTEP_TOKEN=test-token-of-the-application"}
	p.start()
	pgtest.Eventually(t, 30*time.Second, "the program to listen", func() bool { return strings.Contains(p.text(), "listening") })
	var want []string
	happen := func(subscriber string, order int) {
		n.exec(fmt.Sprintf(`INSERT INTO events (type, subscriber, payload) VALUES ('order.paid', '%s', '{"order": %d}')`, subscriber, order))
		if subscriber == "ann" {
			want = append(want, fmt.Sprintf(`order.paid {"order": %d}`, order))
		}
	}
	shows := func(what string) {
		t.Helper()
		ok := false
		defer func() {
			if !ok {
				t.Logf("%s: the page shows %q, want %q", what, page.shown, want)
			}
		}()
		pgtest.Eventually(t, time.Minute, what, func() bool {
			state, got := page.events()
			return state == "live" && slices.Equal(got, want)
		})
		ok = true
	}
	happen("ann", 1)
	browse(t, chromium, page.URL)
	shows("what was there before")
	happen("bob", 2)
	happen("ann", 3)
	shows("what happens")
	n.end()
	happen("ann", 4)
	n.start()
	happen("ann", 5)
	shows("what happened while the node was away")
	page.reload(`{"order": 6}`)
	happen("ann", 6) // is shown, and then the page is loaded again
	pgtest.Eventually(t, time.Minute, "the page to be loaded again", page.reloaded)
	want = nil
	shows("that it is connected again")
	happen("ann", 7)
	shows("only what happened after the reload")
}
