package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
)

// The tests of this package's own rules run against consumers and logs held in
// memory; the tests in deliver_test.go run the real ones behind the same routes.

// node is an API with everything that it needs, in memory.
type node struct {
	*api.API
	log       *memLog
	broker    *memBroker
	backfills *memBackfills
	syncs     *memSyncs
	sending   *memSending
	audit     *memAudit
	tokens    *auth.Tokens
	logged    *lockedBuffer
	parts     []api.Part
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newNode makes an open node with a pull consumer orders and one of the
// configuration, filed; static tokens close it.
func newNode(t testing.TB, static ...auth.Static) *node {
	t.Helper()
	return newNodeWith(t, nil, static...)
}

func newNodeWith(t testing.TB, tune func(*api.Config), static ...auth.Static) *node {
	t.Helper()
	n := &node{log: newLog(), broker: &memBroker{}, audit: &memAudit{}, logged: &lockedBuffer{}}
	n.backfills = &memBackfills{consumers: n.broker}
	n.syncs = &memSyncs{}
	n.sending = &memSending{}
	var err error
	if n.tokens, err = auth.Open(auth.Config{Static: static, Store: &memTokens{}}); err != nil {
		t.Fatal(err)
	}
	if err := n.tokens.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.define(t, "orders", "api", "http")
	n.define(t, "filed", "file", "http")
	n.define(t, "printed", "file", "stdout")
	reg := prometheus.NewRegistry()
	metrics, err := obs.NewMetrics(reg, "test")
	if err != nil {
		t.Fatal(err)
	}
	config := api.Config{
		Tokens:    n.tokens,
		Consumers: &api.Registry{Broker: n.broker, Store: memStore{}, DefinedIn: func(string) string { return "lockstep.yml:12" }},
		Databases: func() []api.Database {
			return []api.Database{{Name: "app", Log: api.LogOf(n.log), Status: func() api.DatabaseStatus { return api.DatabaseStatus{Capture: "wal", Connected: true} }}}
		},
		Health:    func(context.Context) []api.Part { return n.parts },
		Backfills: n.backfills,
		Syncs:     n.syncs,
		Kinds:     memKinds{},
		Sending:   n.sending,
		Audit:     n.audit,
		Metrics:   metrics,
		Gatherer:  reg,
		Logger:    slog.New(slog.NewJSONHandler(n.logged, nil)),
		Version:   "test",
	}
	if tune != nil {
		tune(&config)
	}
	if n.API, err = api.New(config); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) define(t testing.TB, name, by, kind string) *memConsumer {
	t.Helper()
	d := deliver.Definition{ID: uuid.NewString(), Name: name, Database: "app", Kind: kind, ManagedBy: by, Metadata: json.RawMessage(`{"team":"a"}`)}
	d.Defaults()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.broker.Put(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return n.consumer(name)
}

func (n *node) consumer(name string) *memConsumer {
	c, _ := n.broker.Find(name)
	m, _ := c.(*memConsumer)
	return m
}

// response is an answer as a test looks at it.
type response struct {
	status int
	header http.Header
	body   string
}

// do makes a request; options are "Header: value".
func (n *node) do(method, target, body string, options ...string) response {
	r := httptest.NewRequest(method, "http://127.0.0.1:7300"+target, strings.NewReader(body))
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for _, o := range options {
		name, value, _ := strings.Cut(o, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	data, _ := io.ReadAll(w.Body)
	return response{status: w.Code, header: w.Header(), body: string(data)}
}

// wantProblem checks that an answer is a problem document with that status, and
// returns it.
func wantProblem(t testing.TB, got response, status int) api.Problem {
	t.Helper()
	var p api.Problem
	if got.status != status {
		t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	if ct := got.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q, want application/problem+json", ct)
	}
	d := json.NewDecoder(strings.NewReader(got.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("not a problem document: %v: %s", err, got.body)
	}
	if p.Status != status || p.Title != http.StatusText(status) || p.Type == "" || p.Detail == "" {
		t.Errorf("incomplete problem document: %s", got.body)
	}
	return p
}

func mustJSON[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}
