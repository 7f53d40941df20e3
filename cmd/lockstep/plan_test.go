package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lockstep"
	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/plan"
	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

// planned is a real node, and a folder to call the commands in.
type planned struct {
	t      *testing.T
	dir    string
	server string
	api    *client.Client
	vars   map[string]string
}

// newPlanned runs a node with a private Postgres, and a consumer of its own file.
func newPlanned(t *testing.T) *planned {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf("data_dir: %s\nlisten: 127.0.0.1:0\nconsumers: [{name: filed, tables: [public.x]}]\n", filepath.Join(dir, "data"))
	o := configOptions(streams{lookup: os.LookupEnv})
	cfg, err := config.Parse("server.yml", []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	node := engine.New(cfg, engine.Options{Ready: func(n engine.Node) { ready <- n.Server }})
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	p := &planned{t: t, dir: dir, vars: map[string]string{}}
	select {
	case p.server = <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	if p.api, err = client.New(client.Config{Server: p.server}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.api.Close)
	for p.api.Ready(t.Context()) != nil && t.Context().Err() == nil { //nolint:revive // each call waits for the node
	}
	return p
}

// run calls a command, expects its exit code, and returns what it wrote.
func (p *planned) run(code int, in string, args ...string) string {
	p.t.Helper()
	var out bytes.Buffer
	lookup := func(name string) (string, bool) { v, ok := p.vars[name]; return v, ok }
	got := run(p.t.Context(), append([]string{"--server", p.server}, args...), streams{in: strings.NewReader(in), out: &out, err: &out, lookup: lookup})
	if got != code {
		p.t.Fatalf("lockstep %v: exit code %d, want %d\n%s", args, got, code, out.String())
	}
	return out.String()
}

func (p *planned) file(text string) string {
	p.t.Helper()
	name := filepath.Join(p.dir, "shop.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return name
}

// says checks that a text has parts.
func (p *planned) says(text string, parts ...string) {
	p.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			p.t.Fatalf("no %q in\n%s", part, text)
		}
	}
}

const shopFile = `
syncs:
  - name: acme
    provider: stripe
    base_url: %s
    credential: {kind: stripe_key, properties: {secret: "${STRIPE_KEY}"}}
    collections: ["stripe:product", "stripe:customer"]
consumers:
  - {name: customers, collections: ["stripe:customer"], sync: acme, ack_wait: 90s}
  - {name: GitHub Pull Requests, tables: [public.orders], actions: [insert], filter: 'record.a != "${X"'}
  - name: hooks
    kind: webhook
    webhook: {url: "http://127.0.0.1:9/${HOOK}", secret: "${HOOK_SECRET}", headers: {X-A: "${HOOK_SECRET}"}, allow_private: true}
`

// The whole way against a real node: made from a file, found unchanged, exported, changed
// by hand, put back, and deleted.
func TestAFileIsAppliedToANodeAndFoundThereAgain(t *testing.T) {
	t.Parallel()
	api, err := stripe.New(stripe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	account := httptest.NewServer(sandbox.Mount(api))
	t.Cleanup(account.Close)
	p := newPlanned(t)
	text := strings.ReplaceAll(fmt.Sprintf(shopFile, account.URL), `"${X"`, `"$${X"`)
	file := p.file(text)

	out := p.run(4, "", "plan", "-c", file, "--detailed-exitcode")
	p.says(out, "+ sync acme: is made", "credential.properties.secret: (secret)", "set HOOK, HOOK_SECRET, STRIPE_KEY", "plan: 4 to make, 0 to change; 0 the same", "consumer filed: is left alone (defined in the server's own file)")
	p.says(p.run(2, "", "apply", "-c", file, "--yes"), "nothing was done: set HOOK, HOOK_SECRET, STRIPE_KEY first")
	p.vars = map[string]string{"STRIPE_KEY": "sk_test_4eC39HqLyjWDarjtT1zdp7dc", "HOOK": "hunter2", "HOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
	p.says(p.run(2, "", "apply", "-c", file), "give --yes")
	p.says(p.run(0, "", "apply", "-c", file, "--yes"), "made sync acme", "made consumer hooks", "done: 4 steps")
	for range 2 {
		p.says(p.run(0, "", "plan", "-c", file, "--detailed-exitcode"), "nothing to change: 4 definitions")
		p.vars = map[string]string{}
	}

	export := p.run(0, "", "export")
	p.says(export, "name: acme", "${HOOKS_URL}", "# applied from shop.yml", "filed")
	p.says(p.run(0, export, "plan", "-c", "-", "--detailed-exitcode"), "nothing to change: 5 definitions")
	if strings.Contains(export, "hunter2") || strings.Contains(export, "whsec") || strings.Contains(export, "sk_test") {
		t.Fatalf("a secret is exported:\n%s", export)
	}
	p.says(p.run(0, "", "consumer", "ls"), "apply (shop.yml)")
	p.says(p.run(0, "", "sync", "show", "acme"), "apply (shop.yml)")

	p.byHand(file)
	p.says(p.run(0, "", "apply", "-c", p.file("consumers: [{name: customers, collections: [\"*\"]}]\n"), "--yes", "--prune"), "deleted consumer hooks", "deleted sync acme")
	p.says(p.run(2, "", "plan", "-c", p.file("consumers: [{name: filed, tables: [public.y]}]\n")), "defined in the server's own file, and differs: change it there")
}

// byHand changes what the file keeps, which is refused, then overrides, and puts it back.
func (p *planned) byHand(file string) {
	p.t.Helper()
	ctx := p.t.Context()
	if _, err := p.api.UpdateConsumer(ctx, "customers", map[string]string{"ack_wait": "5s"}); err == nil || !strings.Contains(err.Error(), "applied from shop.yml") {
		p.t.Fatalf("a change by hand: %v", err)
	}
	p.says(p.run(2, "", "sync", "delete", "acme"), "applied from shop.yml")
	p.says(p.run(2, "", "consumer", "delete", "hooks"), "applied from shop.yml")
	override := p.api.With(client.Claim{Override: true})
	if _, err := override.UpdateConsumer(ctx, "customers", map[string]string{"ack_wait": "5s"}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := override.UpdateSync(ctx, "acme", map[string]string{"every": "7s"}); err != nil {
		p.t.Fatal(err)
	}
	p.overtaken(file)
	out := p.run(4, "", "plan", "-c", file, "--detailed-exitcode")
	p.says(out, `ack_wait: "5s" → "1m30s"`, `every: "7s" → -`, "0 to make, 2 to change")
	p.says(p.run(0, "", "apply", "-c", file, "--yes"), "changed sync acme", "changed consumer customers")
	p.says(p.run(0, "", "plan", "-c", file), "nothing to change")
}

// overtaken is an apply that has done everything, and whose consumer customers somebody else
// has changed meanwhile.
func (p *planned) overtaken(file string) {
	p.t.Helper()
	lookup := func(name string) (string, bool) { v, ok := p.vars[name]; return v, ok }
	flags := planFlags{Config: file, Secrets: true}
	against, err := flags.compare(p.t.Context(), &cli{Server: p.server}, streams{err: os.Stderr, lookup: lookup})
	if err != nil {
		p.t.Fatal(err)
	}
	mine := []plan.Operation{{What: plan.Consumer, Name: "hooks"}}
	if err := against.confirm(p.t.Context(), mine); err != nil {
		p.t.Fatalf("what it did not touch is held against it: %v", err)
	}
	err = against.confirm(p.t.Context(), append(mine, plan.Operation{What: plan.Consumer, Name: "customers"}))
	if !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "consumer customers") {
		p.t.Fatalf("got %v, want a conflict that names the consumer", err)
	}
}
