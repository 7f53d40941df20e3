package plan_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lockstep/client"
	"lockstep/internal/plan"
)

// What a node has, written as a file and read again, differs in nothing: whether or not
// the variables of its secrets are set.
func TestAnExportIsAnEmptyPlan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		m := generated(r, t, databases(r))
		text := string(plan.Export(m.Server))
		if again := string(plan.Export(shuffled(m.Server))); again != text {
			t.Fatalf("two exports differ:\n%s\n%s", text, again)
		}
		p := plan.Make(parse(t, text, m.Server, unset), m.Server, options())
		if p.Changes() > 0 || len(p.Notes) > 0 || p.Count(plan.Same) != len(m.Consumers)+len(m.Syncs) {
			t.Fatalf("%s\nof\n%s", dump(p), text)
		}
		if strings.Contains(text, "hunter2") || strings.Contains(dump(p), "hunter2") {
			t.Fatalf("a secret is told:\n%s\n%s", text, dump(p))
		}
	})
}

// Whatever a node has, a plan that is carried out leaves nothing to do.
func TestACarriedOutPlanLeavesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		names := databases(r)
		wanted, m := generated(r, t, names), generated(r, t, names)
		text := string(plan.Export(wanted.Server))
		o := options()
		o.Prune, o.Replace, o.Override = true, true, true
		o.Secrets, o.Adopt = rapid.Bool().Draw(r, "secrets"), rapid.Bool().Draw(r, "adopt")
		first := m.plan(t, text, o)
		if first.Problems() > 0 {
			t.Fatalf("%s\nof\n%s", dump(first), text)
		}
		m.apply(t, first)
		o.Secrets = false
		if p := m.plan(t, text, o); p.Changes() > 0 || p.Count(plan.Same) != len(wanted.Consumers)+len(wanted.Syncs) {
			t.Fatalf("left to do:\n%s\nafter\n%s\nof\n%s", dump(p), dump(first), text)
		}
		if strings.Contains(dump(first), "hunter2") || strings.Contains(dump(first), "value-of-") && !strings.Contains(text, "base") {
			t.Fatalf("a secret is told:\n%s", dump(first))
		}
	})
}

func dump(p plan.Plan) string {
	raw, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// shuffled has the same in another order.
func shuffled(s plan.Server) plan.Server {
	s.Syncs, s.Consumers = slices.Clone(s.Syncs), slices.Clone(s.Consumers)
	slices.Reverse(s.Syncs)
	slices.Reverse(s.Consumers)
	return s
}

func databases(r *rapid.T) []string {
	return rapid.SampledFrom([][]string{{"app"}, {"app", "other"}}).Draw(r, "databases")
}

// generated is a node with any definitions that a node takes and a file can hold.
func generated(r *rapid.T, t testing.TB, databases []string) *model {
	m := newModel()
	m.Databases = databases
	for i := range rapid.IntRange(0, 3).Draw(r, "syncs") {
		m.Syncs = append(m.Syncs, m.genSync(r, i))
	}
	for i := range rapid.IntRange(0, 4).Draw(r, "consumers") {
		m.Consumers = append(m.Consumers, m.genConsumer(r, i))
	}
	if reasons := plan.Unfit(m.Server); len(reasons) > 0 {
		t.Fatalf("generated what no file can hold: %v", reasons)
	}
	return m
}

func text(r *rapid.T, label string) string {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"", "record.amount > 100 and changes.status != nil", "record.a == \"${X}\"", "$${", "$", "a: b # c", "line\nline\n", "line\nline", "\n", " x", "x ", "a\n  b\n", "\tq\n", "- a", "no", "12", "é\u2028\x7f\u0085", "a\n\nb\n", "a\n b \n"}),
		rapid.String(),
	).Filter(func(s string) bool { return !strings.ContainsRune(s, 0xFFFD) }).Draw(r, label)
}

func span(r *rapid.T, label string, low, high int) string {
	ms := rapid.IntRange(low, high).Draw(r, label)
	return fmt.Sprintf("%dms", ms)
}

func (m *model) genSync(r *rapid.T, i int) client.Sync {
	s := client.Sync{ID: m.id(), Name: fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"acme-", "_x.", "7"}).Draw(r, "name"), i), Provider: "stripe", All: true, UpdatedAt: m.clock}
	s.Database, s.Schema = rapid.SampledFrom(m.Databases).Draw(r, "database"), fmt.Sprintf("Sch ema%d", i)
	s.Credential = client.SyncProperties{Kind: rapid.SampledFrom([]string{"", "stripe_key"}).Draw(r, "kind"), Names: rapid.SampledFrom([][]string{nil, {"secret"}, {"webhook_secret", "secret"}}).Draw(r, "properties")}
	if rapid.Bool().Draw(r, "rest") {
		s.Provider, s.Spec = "rest", "name: shop\nbase_url: http://a\n"+text(r, "spec")
	}
	if rapid.Bool().Draw(r, "chosen") {
		s.All, s.CollectionIDs = false, []string{"stripe:invoice", "stripe:customer"}
	} else {
		s.CollectionIDs = []string{"stripe:customer", "stripe:invoice"}
	}
	s.BaseURL = rapid.SampledFrom([]string{"", "http://127.0.0.1:1/x"}).Draw(r, "base_url")
	s.Every = rapid.SampledFrom([]string{"", "5s", "1h", "1m30s"}).Draw(r, "every")
	if rapid.Bool().Draw(r, "limited") {
		s.RateLimit = &client.SyncRateLimit{RequestsPerSecond: rapid.SampledFrom([]float64{0, 0.5, 1e-3, 50}).Draw(r, "rps"), MaxConcurrent: rapid.IntRange(0, 10).Draw(r, "max"), Reserve: rapid.SampledFrom([]float64{0, 0.2}).Draw(r, "reserve")}
	}
	s.Paused = rapid.Bool().Draw(r, "paused")
	s.ManagedBy, s.AppliedFrom = keeper(r)
	s.Metadata = json.RawMessage(rapid.SampledFrom([]string{"null", `{"a":"hun\nter"}`}).Draw(r, "metadata"))
	return s
}

func keeper(r *rapid.T) (by, from string) {
	if rapid.Bool().Draw(r, "applied") {
		return "apply", rapid.SampledFrom([]string{"lockstep.yml", "other.yml"}).Draw(r, "from")
	}
	return "api", ""
}

func (m *model) genConsumer(r *rapid.T, i int) client.Consumer {
	c := m.standard()
	c.Name = fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"orders-", "GitHub Pull Requests ", "größe: #", "1e", "0x"}).Draw(r, "name"), i)
	c.Database = rapid.SampledFrom(m.Databases).Draw(r, "database")
	c.Tables, c.Collections = []string{}, []string{}
	switch rapid.IntRange(0, 2).Draw(r, "form") {
	case 0:
		c.Tables = []string{"public.*", "-public.audit", `"We ird".x`}
	case 1:
		c.Collections = []string{"stripe:customer", "github:*", "*"}
		if len(m.Syncs) > 0 {
			s := rapid.SampledFrom(m.Syncs).Draw(r, "sync")
			c.Sync = rapid.SampledFrom([]string{"", s.ID, s.Name}).Draw(r, "by")
		}
	}
	c.Actions = rapid.SampledFrom([][]string{{"insert", "update", "delete"}, {"insert", "read"}, {"read"}, {"delete", "truncate"}}).Draw(r, "actions")
	c.Filter, c.Transform = text(r, "filter"), text(r, "transform")
	c.Start = rapid.SampledFrom([]string{"now", "beginning", "seq:42", "1h", "2026-11-01T02:00:00+02:00"}).Draw(r, "start")
	c.Backfill = rapid.Bool().Draw(r, "backfill")
	c.OrderBy = json.RawMessage(rapid.SampledFrom([]string{`"key"`, `"none"`, `["tenant","id: x"]`}).Draw(r, "order"))
	c.AckWait = span(r, "ack_wait", 1000, 100_000_000/10)
	c.MaxInFlight, c.MaxAttempts = rapid.IntRange(1, 10).Draw(r, "in flight"), rapid.IntRange(0, 3).Draw(r, "attempts")
	c.OnExhausted = rapid.SampledFrom([]string{"park", "park_key", "block"}).Draw(r, "exhausted")
	c.Backoff = &client.Backoff{First: span(r, "first", 1, 1000), Max: span(r, "max", 1000, 100_000), Jitter: rapid.SampledFrom([]float64{0, 0.15, 1e-7, 1}).Draw(r, "jitter")}
	c.Batch = &client.Batching{Size: rapid.IntRange(1, 9).Draw(r, "size"), Wait: span(r, "wait", 0, 3)}
	c.ManagedBy, c.AppliedFrom = keeper(r)
	c.Kind = rapid.SampledFrom([]string{"http", "stdout", "webhook", "postgres", "nats", "kafka", "redis"}).Draw(r, "consumer kind")
	if choices := settings()[c.Kind]; len(choices) > 0 {
		m.settings[c.ID] = json.RawMessage(rapid.SampledFrom(choices).Draw(r, "settings"))
	}
	m.show(&c)
	c.UpdatedAt = m.clock
	return c
}

// settings of every kind: what is secret in them is hunter2.
func settings() map[string][]string {
	return map[string][]string{
		"webhook": {
			`{"url":"https://a.test"}`,
			`{"url":"https://a.test/hunter2?x=hunter2","secret":"hunter2","timeout":"15s","concurrency":4,"gzip":"true","allow_private":true}`,
			`{"url":"https://a.test/x","secrets":["hunter2",{"key":"hunter2","until":"2026-11-01T00:00:00Z"}],"headers":{"X-Team: ":"hunter2","Y":7},"path":"'/${x}/' + record.id"}`,
		},
		"postgres": {`{"url":"postgres://u:hunter2@h/db"}`, `{"url":"postgres://u:hunter2@h/db","table":"public.x"}`},
		"nats":     {`{"url":"nats://hunter2@h:4222"}`, `{"url":"nats://h:4222","subject":"a.b"}`},
		"kafka":    {`{"brokers":["a:9092","b:9092"],"topic":"t","password":"hunter2","user":"u","mechanism":"plain"}`, `{"brokers":["a:9092"]}`},
		"redis":    {`{"url":"redis://:hunter2@h:6379/0"}`},
	}
}
