package plan_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/config"
	"lockstep/internal/kinds"
	"lockstep/internal/plan"
)

// model is a node as far as a plan sees it: it takes the bodies that a plan sends and
// shows what a node shows of them.
type model struct {
	plan.Server
	settings map[string]json.RawMessage // of consumers, with their secrets, by id
	secrets  map[string]json.RawMessage // credentials of syncs, by id
	clock    time.Time
	made     int
}

func newModel() *model {
	return &model{
		Server:   plan.Server{Databases: []string{"app"}},
		settings: map[string]json.RawMessage{}, secrets: map[string]json.RawMessage{}, clock: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC),
	}
}

func (m *model) id() string {
	m.made++
	m.clock = m.clock.Add(time.Second)
	return fmt.Sprintf("00000000-0000-4000-8000-%012d", m.made)
}

// apply carries a plan out.
func (m *model) apply(t testing.TB, p plan.Plan) {
	t.Helper()
	for _, o := range p.Operations() {
		raw, err := json.Marshal(o.Body)
		if err != nil {
			t.Fatal(err)
		}
		if o.What == plan.Sync {
			m.sync(t, o, raw, p.From)
		} else {
			m.consumer(t, o, raw, p.From)
		}
	}
}

func (m *model) consumer(t testing.TB, o plan.Operation, raw json.RawMessage, from string) {
	t.Helper()
	i := slices.IndexFunc(m.Consumers, func(c client.Consumer) bool { return c.ID == o.ID })
	if o.Action == plan.Create {
		if slices.ContainsFunc(m.Consumers, func(c client.Consumer) bool { return c.Name == o.Name }) {
			t.Fatalf("consumer %s is made twice", o.Name)
		}
		m.Consumers = append(m.Consumers, m.standard())
		i = len(m.Consumers) - 1
	}
	if i < 0 || !m.Consumers[i].UpdatedAt.Equal(o.Expected) && o.Action != plan.Create {
		t.Fatalf("%s of consumer %s expects what is not there", o.Action, o.Name)
	}
	if o.Action == plan.Delete {
		m.Consumers = slices.Delete(m.Consumers, i, i+1)
		return
	}
	c := &m.Consumers[i]
	before := c.Definition
	if err := json.Unmarshal(raw, &c.Definition); err != nil {
		t.Fatal(err)
	}
	if o.Action == plan.Change && (before.Kind != c.Kind || before.Database != c.Database || before.Start != c.Start) {
		t.Fatalf("consumer %s: what is fixed is changed", o.Name)
	}
	var body map[string]json.RawMessage
	_ = json.Unmarshal(raw, &body)
	if change, there := body[c.Kind]; there {
		merged, err := kinds.Merge(c.Kind, m.settings[c.ID], change)
		if err != nil {
			t.Fatal(err)
		}
		m.settings[c.ID] = merged
	}
	m.show(c)
	m.clock = m.clock.Add(time.Second)
	c.ManagedBy, c.AppliedFrom, c.UpdatedAt = "apply", from, m.clock
}

func (m *model) standard() client.Consumer {
	c := client.Consumer{ID: m.id()}
	c.Kind, c.Start, c.AckWait, c.MaxInFlight, c.OnExhausted = "http", "now", "30s", 1000, "park"
	c.Actions, c.OrderBy = []string{"insert", "update", "delete"}, json.RawMessage(`"key"`)
	c.Backoff, c.Batch = &client.Backoff{First: "1s", Max: "10m", Jitter: 0.15}, &client.Batching{Size: 1, Wait: "0s"}
	return c
}

// show hides the secrets of a consumer's settings.
func (m *model) show(c *client.Consumer) {
	c.Webhook, c.Postgres, c.Nats, c.Kafka, c.Redis = nil, nil, nil, nil, nil
	shown := kinds.Shown(c.Kind, m.settings[c.ID])
	switch c.Kind {
	case "webhook":
		c.Webhook = shown
	case "postgres":
		c.Postgres = shown
	case "nats":
		c.Nats = shown
	case "kafka":
		c.Kafka = shown
	case "redis":
		c.Redis = shown
	}
}

// syncBody is what a node takes of a sync.
type syncBody struct {
	Name, Provider, Database, Schema, Spec, Every *string
	BaseURL                                       *string `json:"base_url"`
	Collections                                   *[]string
	RateLimit                                     *client.SyncRateLimit `json:"rate_limit"`
	Credential                                    *struct {
		Kind       string
		Properties map[string]string
	}
	Paused *bool
}

func (m *model) sync(t testing.TB, o plan.Operation, raw json.RawMessage, from string) {
	t.Helper()
	i := slices.IndexFunc(m.Syncs, func(s client.Sync) bool { return s.ID == o.ID })
	if o.Action == plan.Create {
		m.Syncs = append(m.Syncs, client.Sync{ID: m.id(), Name: o.Name, All: true})
		i = len(m.Syncs) - 1
	}
	if i < 0 || !m.Syncs[i].UpdatedAt.Equal(o.Expected) && o.Action != plan.Create {
		t.Fatalf("%s of sync %s expects what is not there", o.Action, o.Name)
	}
	if o.Action == plan.Delete {
		m.Syncs = slices.Delete(m.Syncs, i, i+1)
		return
	}
	var b syncBody
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	s := &m.Syncs[i]
	if o.Action == plan.Change && (b.Provider != nil || b.Schema != nil || b.Database != nil || b.Paused != nil) {
		t.Fatalf("sync %s: what is fixed is changed", o.Name)
	}
	if o.Action == plan.Change && (b.BaseURL != nil || b.Spec != nil) && b.Credential == nil {
		t.Fatalf("sync %s: its credential is sent elsewhere", o.Name)
	}
	take(&s.Provider, b.Provider)
	take(&s.Database, b.Database)
	take(&s.Schema, b.Schema)
	take(&s.Spec, b.Spec)
	take(&s.BaseURL, b.BaseURL)
	take(&s.Every, b.Every)
	take(&s.Paused, b.Paused)
	if b.Collections != nil {
		s.CollectionIDs, s.All = *b.Collections, len(*b.Collections) == 0
	}
	if b.RateLimit != nil {
		s.RateLimit = b.RateLimit
	}
	if b.Credential != nil {
		s.Credential = client.SyncProperties{Kind: b.Credential.Kind, Names: slices.Collect(maps.Keys(b.Credential.Properties))}
	}
	m.clock = m.clock.Add(time.Second)
	s.ManagedBy, s.AppliedFrom, s.UpdatedAt = "apply", from, m.clock
	for n := range m.Syncs {
		if other := m.Syncs[n]; n != i && other.Database == s.Database && other.Schema == s.Schema {
			t.Fatalf("the syncs %s and %s share a schema", s.Name, other.Name)
		}
	}
}

func take[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

// parse reads a file as plan does.
func parse(t testing.TB, text string, server plan.Server, lookup func(string) (string, bool)) *config.Config {
	t.Helper()
	file, err := config.Parse("lockstep.yml", []byte(text), config.Options{
		Lookup: lookup, Kinds: kinds.Names(), Remote: &config.Remote{Databases: server.Databases}, Unset: plan.Unset,
	})
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, text)
	}
	return file
}

// unset has no variables; set has all of them.
func unset(string) (string, bool) { return "", false }

func set(name string) (string, bool) { return "value-of-" + name, true }

func options() plan.Options { return plan.Options{From: "lockstep.yml", Shown: kinds.Shown} }

// make reads a file and compares it.
func (m *model) plan(t testing.TB, text string, o plan.Options) plan.Plan {
	t.Helper()
	return plan.Make(parse(t, text, m.Server, set), m.Server, o)
}
