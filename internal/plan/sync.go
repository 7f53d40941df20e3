package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	"lockstep/client"
	"lockstep/internal/config"
)

// placeOf is where the tables of a sync lie.
func placeOf(database, schema string) string { return database + "\x00" + schema }

func syncOfFile(s config.Sync) thing {
	t := thing{name: s.Name, database: s.Database, place: placeOf(s.Database, s.Schema), create: syncBody(s), group: func(name string) map[string]any { return syncGroup(s, name) }}
	if s.Paused {
		t.paused = "true"
	}
	t.fields = syncFields(syncParts{
		provider: s.Provider, database: s.Database, schema: s.Schema, baseURL: s.BaseURL, spec: s.Spec, collections: s.Collections, every: s.Every,
		limit: client.SyncRateLimit{RequestsPerSecond: s.RateLimit.RequestsPerSecond, MaxConcurrent: s.RateLimit.MaxConcurrent, Reserve: s.RateLimit.Reserve},
	})
	if s.Credential.Kind != "" {
		t.fields = append(t.fields, field{name: "credential.kind", shown: canonical(s.Credential.Kind)})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Credential.Properties)) {
		t.fields = append(t.fields, field{name: property(name), shown: canonical(hidden), secret: true, needs: needsOf(s.Credential.Properties[name].Reveal())})
	}
	return t
}

func property(name string) string { return "credential.properties." + name }

func syncOfServer(s client.Sync) thing {
	t := thing{
		name: s.Name, database: s.Database, place: placeOf(s.Database, s.Schema), id: s.ID, managedBy: s.ManagedBy, appliedFrom: s.AppliedFrom, updated: s.UpdatedAt,
	}
	if s.Paused {
		t.paused = "true"
	}
	parts := syncParts{provider: s.Provider, database: s.Database, schema: s.Schema, baseURL: s.BaseURL, spec: s.Spec, collections: s.CollectionIDs, every: span(s.Every)}
	if s.All {
		parts.collections = nil
	}
	if s.RateLimit != nil {
		parts.limit = *s.RateLimit
	}
	t.fields = syncFields(parts)
	if s.Credential.Kind != "" {
		t.fields = append(t.fields, field{name: "credential.kind", shown: canonical(s.Credential.Kind), free: true})
	}
	for _, name := range slices.Sorted(slices.Values(s.Credential.Names)) {
		t.fields = append(t.fields, field{name: property(name), shown: canonical(hidden), secret: true})
	}
	return t
}

// span reads a length of time that a node tells.
func span(text string) time.Duration {
	d, _ := config.ParseDuration(text) // what it cannot read differs from everything
	return d
}

// syncParts is what both sides have of a sync.
type syncParts struct {
	provider, database, schema, baseURL, spec string
	collections                               []string
	every                                     time.Duration
	limit                                     client.SyncRateLimit
}

func syncFields(p syncParts) []field {
	return []field{
		{name: "provider", shown: canonical(p.provider), fixed: true},
		{name: "database", shown: canonical(p.database), fixed: true},
		{name: "schema", shown: canonical(p.schema), fixed: true},
		given("base_url", p.baseURL, p.baseURL != ""),
		given("spec", strings.TrimRight(p.spec, "\n"), p.spec != ""),
		given("collections", ordered(p.collections), len(p.collections) > 0),
		given("every", spanText(p.every), p.every != 0),
		given("rate_limit.requests_per_second", p.limit.RequestsPerSecond, p.limit.RequestsPerSecond != 0),
		given("rate_limit.max_concurrent", p.limit.MaxConcurrent, p.limit.MaxConcurrent != 0),
		given("rate_limit.reserve", p.limit.Reserve, p.limit.Reserve != 0),
	}
}

// ordered is a choice of collections in one form: its order means nothing.
func ordered(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// given is a field that is there or not.
func given(name string, value any, there bool) field { //nolint:revive // it says what the field is, and does nothing else by it
	f := field{name: name, needs: needsOf(value)}
	if there {
		f.shown = canonical(value)
	}
	return f
}

// spanText writes a length of time without its zero parts, as a node does: 1m, not 1m0s.
func spanText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-2]
	}
	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-2]
	}
	return text
}

// syncBody makes a sync.
func syncBody(s config.Sync) map[string]any {
	body := map[string]any{"name": s.Name, "provider": s.Provider, "database": s.Database, "schema": s.Schema}
	put := func(name string, value any, there bool) {
		if there {
			body[name] = value
		}
	}
	put("base_url", s.BaseURL, s.BaseURL != "")
	put("spec", s.Spec, s.Spec != "")
	put("collections", s.Collections, len(s.Collections) > 0)
	put("every", s.Every.String(), s.Every != 0)
	put("rate_limit", rateBody(s), s.RateLimit != (config.RateLimit{}))
	put("credential", credentialBody(s), s.Credential.Kind != "" || len(s.Credential.Properties) > 0)
	put("paused", true, s.Paused)
	return body
}

func rateBody(s config.Sync) map[string]any {
	body := map[string]any{}
	if n := s.RateLimit.RequestsPerSecond; n != 0 {
		body["requests_per_second"] = n
	}
	if n := s.RateLimit.MaxConcurrent; n != 0 {
		body["max_concurrent"] = n
	}
	if n := s.RateLimit.Reserve; n != 0 {
		body["reserve"] = n
	}
	return body
}

func credentialBody(s config.Sync) map[string]any {
	properties := map[string]any{}
	for name, value := range s.Credential.Properties {
		properties[name] = value.Reveal()
	}
	body := map[string]any{"properties": properties}
	if s.Credential.Kind != "" {
		body["kind"] = s.Credential.Kind
	}
	return body
}

// syncGroup is what a changed field is sent with: limits and credentials are replaced as
// a whole, and where a credential goes is changed only together with it.
func syncGroup(s config.Sync, name string) map[string]any {
	group, _, _ := strings.Cut(name, ".")
	switch group {
	case "base_url":
		return map[string]any{"base_url": s.BaseURL, "credential": credentialBody(s)}
	case "spec":
		return map[string]any{"spec": s.Spec, "credential": credentialBody(s)}
	case "collections":
		return map[string]any{"collections": append([]string{}, s.Collections...)}
	case "every":
		return map[string]any{"every": s.Every.String()}
	case "rate_limit":
		return map[string]any{"rate_limit": rateBody(s)}
	case "credential":
		return map[string]any{"credential": credentialBody(s)}
	}
	return map[string]any{}
}
