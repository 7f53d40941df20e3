package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// stranger does what an example tells to do, with nothing but the program.
type stranger struct {
	t   *testing.T
	dir string
	env []string
}

// background starts a command that stays, and returns the first match of a pattern in
// what it says, on either stream. It ends with the test.
func (s *stranger) background(pattern *regexp.Regexp, args ...string) string {
	s.t.Helper()
	c := s.command(args...)
	r, w := io.Pipe()
	c.Stdout, c.Stderr = w, w
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- c.Wait()
		_ = w.Close()
	}()
	found, read := make(chan string, 1), make(chan struct{})
	var said bytes.Buffer
	go func() {
		defer close(read)
		lines := bufio.NewScanner(io.TeeReader(r, &said))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if m := pattern.FindString(lines.Text()); m != "" {
				select {
				case found <- m:
				default:
				}
			}
		}
		_, _ = io.Copy(io.Discard, r) // a line that is too long: nothing may hold the program up
	}()
	s.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			s.t.Errorf("%v ended: %v", args, err)
		}
		<-read
		if s.t.Failed() {
			s.t.Logf("%v said:\n%s", args, said.String())
		}
	})
	select {
	case m := <-found:
		return m
	case <-read:
		s.t.Fatalf("%v ended without saying %s", args, pattern)
	case <-time.After(2 * time.Minute):
		s.t.Fatalf("%v does not say %s", args, pattern)
	}
	return ""
}

// do runs a command to its end and returns what it wrote.
func (s *stranger) do(args ...string) string {
	s.t.Helper()
	var errs bytes.Buffer
	c := s.command(args...)
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s%s", args, err, out, errs.String())
	}
	return string(out)
}

func (s *stranger) command(args ...string) *exec.Cmd {
	ctx, stop := context.WithTimeout(context.WithoutCancel(s.t.Context()), 5*time.Minute)
	s.t.Cleanup(stop)
	c := exec.CommandContext(ctx, "lockstep", args...)
	c.Dir, c.Env = s.dir, append(os.Environ(), s.env...)
	return c
}

// commandsOf returns the commands that the comment of an example tells to run, as their
// words, and the SQL that it tells to look with.
func commandsOf(t *testing.T, text string) (commands [][]string, sql string) {
	t.Helper()
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "#   ")
		command, _, _ := strings.Cut(rest, "   ")
		words := strings.Fields(command)
		switch {
		case !ok || len(words) == 0:
		case words[0] == "lockstep":
			commands = append(commands, words[1:])
		case words[0] == "psql":
			sql = strings.Trim(strings.TrimSpace(command[strings.Index(command, " -c ")+4:]), "'")
		}
	}
	if len(commands) != 5 || sql == "" {
		t.Fatalf("the example tells to run %v and %q", commands, sql)
	}
	return commands, sql
}

// examples/mirror does what it says. Only the addresses are others, and the data lies in
// a folder of the test's.
func TestTheExampleOfAMirrorWorksAsItSays(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "mirror", "lockstep.yml"))
	if err != nil {
		t.Fatal(err)
	}
	commands, sql := commandsOf(t, string(text))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	_ = l.Close() // the node's, from now on
	s := &stranger{t: t, dir: t.TempDir()}
	if err := os.Chmod(s.dir, 0o755); err != nil { // Postgres runs as another user below it
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "examples", "mirror"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "examples", "mirror", "lockstep.yml"), append(text, "\nlisten: "+listen+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}

	account := s.background(regexp.MustCompile(`http://127\.0\.0\.1:\d+`), append(commands[0], "--listen", "127.0.0.1:0")...)
	s.env = []string{"STRIPE_URL=" + account, "LOCKSTEP_SERVER=http://" + listen}
	database := s.background(regexp.MustCompile(`postgres://[^"]+`), commands[1]...)
	s.ready(listen)
	s.do(commands[2]...)
	if rows := pgtest.Query(t, database, sql); len(rows) != 5 || !strings.HasPrefix(rows[0][0], "cus_") || !strings.Contains(rows[0][1], "@") {
		t.Errorf("%s: %v", sql, rows)
	}
	if out := s.do(commands[3]...); !strings.Contains(out, "stripe.customer") || !strings.Contains(out, "cus_") {
		t.Errorf("%v: %s", commands[3], out)
	}
	if out := s.do(commands[4]...); !strings.HasSuffix(out, "compared: equal\n") {
		t.Errorf("%v: %s", commands[4], out)
	}

	// What the comment does not tell: a customer of one's own is there after a wait.
	_, made := ask(t, http.MethodPost, account+"/v1/customers?email=stranger@example.com", "sk_test_sandbox1", "")
	var customer struct{ ID string }
	if err := json.Unmarshal([]byte(made), &customer); err != nil || customer.ID == "" {
		t.Fatalf("make a customer: %s", made)
	}
	s.do(commands[2]...)
	if rows := pgtest.Query(t, database, "SELECT email FROM stripe.customer WHERE id = $1", customer.ID); len(rows) != 1 || rows[0][0] != "stranger@example.com" {
		t.Errorf("the customer that was made is %v", rows)
	}
}

// ready waits until the node is.
func (s *stranger) ready(listen string) {
	s.t.Helper()
	pgtest.Eventually(s.t, 2*time.Minute, "the node to be ready", func() bool {
		r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+listen+"/readyz", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	})
}
