package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lockstep/client"
	"lockstep/internal/config"
)

// Export writes a file with the syncs and consumers of a node. Secrets are variables that
// the file names; what a file cannot hold is told in comments.
func Export(server Server) []byte {
	w := &writer{names: map[string]bool{}}
	e := exporter{writer: w, server: server, unfit: Unfit(server)}
	e.head()
	e.syncs()
	e.consumers()
	var head strings.Builder
	if len(w.list) > 0 {
		head.WriteString("# Secrets are not exported. Set these variables before the file is applied:\n")
		for _, name := range w.list {
			head.WriteString("#   " + name + "\n")
		}
		head.WriteString("\n")
	}
	return []byte("# lockstep export: the syncs and consumers of a server, for lockstep plan and apply.\n" + head.String() + w.text.String())
}

type exporter struct {
	*writer
	server Server
	unfit  map[string]string
}

// head tells of what is the server's own and not applied.
func (e exporter) head() {
	names := slices.Sorted(slices.Values(e.server.Databases))
	if len(names) > 0 {
		e.comment("", "Databases, changed in the server's own file: %s", strings.Join(names, ", "))
	}
	tokens := make([]string, 0, len(e.server.Tokens))
	for _, t := range e.server.Tokens {
		if t.State == "" || t.State == "active" {
			tokens = append(tokens, t.Name)
		}
	}
	if slices.Sort(tokens); len(tokens) > 0 {
		e.comment("", "Tokens, made by lockstep token create or in the server's own file: %s", strings.Join(tokens, ", "))
	}
}

func (e exporter) syncs() {
	list := slices.Clone(e.server.Syncs)
	slices.SortFunc(list, func(a, b client.Sync) int { return cmp.Compare(a.Name, b.Name) })
	e.section("syncs", len(list) == e.misfits(Sync))
	for _, s := range list {
		if reason := e.unfit[key(Sync, s.Name)]; reason != "" {
			e.comment("  ", "the sync %q cannot stand in a file: %s", s.Name, reason)
			continue
		}
		e.sync(s)
	}
}

// section begins a list; an empty one is written as such, so that it can hold comments.
func (e exporter) section(name string, empty bool) { //nolint:revive // it says what the section is, and does nothing else by it
	e.line("")
	if empty {
		e.line("%s: []", name)
		return
	}
	e.line("%s:", name)
}

func (e exporter) misfits(what string) int {
	n := 0
	for k := range e.unfit {
		if strings.HasPrefix(k, what+" ") {
			n++
		}
	}
	return n
}

// about tells what a file has no words for.
func (e exporter) about(managedBy, from string, more ...string) {
	switch managedBy {
	case "file":
		e.comment("    ", "defined in the server's own file")
	case "apply":
		e.comment("    ", "applied from %s", from)
	}
	for _, text := range more {
		if text != "" {
			e.comment("    ", "%s", text)
		}
	}
}

// kept is what a node keeps of a definition beside the file.
func kept(name string, raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	return name + ", kept by the server: " + canonicalRaw(raw)
}

func (e exporter) sync(s client.Sync) {
	const in = "    "
	t := syncOfServer(s)
	e.line("  - name: %s", scalar(s.Name))
	external := ""
	if s.ExternalID != "" {
		external = "external_id, kept by the server: " + s.ExternalID
	}
	e.about(s.ManagedBy, s.AppliedFrom, external, kept("metadata", s.Metadata))
	e.line(in+"provider: %s", scalar(s.Provider))
	if s.BaseURL != "" {
		e.line(in+"base_url: %s", scalar(s.BaseURL))
	}
	if s.Spec != "" {
		e.block(in, "spec", strings.TrimRight(s.Spec, "\n")+"\n")
	}
	e.credential(s)
	if !s.All && len(s.CollectionIDs) > 0 {
		e.line(in+"collections: %s", texts(s.CollectionIDs))
	}
	e.database(s.Database)
	e.line(in+"schema: %s", scalar(s.Schema))
	if every := span(s.Every); every != 0 {
		e.line(in+"every: %s", spanText(every))
	}
	var limits []string
	for _, f := range t.fields {
		if name, ok := strings.CutPrefix(f.name, "rate_limit."); ok && f.shown != "" {
			limits = append(limits, name+": "+f.shown)
		}
	}
	if len(limits) > 0 {
		e.line(in+"rate_limit: {%s}", strings.Join(limits, ", "))
	}
	if s.Paused {
		e.line(in + "paused: true")
	}
}

func (e exporter) credential(s client.Sync) {
	if s.Credential.Kind == "" && len(s.Credential.Names) == 0 {
		return
	}
	e.line("    credential:")
	if s.Credential.Kind != "" {
		e.line("      kind: %s", scalar(s.Credential.Kind))
	}
	if len(s.Credential.Names) > 0 {
		e.line("      properties:")
	}
	for _, name := range slices.Sorted(slices.Values(s.Credential.Names)) {
		variable := e.variable(s.Name, name)
		e.line("        %s: ${%s} # set %s", scalarKey(name), variable, variable)
	}
}

// database is written where it does not go without saying.
func (e exporter) database(name string) {
	if len(e.server.Databases) > 1 {
		e.line("    database: %s", scalar(name))
	}
}

func (e exporter) consumers() {
	list := slices.Clone(e.server.Consumers)
	slices.SortFunc(list, func(a, b client.Consumer) int { return cmp.Compare(a.Name, b.Name) })
	e.section("consumers", len(list) == e.misfits(Consumer))
	for _, c := range list {
		if reason := e.unfit[key(Consumer, c.Name)]; reason != "" {
			e.comment("  ", "the consumer %q cannot stand in a file: %s", c.Name, reason)
			continue
		}
		e.consumer(c)
	}
}

func (e exporter) consumer(c client.Consumer) {
	const in = "    "
	paused := ""
	if c.Status == "paused" {
		paused = "paused, which is a state and not part of a file"
	}
	e.line("  - name: %s", scalar(c.Name))
	e.about(c.ManagedBy, c.AppliedFrom, paused, kept("metadata", c.Metadata))
	e.line(in+"kind: %s", scalar(c.Kind))
	e.database(c.Database)
	p := maker{server: e.server}.partsOf(c)
	e.selection(p, c.Start)
	e.delivery(p)
	var members map[string]json.RawMessage
	if json.Unmarshal(p.shown, &members) != nil || len(members) == 0 {
		return
	}
	e.line(in+"%s:", c.Kind)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		before := len(e.list)
		value := e.settings(members[name], c.Name, name)
		if names := e.list[before:]; len(names) > 0 {
			value += " # set " + strings.Join(names, ", ")
		}
		e.line("      %s: %s", scalarKey(name), value)
	}
}

// selection writes which changes the consumer gets.
func (e exporter) selection(p consumerParts, start string) {
	const in = "    "
	if len(p.tables) > 0 {
		e.line(in+"tables: %s", texts(p.tables))
	}
	if len(p.collections) > 0 {
		e.line(in+"collections: %s", texts(p.collections))
	}
	if p.sync != "" {
		e.line(in+"sync: %s", scalar(p.sync))
	}
	if len(p.actions) < len(ownActions(nil)) {
		e.line(in+"actions: %s", texts(sentActions(p.actions)))
	}
	if p.filter != "" {
		e.block(in, "filter", p.filter)
	}
	if p.transform != "" {
		e.block(in, "transform", p.transform)
	}
	if start != "" && start != "now" {
		e.line(in+"start: %s", scalar(start))
	}
	if p.backfill {
		e.line(in + "backfill: true")
	}
}

// delivery writes how changes are handed out, but for what is the default.
func (e exporter) delivery(p consumerParts) {
	const in = "    "
	standard := standardParts()
	switch order := p.order.(type) {
	case []string:
		e.line(in+"order_by: %s", texts(order))
	case string:
		if order != "key" {
			e.line(in+"order_by: %s", order)
		}
	}
	if p.ackWait != standard.ackWait {
		e.line(in+"ack_wait: %s", spanText(p.ackWait))
	}
	if p.maxInFlight != standard.maxInFlight {
		e.line(in+"max_in_flight: %d", p.maxInFlight)
	}
	if p.maxAttempts != standard.maxAttempts {
		e.line(in+"max_attempts: %d", p.maxAttempts)
	}
	if p.onExhausted != standard.onExhausted {
		e.line(in+"on_exhausted: %s", p.onExhausted)
	}
	if p.backoff != standard.backoff {
		e.line(in+"backoff: {first: %s, max: %s, jitter: %s}", spanText(p.backoff.First), spanText(p.backoff.Max), canonical(p.backoff.Jitter))
	}
	if p.batch != standard.batch {
		e.line(in+"batch: {size: %d, wait: %s}", p.batch.Size, spanText(p.batch.Wait))
	}
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// Unfit returns what of a node a file cannot hold, by "sync NAME" and "consumer NAME", with
// the reason. The rules of files are narrower than the node's in places.
func Unfit(server Server) map[string]string {
	found := map[string]string{}
	for _, s := range server.Syncs {
		e := alone(server)
		e.line("syncs:")
		e.sync(s)
		if reason := e.fault(); reason != "" {
			found[key(Sync, s.Name)] = reason
		}
	}
	for _, c := range server.Consumers {
		e := alone(server)
		e.line("consumers:")
		e.consumer(c)
		if reason := e.fault(); reason != "" {
			found[key(Consumer, c.Name)] = reason
		}
	}
	return found
}

// alone writes a file for one thing.
func alone(server Server) exporter {
	return exporter{writer: &writer{names: map[string]bool{}}, server: server}
}

// fault returns what is wrong with what was written; empty: nothing.
func (e exporter) fault() string {
	kinds := []string{"webhook", "postgres", "nats", "kafka", "redis", "embeddings", "stdout"}
	_, err := config.Parse("", []byte(e.text.String()), config.Options{
		Lookup: func(string) (string, bool) { return "x", true }, Kinds: kinds, Remote: &config.Remote{Databases: e.server.Databases},
	})
	problems, ok := err.(config.Problems) //nolint:errorlint // Parse returns nothing else
	if !ok || len(problems) == 0 {
		return ""
	}
	_, at, _ := strings.Cut(problems[0].Path, "].")
	return fmt.Sprintf("%s: %s", at, problems[0].Message)
}
