package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"lockstep"
	"lockstep/internal/suggest"
)

// The limits of a consumer's settings.
const (
	MinAckWait   = 10 * time.Millisecond
	MaxAckWait   = 12 * time.Hour
	MaxInFlight  = 200_000
	MaxAttempts  = 1_000_000
	MaxBackoff   = 30 * 24 * time.Hour
	MaxBatchSize = 1000
	MaxColumns   = 32 // of order_by
)

func allKinds() []string {
	return []string{"http", "webhook", "postgres", "nats", "kafka", "redis", "embeddings", "stdout"}
}

// databasesByName lets consumers find what they refer to.
type databasesByName struct {
	names    []string
	captures map[string]Capture
}

func (r *reader) consumers(v value, databases []Database, known []string) []Consumer {
	refs := databasesByName{names: known, captures: map[string]Capture{}}
	for _, d := range databases {
		refs.captures[d.Name] = d.Capture
	}
	var out []Consumer
	names := map[string]value{}
	for _, item := range r.list(v) {
		keys := []string{"name", "kind", "database", "tables", "collections", "sync", "actions", "filter", "transform", "start", "backfill", "order_by",
			"ack_wait", "max_in_flight", "max_attempts", "on_exhausted", "backoff", "batch"}
		f, ok := r.mapping(item, append(keys, allKinds()...)...)
		if !ok {
			continue
		}
		c := DefaultConsumer()
		r.named(f, &c.Name, names, consumerNames())
		r.kind(f, &c)
		r.consumerDatabase(f, &c, refs)
		r.selection(f, &c)
		r.delivery(f, &c)
		out = append(out, c)
	}
	return out
}

// kind reads the kind and the settings that stand under a kind's name.
func (r *reader) kind(f fields, c *Consumer) {
	kind := string(KindHTTP)
	word(r, f.get("kind"), &kind, allKinds()...)
	c.Kind = Kind(kind)
	available := append([]string{string(KindHTTP)}, r.options.Kinds...)
	if r.options.Kinds == nil {
		available = append(available, string(KindStdout))
	}
	if !slices.Contains(available, kind) {
		r.wrong(f.get("kind"), fmt.Sprintf("consumers of kind %s are not available in this version", kind), "use "+suggest.Or(available))
	}
	for _, other := range allKinds() {
		if f.has(other) && other != kind {
			r.wrong(f.get(other), fmt.Sprintf("settings of kind %s at a consumer of kind %s", other, kind), "remove them, or change kind")
		}
	}
	if slices.Contains(available, kind) {
		r.kindSettings(f, c)
	}
}

// kindSettings reads what stands under the consumer's own kind.
func (r *reader) kindSettings(f fields, c *Consumer) {
	v := f.get(string(c.Kind))
	settings, readable := r.json(v)
	if !readable {
		return
	}
	if members, ok := settings.(map[string]any); v.node != nil && !ok {
		r.wrong(v, "expected keys and values, got "+describe(v.node), "write it as key: value")
		return
	} else if len(members) > 0 {
		if c.Kind == KindHTTP {
			r.wrong(v, "the kind http has no settings", "remove them")
			return
		}
		// Texts, numbers, lists and maps of texts always marshal.
		data, _ := json.Marshal(members)
		c.Settings = Secret(data)
	}
	if c.Kind == KindHTTP || r.options.CheckKind == nil {
		return
	}
	for _, fault := range r.options.CheckKind(string(c.Kind), c.Settings.Reveal()) {
		r.wrong(r.inside(f, v, fault.Field), fault.Message, fault.Remedy)
	}
}

// inside finds the place of a field of settings; what is not there is missed at what
// ought to hold it.
func (r *reader) inside(f fields, settings value, field string) value {
	if settings.node == nil {
		settings.node = f.self.node
		if field != "" {
			settings.path = settings.child(field, nil).path
		}
		return settings
	}
	if field == "" {
		return settings
	}
	name, _, _ := strings.Cut(field, "[")
	if resolved, ok := r.resolve(settings); ok {
		settings = resolved
	}
	for i := 0; i+1 < len(settings.node.Content); i += 2 {
		if settings.node.Content[i].Value == name {
			return settings.child(field, settings.node.Content[i+1])
		}
	}
	return value{node: settings.node, path: settings.child(field, nil).path}
}

// json reads any value as what JSON has for it, with its variables put in. It reports
// false when something in it was wrong.
func (r *reader) json(v value) (any, bool) {
	if absent(v) {
		return nil, true
	}
	v, ok := r.resolve(v)
	if !ok {
		return nil, false
	}
	switch v.node.Kind {
	case yaml.MappingNode:
		f, ok := r.mapping(v)
		members := map[string]any{}
		for name, member := range f.values {
			one, readable := r.json(member)
			members[name], ok = one, ok && readable
		}
		return members, ok
	case yaml.SequenceNode:
		items := []any{}
		for _, item := range r.list(v) {
			one, readable := r.json(item)
			items, ok = append(items, one), ok && readable
		}
		return items, ok
	}
	text, ok := r.scalar(v, "one value", "!!int", "!!float", "!!bool", "!!timestamp")
	if !ok {
		return nil, false
	}
	if tag := v.node.ShortTag(); tag == "!!bool" {
		return strings.EqualFold(text, "true"), true
	} else if tag == "!!int" {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, true
		}
	}
	return text, true
}

func (r *reader) consumerDatabase(f fields, c *Consumer, refs databasesByName) {
	if len(refs.names) == 1 {
		c.Database = refs.names[0]
	} else if !f.has("database") && len(refs.names) > 0 {
		r.missing(f, "database", "say which of "+suggest.Or(refs.names))
		return
	}
	r.reference(f.get("database"), &c.Database, refs.names)
	if f.has("database") && refs.captures[c.Database] == CaptureNone {
		r.wrong(f.get("database"), fmt.Sprintf("nothing is captured from the database %s", c.Database), "give that database capture: wal")
	}
}

// selection reads which changes the consumer gets, and in what form.
func (r *reader) selection(f fields, c *Consumer) {
	c.Tables = r.patterns(f.get("tables"))
	r.collections(f, c)
	c.Actions = r.actions(f.get("actions"))
	r.expression(f.get("filter"), &c.Filter, r.options.CheckFilter)
	r.expression(f.get("transform"), &c.Transform, r.options.CheckTransform)
	start := c.Start.String()
	r.text(f.get("start"), &start)
	place, err := ParseStart(start)
	if err != nil {
		r.wrong(f.get("start"), err.Error(), "write now, beginning, seq:1234, a time such as 2026-11-01T00:00:00Z, or 1h for an hour ago")
	}
	c.Start = place
	r.boolean(f.get("backfill"), &c.Backfill)
}

// collections reads what a consumer gets of syncs. Whether there are such syncs is not
// asked: they may be made by API, and later.
func (r *reader) collections(f fields, c *Consumer) {
	at := f.get("collections")
	for _, item := range r.list(at) {
		name, ok := r.scalar(item, "a collection")
		if ok && !isCollection(name) {
			r.wrong(item, fmt.Sprintf("%q is not a collection", name), "write provider:collection such as stripe:customer, stripe:* or *")
		}
		c.Collections = append(c.Collections, name)
	}
	if kindOf(at) == yaml.SequenceNode && len(c.Collections) == 0 {
		r.wrong(at, "no collection is named", `name some, write ["*"] for all, or remove it`)
	}
	if len(c.Collections) > 0 && len(c.Tables) > 0 {
		r.wrong(at, "a consumer gets either tables or collections, since their records have different forms", "remove one of them, or make two consumers")
	}
	r.text(f.get("sync"), &c.Sync)
	if c.Sync != "" && !f.has("collections") {
		r.wrong(f.get("sync"), "sync says whose collections the consumer gets, and there are none", `add collections, for example ["*"]`)
	}
}

// isCollection says whether a name has the form that delivery reads: stripe:customer,
// stripe:* or *.
func isCollection(name string) bool {
	const all, letters = "*", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
	provider, collection, ok := strings.Cut(name, ":")
	if !ok {
		return name == all
	}
	return provider != "" && collection != "" && strings.Trim(provider, letters) == "" && (collection == all || strings.Trim(collection, letters) == "")
}

// expression reads an expression and has it checked.
func (r *reader) expression(v value, dst *string, check func(string) error) {
	r.text(v, dst)
	if *dst == "" || check == nil {
		return
	}
	if err := check(*dst); err != nil {
		r.wrong(v, oneLine(err), "")
	}
}

func (r *reader) actions(v value) []lockstep.Action {
	var out []lockstep.Action
	for _, item := range r.list(v) {
		name := ""
		word(r, item, &name, "insert", "update", "delete", "truncate", "read", "gap")
		action, err := lockstep.ParseAction(name)
		if err != nil || slices.Contains(out, action) {
			continue // an unknown one was reported; one named twice does no harm
		}
		out = append(out, action)
	}
	if len(out) > 0 && !slices.Contains(out, lockstep.Read) {
		out = append(out, lockstep.Read)
	}
	return out
}

// delivery reads how changes are handed out.
func (r *reader) delivery(f fields, c *Consumer) {
	c.OrderBy = r.orderBy(f.get("order_by"))
	r.duration(f.get("ack_wait"), &c.AckWait, MinAckWait, MaxAckWait)
	r.integer(f.get("max_in_flight"), &c.MaxInFlight, 1, MaxInFlight)
	r.integer(f.get("max_attempts"), &c.MaxAttempts, 0, MaxAttempts)
	word(r, f.get("on_exhausted"), &c.OnExhausted, Park, ParkKey, Block)
	if f.has("backoff") {
		r.backoff(f.get("backoff"), &c.Backoff)
	}
	if !f.has("batch") {
		return
	}
	if b, ok := r.mapping(f.get("batch"), "size", "wait"); ok {
		r.integer(b.get("size"), &c.Batch.Size, 1, MaxBatchSize)
		r.duration(b.get("wait"), &c.Batch.Wait, 0, time.Hour)
	}
}

func (r *reader) backoff(v value, b *Backoff) {
	f, ok := r.mapping(v, "first", "max", "jitter")
	if !ok {
		return
	}
	r.duration(f.get("first"), &b.First, 0, MaxBackoff)
	r.duration(f.get("max"), &b.Max, 0, MaxBackoff)
	r.share(f.get("jitter"), &b.Jitter)
	if b.Max < b.First {
		r.wrong(f.self, fmt.Sprintf("max (%s) is shorter than first (%s)", b.Max, b.First), "swap them or raise max")
	}
}

func (r *reader) orderBy(v value) OrderBy {
	if v.node == nil {
		return OrderBy{}
	}
	if kindOf(v) == yaml.ScalarNode {
		order := "key"
		word(r, v, &order, "key", "none")
		return OrderBy{Unordered: order == "none"}
	}
	var columns []string
	for _, item := range r.list(v) {
		column := ""
		r.text(item, &column)
		if column != "" {
			columns = append(columns, column)
		}
	}
	if kindOf(v) == yaml.SequenceNode && len(columns) == 0 {
		r.wrong(v, "no column is named", "write key, none or a list of columns")
	}
	if len(columns) > MaxColumns {
		r.wrong(v, fmt.Sprintf("more than %d columns", MaxColumns), "name fewer")
	}
	return OrderBy{Columns: columns}
}
