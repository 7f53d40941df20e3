package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep"
	"lockstep/sink"
	"lockstep/sink/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func secret(b byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))
}

func message(seq uint64, pk string) sink.Message {
	m := sink.Message{
		Seq: seq, Key: seq, Action: lockstep.Insert, Database: "app", Schema: "public", Table: "orders", PKs: json.RawMessage(`["` + pk + `"]`),
		IdempotencyKey: fmt.Sprint("sys-1-", seq), CommitTime: time.Now(), Attempt: 1, Record: json.RawMessage(`{"id":"` + pk + `"}`),
	}
	m.Body = fmt.Appendf(nil, `{"record":%s,"changes":null,"action":"insert","metadata":{"database":"app","table_schema":"public","table_name":"orders","seq":%d,"record_pks":%s,"idempotency_key":%q}}`,
		m.Record, seq, m.PKs, m.IdempotencyKey)
	return m
}

// start runs the program and returns its URL and what it prints, line by line.
func start(t *testing.T, secrets string) (url string, lines *bufio.Scanner) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	in, out := io.Pipe()
	var running sync.WaitGroup
	running.Go(func() {
		err := run(ctx, func(name string) string {
			return map[string]string{"WEBHOOK_SECRET": secrets, "LISTEN": "127.0.0.1:0"}[name]
		}, out)
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); _ = in.Close(); running.Wait() })
	lines = bufio.NewScanner(in)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	_, url, _ = strings.Cut(lines.Text(), "url=")
	return url, lines
}

func open(t *testing.T, c webhook.Config) *webhook.Webhook {
	t.Helper()
	c.AllowPrivate = true
	w, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close(context.WithoutCancel(t.Context())) })
	return w
}

// TestEachChangeIsPrintedOnce: single, in batches, compressed, repeated, and while the
// secret changes.
func TestEachChangeIsPrintedOnce(t *testing.T) {
	t.Parallel()
	url, lines := start(t, secret(1)+" "+secret(2))
	old := open(t, webhook.Config{URL: url, Secrets: []webhook.Secret{{Key: secret(1)}}})
	both := open(t, webhook.Config{URL: url, Gzip: true, Secrets: []webhook.Secret{{Key: secret(3)}, {Key: secret(2)}}})
	sent := make(chan error, 1)
	go func() {
		_, err1 := old.Write(t.Context(), []sink.Message{message(1, "a")})
		_, err2 := old.Write(t.Context(), []sink.Message{message(1, "a")}) // the answer was lost
		_, err3 := both.Write(t.Context(), []sink.Message{message(1, "a"), message(2, "b"), message(3, strings.Repeat("c", 2000))})
		_, err4 := both.Test(t.Context())
		sent <- errors.Join(err1, err2, err3, err4)
	}()
	for _, want := range []string{`1 insert public.orders ["a"] {"id":"a"}`, `2 insert public.orders ["b"]`, `3 insert public.orders ["ccc`, `0 test`} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("got %.80q, want %q", lines.Text(), want)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotSignedIsRefused(t *testing.T) {
	t.Parallel()
	url, _ := start(t, secret(1))
	for name, c := range map[string]webhook.Config{
		"unsigned": {}, "another secret": {Secrets: []webhook.Secret{{Key: secret(2)}}},
	} {
		c.URL = url
		_, err := open(t, c).Write(t.Context(), []sink.Message{message(1, "a")})
		var refused *sink.Error
		if !errors.As(err, &refused) || refused.Kind != sink.Refused || refused.Status != http.StatusUnauthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSignaturesAreVerified: of a request that was really sent, and of what one can make
// of it.
func TestSignaturesAreVerified(t *testing.T) {
	t.Parallel()
	var header http.Header
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	if _, err := open(t, webhook.Config{URL: server.URL, Secrets: []webhook.Secret{{Key: secret(1)}}}).Write(t.Context(), []sink.Message{message(1, "a")}); err != nil {
		t.Fatal(err)
	}
	if err := verify(header, body, secret(1)); err != nil {
		t.Error(err)
	}
	if err := verify(header, body, secret(2), secret(1)); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(http.Header) []byte{
		"another body": func(http.Header) []byte { return append(bytes.Clone(body), ' ') },
		"another id":   func(h http.Header) []byte { h.Set("Webhook-Id", "x"); return body },
		"no id":        func(h http.Header) []byte { h.Del("Webhook-Id"); return body },
		"another time": func(h http.Header) []byte { h.Set("Webhook-Timestamp", fmt.Sprint(time.Now().Unix()-60)); return body },
		"an old one":   func(h http.Header) []byte { h.Set("Webhook-Timestamp", "1700000000"); return body },
		"no time":      func(h http.Header) []byte { h.Del("Webhook-Timestamp"); return body },
		"no signature": func(h http.Header) []byte { h.Del("Webhook-Signature"); return body },
		"a cut one":    func(h http.Header) []byte { h.Set("Webhook-Signature", h.Get("Webhook-Signature")[:20]); return body },
		"of version v2": func(h http.Header) []byte {
			h.Set("Webhook-Signature", "v2"+h.Get("Webhook-Signature")[2:])
			return body
		},
	} {
		h := header.Clone()
		if verify(h, change(h), secret(1)) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if verify(header, body) == nil || verify(header, body, "whsec_") == nil || verify(header, body, "whsec_?") == nil {
		t.Error("it is accepted without a secret")
	}
}

// TestAChangeThatCannotBeHandledIsNamed: it alone comes again.
func TestAChangeThatCannotBeHandledIsNamed(t *testing.T) {
	t.Parallel()
	var handled []uint64
	bad := uint64(2)
	r := &receiver{secrets: []string{secret(1)}, done: map[string]uint64{}, handle: func(c change) error {
		if c.Metadata.Seq == bad {
			return errors.New("not now")
		}
		handled = append(handled, c.Metadata.Seq)
		return nil
	}}
	server := httptest.NewServer(r)
	defer server.Close()
	w := open(t, webhook.Config{URL: server.URL, Secrets: []webhook.Secret{{Key: secret(1)}}})
	list := []sink.Message{message(1, "a"), message(2, "b"), message(3, "c")}
	_, err := w.Write(t.Context(), list)
	var partial *sink.PartialError
	if !errors.As(err, &partial) || len(partial.Failed) != 1 || partial.Failed[0].Index != 1 {
		t.Fatalf("got %v", err)
	}
	bad = 0
	if _, err := w.Write(t.Context(), list[1:2]); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(handled) != "[1 3 2]" {
		t.Errorf("handled %v", handled)
	}
}
