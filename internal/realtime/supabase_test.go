package realtime_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/realtime"
	"lockstep/internal/stream"
)

// sdk returns the folder of Supabase's own clients, and node. SUPABASE_SDK names a
// folder in which this was run:
//
//	npm install ws@8.23.0 supabase-new@npm:@supabase/supabase-js@2.119.1 supabase-old@npm:@supabase/supabase-js@2.45.4
func sdk(t *testing.T) (folder, node string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: supabase-js needs it")
	}
	folder = os.Getenv("SUPABASE_SDK")
	for _, name := range []string{"ws", "supabase-new", "supabase-old"} {
		if _, err := os.Stat(filepath.Join(folder, "node_modules", name)); folder == "" || err != nil {
			t.Skip("there is no supabase-js for node: run the npm install that is written above this in the source somewhere, and set SUPABASE_SDK to that folder")
		}
	}
	return folder, node
}

// controlled is a change as the client's side asks for it.
type controlled struct {
	Action          string
	Record, Changes json.RawMessage
}

func (c controlled) row(t testing.TB) row {
	r := row{action: lockstep.Insert, record: string(c.Record), changes: string(c.Changes), known: c.Changes != nil}
	if c.Action != "" {
		action, err := lockstep.ParseAction(c.Action)
		if err != nil {
			t.Error(err)
		}
		r.action = action
	}
	return r
}

// controls serves what a program in JavaScript asks of its test, and everything else
// from the server under test.
type controls struct {
	server *realtime.Server
	change func(row) uint64
	last   func() uint64
	test   testing.TB

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func (c *controls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seq := uint64(0)
	switch r.URL.Path {
	case "/control/change":
		var body controlled
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		seq = c.change(body.row(c.test))
	case "/control/last":
		seq = c.last()
	case "/control/drop":
		c.drop(r)
	default:
		c.server.ServeHTTP(w, r)
		return
	}
	fmt.Fprintf(w, `{"last":%d}`, seq)
}

// drop cuts every connection but the one that asks for it.
func (c *controls) drop(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if conn.RemoteAddr().String() != r.RemoteAddr {
			_ = conn.Close() // it may have gone before
		}
	}
	c.conns = nil
}

// serveControlled serves a server with its controls.
func serveControlled(t *testing.T, c *controls) string {
	t.Helper()
	s := httptest.NewUnstartedServer(c)
	s.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.conns = append(c.conns, conn)
		return ctx
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// readers lets every token read but nobody's.
func readers(_ context.Context, token string) (realtime.Claims, error) {
	if token == "nobody" {
		return realtime.Claims{}, lockstep.ErrInvalid
	}
	return realtime.Claims{Read: true}, nil
}

func TestSupabasesOwnClientTakesTheTour(t *testing.T) {
	t.Parallel()
	folder, node := sdk(t)
	for _, name := range []string{"supabase-new", "supabase-old"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := openStream(t)
			r := &rig{t: t, log: newMemLog()}
			startRig(r, func(c *realtime.Config) {
				c.Authorize = readers
				c.Log = func(string) (realtime.Log, error) { return log, nil }
				c.Limits.PresenceCalls = 100
			})
			url := serveControlled(t, &controls{server: r.server, test: t, last: func() uint64 { return log.Last().Seq }, change: log.add})
			out, err := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "tour.mjs"), folder, name, url).CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// realLog is an embedded stream's log.
type realLog struct {
	*stream.Log
	t  testing.TB
	mu sync.Mutex
}

func openStream(t testing.TB) *realLog {
	t.Helper()
	s, err := stream.Open(t.Context(), stream.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	log, err := s.Log(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &realLog{Log: log, t: t}
}

// Reader implements realtime.Log.
func (l *realLog) Reader(from uint64) realtime.Reader { return l.Log.Reader(from) }

// add appends a change and waits until it is on disk.
func (l *realLog) add(r row) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var w lockstep.BatchWriter
	w.Reset(nil)
	at := lockstep.LSN(l.Last().Seq + 100)
	w.Begin(lockstep.Tx{CommitLSN: at, CommitTime: time.Now().UnixMicro(), XID: 7})
	buf := append(append(w.Open(), r.record...), r.changes...)
	table := &lockstep.Table{OID: 16400, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}
	w.Close(buf, lockstep.RecordHead{Action: r.action, Table: w.Table(table), OldKnown: r.known, RecordLen: len(r.record), ChangesLen: len(r.changes)})
	done := make(chan error, 1)
	if err := l.Append(l.t.Context(), &w, lockstep.Mark{SystemID: 7, Timeline: 1, CommitLSN: at, EndLSN: at, Complete: true}, func(err error) { done <- err }); err != nil {
		l.t.Error(err)
		return 0
	}
	if err := <-done; err != nil {
		l.t.Error(err)
	}
	return l.Last().Seq
}

// versions are the packages by the protocol that they speak.
func versions() map[string]string {
	return map[string]string{"2.0.0": "supabase-new", "1.0.0": "supabase-old"}
}

// TestTracesOfTheRealClients replays what supabase-js said, and compares what the server
// answers with what it answered then. SUPABASE_RECORD=1 records anew.
func TestTracesOfTheRealClients(t *testing.T) {
	t.Parallel()
	for version, name := range versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *realtime.Config) { c.Authorize = readers })
			file := filepath.Join("testdata", "trace-"+version+".txt")
			if os.Getenv("SUPABASE_RECORD") != "" {
				record(t, r, name, file)
				return
			}
			trace, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := r.connectTo("apikey=reader&vsn=" + version)
			for line := range strings.Lines(string(trace)) {
				play(t, r, c, strings.TrimSuffix(line, "\n"))
			}
		})
	}
}

// play does a line of a trace, or expects it.
func play(t *testing.T, r *rig, c *client, line string) {
	t.Helper()
	sign, text, _ := strings.Cut(line, " ")
	if strings.HasSuffix(sign, "b") {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	switch sign {
	case "+":
		var change controlled
		if err := json.Unmarshal([]byte(text), &change); err != nil {
			t.Fatal(err)
		}
		r.log.add(t, change.row(t))
	case ">":
		c.write(text)
	case ">b":
		c.writeBinary([]byte(text))
	default:
		m := c.read()
		if settle(m.raw) != settle(text) || m.binary != (sign == "<b") {
			t.Errorf("got  %s\nwant %s", m.raw, text)
		}
	}
}

// settle takes out what differs from run to run.
func settle(text string) string {
	return regexp.MustCompile(`"phx_ref":"[^"]+"`).ReplaceAllString(text, `"phx_ref":"…"`)
}

func record(t *testing.T, r *rig, name, file string) {
	t.Helper()
	folder, node := sdk(t)
	url := serveControlled(t, &controls{server: r.server, test: t, last: func() uint64 { return r.log.Last().Seq }, change: func(row row) uint64 { return r.log.add(t, row) }})
	command := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "record.mjs"), folder, name, url)
	command.Stderr = t.Output()
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(file, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestBinaryFramesAreWhatTheTracesSay makes sure that the trace of 2.0.0 has what makes
// it worth having.
func TestBinaryFramesAreWhatTheTracesSay(t *testing.T) {
	t.Parallel()
	trace, err := os.ReadFile(filepath.Join("testdata", "trace-2.0.0.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, sign := range []string{"\n>b ", "\n<b ", "\n+ ", "phx_leave", "access_token", "heartbeat", "presence_diff"} {
		if !strings.Contains(string(trace), sign) {
			t.Errorf("the trace has no %q", sign)
		}
	}
}
