package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/realtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// orders are the columns of public.orders.
func orders() map[string]string {
	return map[string]string{"id": "int8", "amount": "numeric", "status": "text", "body": "text", "customer": "int4"}
}

// rig is a server over a log in memory.
type rig struct {
	t      testing.TB
	log    *memLog
	server *realtime.Server
	http   *httptest.Server
	tight  bool // the network holds little, so that a client that reads nothing shows soon
	stop   func()
}

// newRig serves until the test ends. change may alter the configuration.
func newRig(t testing.TB, change func(*realtime.Config)) *rig {
	t.Helper()
	return startRig(&rig{t: t, log: newMemLog()}, change)
}

// newTightRig is newRig over a network that holds little.
func newTightRig(t testing.TB, change func(*realtime.Config)) *rig {
	t.Helper()
	return startRig(&rig{t: t, log: newMemLog(), tight: true}, change)
}

func startRig(r *rig, change func(*realtime.Config)) *rig {
	t := r.t
	config := realtime.Config{
		Log: func(database string) (realtime.Log, error) {
			if database != "" && database != "app" {
				return nil, fmt.Errorf("database %q: %w", database, lockstep.ErrNotFound)
			}
			return r.log, nil
		},
		Types: func(_ context.Context, _, schema, table string) (map[string]string, error) {
			if schema != "public" || table == "missing" {
				return nil, lockstep.ErrNotFound
			}
			return orders(), nil
		},
		Keys:   func(context.Context, string, string, string) ([]string, error) { return []string{"id"}, nil },
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if change != nil {
		change(&config)
	}
	r.server = realtime.New(config)
	r.serve()
	return r
}

// startServed serves a server that the caller runs.
func startServed(t testing.TB, s *realtime.Server) *rig {
	r := &rig{t: t, server: s, http: httptest.NewServer(s)}
	t.Cleanup(r.http.Close)
	return r
}

func (r *rig) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.server.Run(ctx) }()
	r.http = httptest.NewUnstartedServer(r.server)
	if r.tight {
		r.http.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
			_ = conn.(*net.TCPConn).SetWriteBuffer(16 << 10) // a test that waits in vain tells
			return ctx
		}
	}
	r.http.Start()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("Run: %v", err)
			}
			r.http.Close()
		})
	}
	r.t.Cleanup(r.stop)
}

// client is a WebSocket as a test holds it.
type client struct {
	t    testing.TB
	conn *websocket.Conn
	vsn  string
	ref  int
}

// wait bounds everything that a test waits for.
const wait = 20 * time.Second

func (r *rig) dial(query string, header http.Header) (*client, *http.Response, error) {
	r.t.Helper()
	vsn := "2.0.0"
	if strings.Contains(query, "vsn=1.0.0") {
		vsn = "1.0.0"
	} else {
		query += "&vsn=2.0.0"
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), wait)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, "ws"+r.http.URL[4:]+"/realtime/v1/websocket?"+query, &websocket.DialOptions{HTTPHeader: header, HTTPClient: r.dialer()})
	if err != nil {
		return nil, response, err
	}
	conn.SetReadLimit(-1)
	c := &client{t: r.t, conn: conn, vsn: vsn}
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return c, response, nil
}

func (r *rig) dialer() *http.Client {
	if !r.tight {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(16 << 10)
		}
		return conn, err
	}}}
}

// connect opens a socket of version 2.0.0.
func (r *rig) connect() *client { return r.connectTo("") }

func (r *rig) connectTo(query string) *client {
	r.t.Helper()
	c, _, err := r.dial(query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// received is a message of the server.
type received struct {
	joinRef, ref, topic, event string
	payload                    json.RawMessage
	raw                        string
	binary                     bool
}

// next returns the next message, or the error that ended the socket.
func (c *client) next() (received, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), wait)
	defer cancel()
	kind, data, err := c.conn.Read(ctx)
	if err != nil {
		return received{}, err
	}
	m := received{raw: string(data), binary: kind == websocket.MessageBinary}
	if m.binary {
		return m, nil
	}
	if c.vsn == "1.0.0" {
		var o struct {
			Topic, Event string
			Ref          *string
			JoinRef      *string `json:"join_ref"`
			Payload      json.RawMessage
		}
		if err := json.Unmarshal(data, &o); err != nil {
			return m, err
		}
		m.topic, m.event, m.payload = o.Topic, o.Event, o.Payload
		if o.Ref != nil {
			m.ref = *o.Ref
		}
		return m, nil
	}
	var parts [5]json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return m, err
	}
	for i, into := range []*string{&m.joinRef, &m.ref, &m.topic, &m.event} {
		if err := json.Unmarshal(parts[i], into); err != nil {
			return m, err
		}
	}
	m.payload = parts[4]
	return m, nil
}

// read returns the next message, which there must be.
func (c *client) read() received {
	c.t.Helper()
	m, err := c.next()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return m
}

// expect reads a message of the event and returns its payload.
func (c *client) expect(event string) string {
	c.t.Helper()
	m := c.read()
	if m.event != event {
		c.t.Fatalf("got %s; want %s", m.raw, event)
	}
	return string(m.payload)
}

// closed reads until the socket ends, and returns how.
func (c *client) closed() websocket.CloseError {
	c.t.Helper()
	for {
		_, err := c.next()
		var end websocket.CloseError
		switch {
		case errors.As(err, &end):
			return end
		case err != nil:
			c.t.Fatalf("the socket ended with %v; want a code", err)
		}
	}
}

func (c *client) write(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), wait)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// push sends an event and returns its ref. The ref of the join is always "1" here.
func (c *client) push(topic, event, payload string) string {
	c.t.Helper()
	c.ref++
	ref := strconv.Itoa(c.ref)
	if c.vsn == "1.0.0" {
		c.write(fmt.Sprintf(`{"topic":%q,"event":%q,"payload":%s,"ref":%q,"join_ref":"1"}`, topic, event, payload, ref))
	} else {
		c.write(fmt.Sprintf(`["1",%q,%q,%q,%s]`, ref, topic, event, payload))
	}
	return ref
}

// join joins a topic with a config and returns the reply's response; presence is off
// unless the config says otherwise.
func (c *client) join(topic, config string) string {
	c.t.Helper()
	c.ref = 0
	if !strings.Contains(config, "presence") {
		config = strings.Replace(config, "{", `{"presence":{"enabled":false},`, 1)
		config = strings.Replace(config, ",}", "}", 1)
	}
	c.push(topic, "phx_join", `{"config":`+config+`}`)
	return c.answer("ok")
}

// answer reads the reply to the last push.
func (c *client) answer(status string) string {
	c.t.Helper()
	m := c.read()
	var reply struct {
		Status   string
		Response json.RawMessage
	}
	if err := json.Unmarshal(m.payload, &reply); err != nil || m.event != "phx_reply" || m.ref != strconv.Itoa(c.ref) || reply.Status != status {
		c.t.Fatalf("got %s; want a reply %s to %d", m.raw, status, c.ref)
	}
	return string(reply.Response)
}

// follow joins a topic for changes, and reads what says that it gets them. Ids are by
// entry.
func (c *client) follow(entries ...string) []uint32 {
	c.t.Helper()
	response := c.join("realtime:changes", `{"postgres_changes":[`+strings.Join(entries, ",")+`]}`)
	var r struct {
		Changes []struct{ ID uint32 } `json:"postgres_changes"`
	}
	if err := json.Unmarshal([]byte(response), &r); err != nil || len(r.Changes) != len(entries) {
		c.t.Fatalf("response %s: %v", response, err)
	}
	if system := c.expect("system"); !strings.Contains(system, `"status":"ok"`) {
		c.t.Fatalf("system %s", system)
	}
	var ids []uint32
	for _, e := range r.Changes {
		ids = append(ids, e.ID)
	}
	return ids
}

// changed is a change as a client gets it.
type changed struct {
	IDs  []uint32
	Data struct {
		Schema, Table, Type string
		CommitTimestamp     string          `json:"commit_timestamp"`
		Columns             json.RawMessage `json:"columns"`
		Record              json.RawMessage `json:"record"`
		OldRecord           json.RawMessage `json:"old_record"`
		Errors              []string        `json:"errors"`
		Sequence            uint64          `json:"sequence"`
	}
}

// change reads a change.
func (c *client) change() changed {
	c.t.Helper()
	var got changed
	payload := c.expect("postgres_changes")
	if err := json.Unmarshal([]byte(payload), &got); err != nil {
		c.t.Fatalf("%s: %v", payload, err)
	}
	return got
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(wait)
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", wait, what)
		}
	}
}

const everything = `{"event":"*","schema":"public","table":"orders"}`

func insert(id int, members string) row {
	return row{record: fmt.Sprintf(`{"id":%d%s}`, id, members)}
}
