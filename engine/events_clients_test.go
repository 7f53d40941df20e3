package engine_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// snippet returns the first block of code of a language of docs/events.md.
func snippet(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "events.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n```"+language+"\n")
	code, _, closed := strings.Cut(rest, "\n```\n")
	if !ok || !closed {
		t.Fatalf("docs/events.md has no code in %s", language)
	}
	return code + "\n"
}

// program needs a program of this machine.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s on this machine: the snippet of docs/events.md needs it", name)
	}
	return path
}

// TestTheClientsOfTheDocsFollowThroughAKill runs what docs/events.md shows, as it is. For
// npm's client EVENTSOURCE_SDK names a folder in which npm install eventsource@5.1.5 was
// run.
func TestTheClientsOfTheDocsFollowThroughAKill(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]func(t *testing.T, dir, server string) []string{
		"curl": func(t *testing.T, _, server string) []string {
			return []string{"sh", "-c", "last=1; while true; do " + program(t, "curl") + ` -sN ` + server + `/events -H 'X-Consumer-Id: toto' -H "Last-Event-ID: $last" | tee part; ` +
				`new=$(grep '^id: ' part | tail -1 | cut -c5-); last=${new:-$last}; sleep 0.2; done`}
		},
		"Node": func(t *testing.T, dir, server string) []string {
			sdk := os.Getenv("EVENTSOURCE_SDK")
			if _, err := os.Stat(filepath.Join(sdk, "node_modules", "eventsource")); sdk == "" || err != nil {
				t.Skip("there is no eventsource for node: npm install eventsource@5.1.5 somewhere, and set EVENTSOURCE_SDK to that folder")
			}
			if err := os.Symlink(filepath.Join(sdk, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "subscriber.mjs"), snippet(t, "js"))
			return []string{program(t, "node"), "subscriber.mjs", server, "toto", "1"}
		},
		"Java": func(t *testing.T, dir, server string) []string {
			writeFile(t, filepath.Join(dir, "Subscriber.java"), snippet(t, "java"))
			return []string{program(t, "java"), "Subscriber.java", server, "toto", "1"}
		},
		"Python": func(t *testing.T, dir, server string) []string {
			writeFile(t, filepath.Join(dir, "subscriber.py"), snippet(t, "python"))
			return []string{program(t, "python3"), "subscriber.py", server, "toto", "1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			url := pgtest.Database(t)
			pgtest.Exec(t, url, eventsTable)
			n := newNode(t, url, "  []\n")
			n.slot("events_" + strings.ToLower(name))
			args := command(t, dir, "http://"+n.server)
			n.start()
			pgtest.Exec(t, url, insertEvent("nobody", 0))
			inStream(t, n, 1) // the clients begin behind it
			out := start(t, dir, args)
			through(t, url, n, func() []string { return eventIDs(out.String()) })
		})
	}
}

// through lets a client follow live, through a kill, and what happened meanwhile.
func through(t *testing.T, url string, n *node, seen func() []string) {
	t.Helper()
	await := func(want int) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, fmt.Sprintf("%d events", want), func() bool { return len(seen()) >= want })
	}
	// A client that begins now has to be there first.
	sent := 0
	for len(seen()) == 0 && sent < 100 {
		pgtest.Exec(t, url, insertEvent("toto", sent))
		sent++
		timer := time.NewTimer(200 * time.Millisecond)
		<-timer.C
	}
	await(1)
	n.kill()
	pgtest.Exec(t, url, insertEvent("toto", 1), insertEvent("other", 1), insertEvent("toto", 2))
	n.start()
	pgtest.Exec(t, url, insertEvent("toto", 3))
	got := seen()
	first := number(t, got[0])
	var want []string
	for _, row := range pgtest.Query(t, url, `SELECT id FROM events WHERE subscriber = 'toto' AND id >= `+strconv.Itoa(first)+` ORDER BY id`) {
		want = append(want, row[0])
	}
	await(len(want))
	if got := seen(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// eventIDs returns the ids of events, in what curl writes or what the snippets do.
func eventIDs(out string) (ids []string) {
	id := ""
	for line := range strings.Lines(out) {
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "id: "):
			id = fields[1]
		case strings.HasPrefix(line, "data: "):
			ids = append(ids, id)
		case len(fields) > 2 && fields[1] == "order.paid":
			ids = append(ids, fields[0])
		}
	}
	return ids
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestABrowserFollowsThroughAKill lets a headless Chromium run the page of
// docs/events.md, with a ticket, from another origin than the node's.
func TestABrowserFollowsThroughAKill(t *testing.T) {
	t.Parallel()
	chromium := program(t, "chromium")
	url := pgtest.Database(t)
	pgtest.Exec(t, url, eventsTable)
	n := newNode(t, url, "  []\n")
	n.slot("events_browser")
	var mu sync.Mutex
	seen := ""
	page := http.NewServeMux()
	page.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, snippet(t, "html")+`<script>
const list = document.getElementById('list')
const tell = () => fetch('/seen', {method: 'POST', body: [...list.children].map((item) => item.textContent).join('\n')})
new MutationObserver(tell).observe(list, {childList: true})
</script>`)
	})
	page.HandleFunc("POST /seen", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if len(body) > len(seen) { // posts may overtake each other
			seen = string(body)
		}
	})
	page.HandleFunc("GET /event-address", func(w http.ResponseWriter, r *http.Request) {
		status, body := post(t, "http://"+n.server+"/v1/events/tickets", `{"consumer_id":"toto"}`)
		if status != http.StatusCreated {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, rest, _ := strings.Cut(body, `"ticket":"`)
		ticket, _, _ := strings.Cut(rest, `"`)
		_, _ = io.WriteString(w, "http://"+n.server+"/events?ticket="+ticket)
	})
	server := httptest.NewServer(page)
	defer server.Close()
	n.start()
	dir := t.TempDir()
	start(t, dir, []string{chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + dir, server.URL})
	through(t, url, n, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return eventIDs(seen)
	})
}

// transcript is what a program has said.
type transcript struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	return len(p), nil
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// start runs a program, with all that it starts, until the end of the test.
func start(t *testing.T, dir string, args []string) *transcript {
	t.Helper()
	out, errs := &transcript{}, &transcript{}
	c := exec.Command(args[0], args[1:]...)
	c.Dir, c.Stdout, c.Stderr = dir, out, errs
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = 5 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said:\n%s\nand complained:\n%s", args[0], out, errs)
		}
	})
	return out
}

func post(t *testing.T, address, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	w, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, ""
	}
	defer w.Body.Close()
	answer, err := io.ReadAll(w.Body)
	if err != nil {
		return 0, ""
	}
	return w.StatusCode, string(answer)
}
