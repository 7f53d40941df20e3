package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

const listenSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// received is one request to a local program.
type received struct {
	path, attempt string
	header        http.Header
	body          []byte
}

func (r received) pk() string {
	var m struct {
		Metadata struct {
			PKs []string `json:"record_pks"`
		}
	}
	_ = json.Unmarshal(r.body, &m)
	return strings.Join(m.Metadata.PKs, ",")
}

// program is what changes are forwarded to.
type program struct {
	*httptest.Server
	mu     sync.Mutex
	got    []received
	answer func(received) int // guarded by mu; 0: it answers when it is told to end
	ended  chan struct{}
}

func newProgram(t *testing.T, answer func(received) int) *program {
	t.Helper()
	p := &program{answer: answer, ended: make(chan struct{})}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		one := received{path: r.URL.Path, attempt: r.Header.Get("Lockstep-Attempt"), header: r.Header, body: body}
		p.mu.Lock()
		p.got = append(p.got, one)
		status := p.answer(one)
		p.mu.Unlock()
		if status == 0 {
			select {
			case <-p.ended:
			case <-r.Context().Done():
			}
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(func() { close(p.ended); p.Close() })
	return p
}

func (p *program) requests() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *program) port(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// listening is a lockstep listen that runs.
type listening struct {
	t    *testing.T
	cmd  *exec.Cmd
	said bytes.Buffer // what it wrote to standard error

	mu    sync.Mutex
	lines []string
	done  chan struct{}
}

// listen starts the command, and returns when it forwards.
func (s *stranger) listen(args ...string) *listening {
	s.t.Helper()
	l := &listening{t: s.t, cmd: s.command(append([]string{"listen"}, args...)...), done: make(chan struct{})}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	errs, err := l.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			l.mu.Lock()
			l.lines = append(l.lines, lines.Text())
			l.mu.Unlock()
		}
	})
	reading.Go(func() {
		lines := bufio.NewScanner(io.TeeReader(errs, &l.said))
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "forwarding ") {
				close(ready)
			}
		}
	})
	go func() { reading.Wait(); close(l.done) }()
	select {
	case <-ready:
	case <-l.done:
		s.t.Fatalf("it ended: %v: %s", l.cmd.Wait(), l.said.String())
	}
	return l
}

// interrupt ends it as Ctrl-C does, and returns what it said.
func (l *listening) interrupt() string {
	l.t.Helper()
	if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
		l.t.Fatal(err)
	}
	<-l.done
	if err := l.cmd.Wait(); err != nil {
		l.t.Errorf("it ended with %v: %s", err, l.said.String())
	}
	return l.said.String()
}

func (l *listening) shown() []forwardedView {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []forwardedView
	for _, line := range l.lines {
		var v forwardedView
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			l.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, v)
	}
	return list
}

// newListenNode starts a node with two tables, and returns the command's surroundings.
func newListenNode(t *testing.T) (s *stranger, api *client.Client, database string) {
	t.Helper()
	s = &stranger{t: t, dir: t.TempDir()}
	if err := os.Chmod(s.dir, 0o755); err != nil { // Postgres runs as another user below it
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close() // the node's, from now on
	if err := os.WriteFile(filepath.Join(s.dir, "lockstep.yml"), []byte("listen: "+address+"\ndatabases: [{name: app}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	database = s.background(regexp.MustCompile(`postgres://[^"]+`), "serve")
	s.ready(address)
	s.env = []string{"LOCKSTEP_SERVER=http://" + address}
	if api, err = client.New(client.Config{Server: "http://" + address}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	pgtest.Exec(t, database, "CREATE TABLE orders (id int PRIMARY KEY, note text)", "CREATE TABLE others (id int PRIMARY KEY)")
	return s, api, database
}

func TestListen(t *testing.T) {
	t.Parallel()
	s, api, database := newListenNode(t)
	t.Run("forwards as the webhook kind does", func(t *testing.T) { listenForwards(t, s, api, database) })
	t.Run("a program that is away, and an interrupt", func(t *testing.T) { listenGivesBack(t, s, api, database) })
	t.Run("a program that wants no more", func(t *testing.T) { listenEnds(t, s, api, database) })
	t.Run("what cannot be", func(t *testing.T) { listenRefuses(t, s, api) })
}

// listenForwards: requests are those of a consumer of kind webhook, in order per key; what
// fails comes again, and others go by; nothing is left of the run.
func listenForwards(t *testing.T, s *stranger, api *client.Client, database string) {
	tries := 0
	p := newProgram(t, func(r received) int {
		if r.pk() == "2" {
			if tries++; tries == 1 {
				return http.StatusInternalServerError
			}
		}
		return http.StatusNoContent
	})
	kind := newProgram(t, func(received) int { return http.StatusNoContent })
	l := s.listen(p.port(t), "--path", "/hooks", "--table", "orders", "--secret", listenSecret, "-o", "json")
	_, err := api.CreateConsumer(t.Context(), client.Definition{
		Name: "kind", Kind: "webhook", Tables: []string{"public.orders"}, Webhook: json.RawMessage(fmt.Sprintf(`{"url":%q,"secret":%q,"allow_private":true}`, kind.URL+"/hooks", listenSecret)),
	})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, database, "BEGIN", "INSERT INTO others VALUES (1)", "INSERT INTO orders VALUES (1, 'é <&>'), (2, NULL), (3, 'x')",
		"UPDATE orders SET note = 'y'", "DELETE FROM orders WHERE id = 1", "TRUNCATE orders", "COMMIT")
	pgtest.Eventually(t, 30*time.Second, "everything to be forwarded", func() bool { return len(p.requests()) == 9 && len(kind.requests()) == 8 })
	said := l.interrupt()
	if !strings.Contains(said, "forwarding changes of public.orders to "+p.URL+"/hooks;") || !strings.HasSuffix(said, "8 delivered, 1 failed attempts\n") {
		t.Errorf("it said %q", said)
	}
	equalRequests(t, p.requests(), kind.requests())
	if list, err := api.Consumers(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("consumers afterwards: %v, %v", list, err)
	}
	var seen []string
	for _, v := range l.shown() {
		seen = append(seen, fmt.Sprintf("%s %s %v %d %d", v.Action, v.Table, v.RecordPKs, v.Attempt, v.Status))
		if v.MS <= 0 || v.IdempotencyKey == "" || v.Delivered != (v.Status == 204) || (v.Error == "") != v.Delivered {
			t.Errorf("shown: %+v", v)
		}
	}
	want := []string{"insert public.orders [1] 1 204", "insert public.orders [2] 1 500", "insert public.orders [3] 1 204", "update public.orders [1] 1 204", "update public.orders [3] 1 204",
		"delete public.orders [1] 1 204", "insert public.orders [2] 2 204", "update public.orders [2] 1 204", "truncate public.orders [] 1 204"}
	if !slices.Equal(seen, want) {
		t.Errorf("shown: %s", strings.Join(seen, "\n"))
	}
}

// equalRequests compares what two programs were sent, but for whose consumer it is.
func equalRequests(t *testing.T, got, want []received) {
	t.Helper()
	consumer := regexp.MustCompile(`"consumer":\{[^}]*\}`)
	texts := func(list []received) (out []string) {
		for _, r := range list {
			out = append(out, r.path+" "+r.header.Get("Webhook-Id")+" "+r.header.Get("Content-Type")+" "+r.header.Get("User-Agent")+" "+consumer.ReplaceAllString(string(r.body), ""))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	if one, other := texts(got), texts(want); !slices.Equal(one, other) {
		t.Errorf("listen sent\n%s\nand kind webhook\n%s", strings.Join(one, "\n"), strings.Join(other, "\n"))
	}
	hooks, err := standardwebhooks.NewWebhook(listenSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		if err := hooks.Verify(r.body, r.header); err != nil {
			t.Errorf("the signature of %s: %v", r.body, err)
		}
	}
}

// listenGivesBack: nothing is counted against a change that the program did not get, and
// after an interrupt everything that was out is to be had at once.
func listenGivesBack(t *testing.T, s *stranger, api *client.Client, database string) {
	if _, err := api.CreateConsumer(t.Context(), client.Definition{Name: "named", Kind: "http", Tables: []string{"public.orders"}, MaxAttempts: 1, AckWait: "10m"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, database, "INSERT INTO orders SELECT g FROM generate_series(1, 20) g")
	away := newProgram(t, func(received) int { return http.StatusNoContent })
	port := away.port(t)
	away.Close()
	l := s.listen(port, "--consumer", "named", "-o", "json")
	pgtest.Eventually(t, 30*time.Second, "several attempts", func() bool { return len(l.shown()) >= 2 })
	l.interrupt()
	for _, v := range l.shown() {
		if v.Status != 0 || v.Delivered || v.Attempt != 1 || !slices.Equal(v.RecordPKs, []string{"1"}) {
			t.Errorf("shown: %+v", v)
		}
	}

	hangs := newProgram(t, func(r received) int {
		if r.pk() == "3" {
			return 0
		}
		return http.StatusOK
	})
	l = s.listen(hangs.port(t), "--consumer", "named")
	pgtest.Eventually(t, 30*time.Second, "the one that is not answered", func() bool { return len(hangs.requests()) == 3 })
	l.interrupt()
	c, err := api.Consumer(t.Context(), "named")
	if err != nil || c.Stats.InFlight != 0 || c.Stats.Acked != 2 || c.Stats.Dead != 0 {
		t.Errorf("afterwards: %+v, %v", c.Stats, err)
	}
	batch, err := api.Next(t.Context(), "named", 100, time.Second)
	if err != nil || len(batch.Deliveries) != 18 {
		t.Fatalf("%d changes are to be had, %v", len(batch.Deliveries), err)
	}
	if d := batch.Deliveries[0]; d.Attempt != 1 || d.Metadata.RecordPKs[0] != "3" {
		t.Errorf("the first is %v of attempt %d", d.Metadata.RecordPKs, d.Attempt)
	}
	if err := api.Nack(t.Context(), "named", client.Nack{Release: true}, tokensOf(batch)...); err != nil {
		t.Fatal(err)
	}
	listenShows(t, s)
}

// listenShows: what people see.
func listenShows(t *testing.T, s *stranger) {
	p := newProgram(t, func(received) int { return http.StatusOK })
	l := s.listen(p.port(t), "--consumer", "named")
	pgtest.Eventually(t, 30*time.Second, "the rest", func() bool { return len(p.requests()) == 18 })
	l.interrupt()
	line := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3}  insert    public\.orders  \(3\)  200  [\d.]+[mµ]?s$`)
	if len(l.lines) != 18 || !line.MatchString(l.lines[0]) {
		t.Errorf("%d lines, the first: %q", len(l.lines), l.lines)
	}
}

func listenEnds(t *testing.T, s *stranger, api *client.Client, database string) {
	p := newProgram(t, func(received) int { return http.StatusGone })
	l := s.listen(p.port(t), "--table", "others")
	pgtest.Exec(t, database, "INSERT INTO others VALUES (2)")
	<-l.done
	if err := l.cmd.Wait(); err == nil || !strings.Contains(l.said.String(), "lockstep: the program wants no more: ") {
		t.Errorf("it ended with %v: %s", err, l.said.String())
	}
	if list, err := api.Consumers(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("consumers afterwards: %v, %v", list, err)
	}
}

func listenRefuses(t *testing.T, s *stranger, api *client.Client) {
	for args, want := range map[string]string{
		"0":                                  "0 is no port",
		"70000":                              "70000",
		"80 --secret whsec_short":            "secret",
		"80 --timeout 1h":                    "out of range",
		"80 --consumer named --table orders": "--table is for a consumer that is made",
		"80 --consumer nobody":               "nobody",
		"80 --consumer kind":                 "is of kind webhook",
		"80 --filter ((":                     "filter",
		"80 --database nowhere":              "nowhere",
	} {
		out, err := s.command(append([]string{"listen"}, strings.Fields(args)...)...).CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != exitBadInput || !strings.Contains(string(out), want) {
			t.Errorf("listen %s: %v: %s", args, err, out)
		}
	}
	if list, err := api.Consumers(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("consumers afterwards: %v, %v", list, err)
	}
}
