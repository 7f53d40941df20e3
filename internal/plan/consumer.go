package plan

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/config"
)

func (m maker) consumerOfFile(c config.Consumer) thing {
	p := consumerParts{
		kind: string(c.Kind), database: c.Database, tables: c.Tables, collections: c.Collections, sync: m.syncName(c.Sync), actions: ownActions(c.Actions),
		filter: c.Filter, transform: c.Transform, backfill: c.Backfill, order: orderOf(c.OrderBy), ackWait: c.AckWait, maxInFlight: c.MaxInFlight,
		maxAttempts: c.MaxAttempts, onExhausted: string(c.OnExhausted), backoff: completed(c.Backoff), batch: c.Batch,
		shown: json.RawMessage("null"), settings: json.RawMessage(c.Settings.Reveal()),
	}
	if len(p.settings) > 0 && m.o.Shown != nil {
		p.shown = m.o.Shown(p.kind, p.settings)
	}
	t := thing{name: c.Name, database: c.Database, fields: p.fields(), start: startText(c.Start.String())}
	t.create = p.body()
	t.create["name"], t.create["start"] = c.Name, c.Start.String()
	t.group = p.group
	return t
}

func (m maker) consumerOfServer(c client.Consumer) thing {
	p := m.partsOf(c)
	return thing{
		name: c.Name, database: c.Database, fields: p.fields(), start: startText(c.Start),
		id: c.ID, managedBy: c.ManagedBy, appliedFrom: c.AppliedFrom, updated: c.UpdatedAt,
	}
}

// partsOf reads a consumer as a node tells it.
func (m maker) partsOf(c client.Consumer) consumerParts {
	return consumerParts{
		kind: c.Kind, database: c.Database, tables: c.Tables, collections: c.Collections, sync: m.syncName(c.Sync), actions: namedActions(c.Actions),
		filter: c.Filter, transform: c.Transform, backfill: c.Backfill, order: orderOfServer(c.OrderBy), ackWait: span(c.AckWait), maxInFlight: c.MaxInFlight,
		maxAttempts: c.MaxAttempts, onExhausted: c.OnExhausted, backoff: backoffOf(c.Backoff), batch: batchOf(c.Batch), shown: settingsOf(c),
	}
}

// syncName returns the name of a sync that a consumer refers to by its id.
func (m maker) syncName(ref string) string {
	for _, s := range m.server.Syncs {
		if strings.EqualFold(s.ID, ref) {
			return s.Name
		}
	}
	return ref
}

// consumerParts is what both sides have of a consumer, its defaults filled in.
type consumerParts struct {
	kind, database      string
	tables, collections []string
	sync                string
	actions             []string
	filter, transform   string
	backfill            bool
	order               any // key, none or columns
	ackWait             time.Duration
	maxInFlight         int
	maxAttempts         int
	onExhausted         string
	backoff             config.Backoff
	batch               config.Batch
	shown               json.RawMessage // the kind's settings without secrets
	settings            json.RawMessage // and with them: of the file only
}

// standardParts are those of a consumer that says nothing.
func standardParts() consumerParts {
	d := config.DefaultConsumer()
	return consumerParts{
		kind: string(d.Kind), actions: ownActions(nil), order: orderOf(d.OrderBy), ackWait: d.AckWait, maxInFlight: d.MaxInFlight, maxAttempts: d.MaxAttempts,
		onExhausted: string(d.OnExhausted), backoff: d.Backoff, batch: d.Batch,
	}
}

func (p consumerParts) fields() []field {
	list := p.common()
	for i, standard := range standardParts().common() {
		list[i].standard = list[i].shown == standard.shown
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(p.shown, &members) // the settings are an object or nothing
	full := p.members()
	for _, name := range slices.Sorted(maps.Keys(members)) {
		f := field{name: p.kind + "." + name, shown: canonicalRaw(members[name])}
		if f.shown == "null" {
			continue
		}
		f.secret = strings.Contains(f.shown, hidden) || strings.Contains(f.shown, "…")
		f.needs = needsOf(full[name])
		list = append(list, f)
	}
	return list
}

func (p consumerParts) common() []field {
	return []field{
		{name: "kind", shown: canonical(p.kind), fixed: true},
		{name: "database", shown: canonical(p.database), fixed: true},
		given("tables", p.tables, len(p.tables) > 0),
		given("collections", p.collections, len(p.collections) > 0),
		given("sync", p.sync, p.sync != ""),
		given("actions", p.actions, true),
		given("filter", p.filter, p.filter != ""),
		given("transform", p.transform, p.transform != ""),
		given("backfill", p.backfill, p.backfill),
		given("order_by", p.order, true),
		given("ack_wait", spanText(p.ackWait), true),
		given("max_in_flight", p.maxInFlight, true),
		given("max_attempts", p.maxAttempts, p.maxAttempts != 0),
		given("on_exhausted", p.onExhausted, true),
		given("backoff.first", spanText(p.backoff.First), true),
		given("backoff.max", spanText(p.backoff.Max), true),
		given("backoff.jitter", p.backoff.Jitter, true),
		given("batch.size", p.batch.Size, true),
		given("batch.wait", spanText(p.batch.Wait), true),
	}
}

// members are the settings of the file, with their secrets.
func (p consumerParts) members() map[string]json.RawMessage {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(p.settings, &members)
	return members
}

// body makes the consumer, but for its name and its start.
func (p consumerParts) body() map[string]any {
	body := map[string]any{}
	for _, f := range p.common() {
		if f.shown != "" {
			merge(body, p.group(f.name))
		}
	}
	if len(p.settings) > 0 {
		body[p.kind] = p.settings
	}
	return body
}

// group is what a changed field is sent with.
func (p consumerParts) group(name string) map[string]any {
	switch name {
	case "kind":
		return map[string]any{"kind": p.kind}
	case "database":
		return map[string]any{"database": p.database}
	case "tables":
		return map[string]any{"tables": append([]string{}, p.tables...)}
	case "collections":
		return map[string]any{"collections": append([]string{}, p.collections...)}
	case "sync":
		return map[string]any{"sync": p.sync}
	case "actions":
		return map[string]any{"actions": sentActions(p.actions)}
	case "filter":
		return map[string]any{"filter": p.filter}
	case "transform":
		return map[string]any{"transform": p.transform}
	case "backfill":
		return map[string]any{"backfill": p.backfill}
	case "order_by":
		return map[string]any{"order_by": p.order}
	case "ack_wait":
		return map[string]any{"ack_wait": p.ackWait.String()}
	case "max_in_flight":
		return map[string]any{"max_in_flight": p.maxInFlight}
	case "max_attempts":
		return map[string]any{"max_attempts": p.maxAttempts}
	case "on_exhausted":
		return map[string]any{"on_exhausted": p.onExhausted}
	case "backoff.first", "backoff.max", "backoff.jitter":
		return map[string]any{"backoff": map[string]any{"first": p.backoff.First.String(), "max": p.backoff.Max.String(), "jitter": p.backoff.Jitter}}
	case "batch.size", "batch.wait":
		return map[string]any{"batch": map[string]any{"size": p.batch.Size, "wait": p.batch.Wait.String()}}
	}
	return p.setting(name)
}

// setting is one member of the kind's settings; null removes it.
func (p consumerParts) setting(name string) map[string]any {
	kind, member, _ := strings.Cut(name, ".")
	value := any(nil)
	if raw, there := p.members()[member]; there && kind == p.kind {
		value = raw
	}
	return map[string]any{kind: map[string]any{member: value}}
}

// ownActions names the actions that a consumer chooses: the others always come.
func ownActions(actions []lockstep.Action) []string {
	names := make([]string, len(actions))
	for i, a := range actions {
		names[i] = a.String()
	}
	return namedActions(names)
}

func namedActions(names []string) []string {
	chosen := []string{}
	for _, a := range []lockstep.Action{lockstep.Insert, lockstep.Update, lockstep.Delete} {
		if len(names) == 0 || slices.Contains(names, a.String()) {
			chosen = append(chosen, a.String())
		}
	}
	return chosen
}

// sentActions is what chooses these: none at all would be all of them.
func sentActions(chosen []string) []string {
	if len(chosen) == 0 {
		return []string{lockstep.Read.String()}
	}
	return chosen
}

func orderOf(o config.OrderBy) any {
	switch {
	case o.Unordered:
		return "none"
	case len(o.Columns) > 0:
		return o.Columns
	}
	return "key"
}

func orderOfServer(raw json.RawMessage) any {
	var columns []string
	if json.Unmarshal(raw, &columns) == nil && len(columns) > 0 {
		return columns
	}
	var word string
	if json.Unmarshal(raw, &word) == nil && word != "" {
		return word
	}
	return "key"
}

// completed is a backoff as a node completes it.
func completed(b config.Backoff) config.Backoff {
	if b == (config.Backoff{}) {
		return config.DefaultConsumer().Backoff
	}
	if b.First == 0 {
		b.First = time.Second
	}
	if b.Max == 0 {
		b.Max = max(10*time.Minute, b.First)
	}
	return b
}

func backoffOf(b *client.Backoff) config.Backoff {
	if b == nil {
		return completed(config.Backoff{})
	}
	return completed(config.Backoff{First: span(b.First), Max: span(b.Max), Jitter: b.Jitter})
}

func batchOf(b *client.Batching) config.Batch {
	if b == nil {
		return config.DefaultConsumer().Batch
	}
	return config.Batch{Size: max(b.Size, 1), Wait: span(b.Wait)}
}

// settingsOf returns what a node shows of the settings of the consumer's kind.
func settingsOf(c client.Consumer) json.RawMessage {
	switch c.Kind {
	case "webhook":
		return c.Webhook
	case "postgres":
		return c.Postgres
	case "nats":
		return c.Nats
	case "kafka":
		return c.Kafka
	case "redis":
		return c.Redis
	}
	return nil
}

// startText is a place in one form.
func startText(text string) string {
	s, err := config.ParseStart(text)
	if err != nil {
		return text
	}
	s.Time = s.Time.UTC()
	return s.String()
}
