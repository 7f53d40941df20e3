package console_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/kinds"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	adminToken  = "test-token-of-the-administrator"
	readerToken = "test-token-of-a-reader"
)

// node is a running node with a mirror of an account, consumers and rows.
type node struct {
	t      testing.TB
	url    string // of its API and console
	pg     string
	vendor string // of the sandbox that it mirrors
	api    *client.Client
	config string
	stop   func() // ends it; start begins again, on the same address
}

// hostile is a value that would be a script on a page that takes it for HTML.
const hostile = `"><img src=x onerror="alert('in')"><script>alert('in')</script>`

// newNode starts a node. consumers is YAML that is added to the configuration.
func newNode(t testing.TB, consumers string) *node {
	t.Helper()
	return newNodeEvery(t, "500ms", consumers)
}

// newNodeEvery starts a node whose sync asks the account that often.
func newNodeEvery(t testing.TB, every, consumers string) *node {
	t.Helper()
	account, err := stripe.New(stripe.Options{Customers: 30, Unlimited: true})
	if err != nil {
		t.Fatal(err)
	}
	vendor := httptest.NewServer(sandbox.Mount(account))
	t.Cleanup(vendor.Close)
	dir := t.TempDir()
	n := &node{t: t, pg: pgtest.Database(t), vendor: vendor.URL, config: filepath.Join(dir, "lockstep.yml")}
	address := freeAddress(t)
	text := fmt.Sprintf(`data_dir: %s
listen: %s
tokens:
  - {name: admin, token: %s, scopes: [admin]}
  - {name: reader, token: %s, scopes: [read]}
databases:
  - {name: app, url: %q, slot: %s}
syncs:
  - name: acme
    provider: stripe
    base_url: %s
    credential: {kind: stripe_key, properties: {secret: sk_test_sandbox1}}
    collections: ["stripe:customer", "stripe:product"]
    every: %s
consumers:
%s`, filepath.Join(dir, "data"), address, adminToken, readerToken, n.pg, "console_"+strings.ToLower(strings.NewReplacer("/", "_", "-", "_").Replace(t.Name())), vendor.URL, every, consumers)
	if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.url = "http://" + address
	if n.api, err = client.New(client.Config{Server: n.url, Token: adminToken}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, n.pg, "CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric(10,2), note text)")
	t.Cleanup(func() { n.stop(); n.api.Close() })
	n.start()
	return n
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (n *node) start() {
	n.t.Helper()
	cfg, err := config.Load(n.config, config.Options{Kinds: kinds.Names()})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	go func() { ended <- engine.New(cfg, engine.Options{Logger: log}).Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("the node: %v", err)
		}
		n.stop = func() {}
	}
	pgtest.Eventually(n.t, 90*time.Second, "the node to be ready", func() bool {
		select {
		case err := <-ended:
			n.stop = func() {}
			n.t.Fatalf("the node ended before it was ready: %v", err)
		default:
		}
		return n.api.Ready(n.t.Context()) == nil
	})
}

// refuse gives a consumer's changes back until all of them are dead letters.
func (n *node) refuse(consumer string, want uint64) {
	n.t.Helper()
	pgtest.Eventually(n.t, time.Minute, "dead letters", func() bool {
		batch, err := n.api.Next(n.t.Context(), consumer, 500, 0)
		if err != nil {
			n.t.Fatal(err)
		}
		var tokens []string
		for _, d := range batch.Deliveries {
			tokens = append(tokens, d.Token)
		}
		if len(tokens) > 0 {
			if err := n.api.Nack(n.t.Context(), consumer, client.Nack{Reason: "the worker said: " + hostile}, tokens...); err != nil {
				n.t.Fatal(err)
			}
		}
		k, err := n.api.Consumer(n.t.Context(), consumer)
		return err == nil && k.Stats.Dead >= want
	})
}

// get asks for a page as a browser without scripts does.
func (n *node) get(path, token string) *http.Response {
	n.t.Helper()
	return n.send(http.MethodGet, path, token, "")
}

func (n *node) send(method, path, cookie, form string) *http.Response {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, strings.NewReader(form))
	if err != nil {
		n.t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	plain := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := plain.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}
