package webhook

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep"
	"lockstep/locksteptest"
	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key returns a secret of 24 bytes.
func key(b byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 24))
}

// received is one request as an endpoint saw it.
type received struct {
	Method string
	Path   string // with the query
	Header http.Header
	Body   []byte // uncompressed
}

// endpoint answers 200 unless told otherwise, and keeps what it accepted.
type endpoint struct {
	*httptest.Server

	mu       sync.Mutex
	all      []received // also what was not accepted
	accepted []received
	read     int // how many of accepted are in arrived
	arrived  []locksteptest.Arrival
	answer   func(http.ResponseWriter, received) bool // true: accepted
}

func newEndpoint(t testing.TB) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewUnstartedServer(e)
	e.Config.ErrorLog = nil
	e.Start()
	t.Cleanup(e.Close)
	return e
}

func newTLSEndpoint(t testing.TB) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewUnstartedServer(e)
	e.EnableHTTP2 = true
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(z)
		}
	}
	if err != nil {
		http.Error(w, "cut", http.StatusBadRequest)
		return
	}
	got := received{Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header, Body: body}
	e.mu.Lock()
	e.all = append(e.all, got)
	answer := e.answer
	e.mu.Unlock()
	if answer != nil && !answer(w, got) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accepted = append(e.accepted, got)
}

// answers sets what comes of requests; nil: they are accepted.
func (e *endpoint) answers(f func(http.ResponseWriter, received) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

// status answers everything so.
func (e *endpoint) status(code int, header ...string) {
	e.answers(func(w http.ResponseWriter, _ received) bool {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return code/100 == 2
	})
}

func (e *endpoint) seen() []received {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]received(nil), e.all...)
}

// open makes a sink for the endpoint.
func (e *endpoint) open(t testing.TB, c Config) *Webhook {
	t.Helper()
	if c.URL == "" {
		c.URL = e.URL + "/hook"
	}
	c.AllowPrivate = true
	w, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	e.trust(w)
	t.Cleanup(func() {
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (e *endpoint) trust(w *Webhook) {
	if e.Certificate() != nil && w.own != nil {
		w.own.TLSClientConfig.RootCAs = x509.NewCertPool()
		w.own.TLSClientConfig.RootCAs.AddCert(e.Certificate())
	}
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text)
	return h.Sum64()
}

// change makes a message.
func change(seq uint64, pk string) sink.Message {
	m := sink.Message{
		Seq: seq, Key: hashOf(pk), Action: lockstep.Update, Database: "app", Schema: "public", Table: "orders",
		PKs: append(lockstep.AppendJSONString([]byte{'['}, pk), ']'), IdempotencyKey: fmt.Sprintf("sys-1-%d-0", seq),
		CommitTime: time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC), Attempt: 1,
	}
	m.Record = fmt.Appendf(nil, `{"id":%s,"amount":"12.50"}`, lockstep.AppendJSONString(nil, pk))
	m.Body = fmt.Appendf(nil, `{"record":%s,"changes":{"amount":"10.00"},"action":"update","metadata":{"seq":%d,"idempotency_key":%q}}`, m.Record, seq, m.IdempotencyKey)
	return m
}

func mustJSON(t testing.TB, text []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(text, to); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func mustContain(t testing.TB, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("got %q, want %q in it", text, part)
	}
}
