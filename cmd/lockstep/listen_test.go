package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
	"syscall"
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

// TestListen holds lockstep listen to what it says, with a node.
func TestListen(t *testing.T) {
	t.Parallel()
	s := &stranger{t: t, dir: t.TempDir()}
	if err := os.Chmod(s.dir, 0o755); err != nil { // Postgres runs as another user below it
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "lockstep.yml"), []byte("listen: 127.0.0.1:0\ndatabases: [{name: app}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var server, database string
	found := s.background(regexp.MustCompile(`postgres://[^"]+|http://127\.0\.0\.1:\d+`), "serve")
	_, _ = found, server
	_ = database
}

var _ = syscall.SIGINT
var _ = standardwebhooks.Webhook{}
var _ = fmt.Sprint
var _ = time.Now
var _ client.Client
var _ = pgtest.Exec
