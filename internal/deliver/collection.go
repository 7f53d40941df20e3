package deliver

import (
	"fmt"
	"strings"

	"lockstep"
)

// Mirrored says which collection of which sync a table mirrors.
type Mirrored struct {
	SyncID     string
	Sync       string // its name
	Provider   string // stripe
	Collection string // with the provider: stripe:customer
}

// collection is what a consumer asks for: one collection, all of a provider's, or
// (the zero value) all.
type collection struct{ provider, name string }

// AnyCollection stands for every collection: * or, of one provider, stripe:*.
const AnyCollection = "*"

// ParseCollection returns the provider that a collection names, stripe of
// stripe:customer and of stripe:*, or none of *.
func ParseCollection(text string) (provider string, err error) {
	c, err := parseCollection(text)
	return c.provider, err
}

// parseCollection reads stripe:customer, stripe:* or *.
func parseCollection(text string) (collection, error) {
	if text == AnyCollection {
		return collection{}, nil
	}
	provider, name, ok := strings.Cut(text, ":")
	if !ok || !isWord(provider) || name != AnyCollection && !isWord(name) {
		return collection{}, fmt.Errorf("%q is no collection: write provider:collection such as stripe:customer, or stripe:* for all of stripe's", text)
	}
	if name == AnyCollection {
		name = ""
	}
	return collection{provider, name}, nil
}

// isWord reports whether a name is made of letters, digits, _, - and dots only.
func isWord(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == ""
}

func (c collection) matches(m Mirrored) bool {
	if c.name != "" {
		provider, name, _ := strings.Cut(m.Collection, ":")
		return c.name == name && c.provider == provider
	}
	return c.provider == "" || c.provider == m.Provider
}

// form is how a change is shown to a consumer: as the row, or as the API's object
// that the row mirrors.
type form struct {
	api  bool
	from Mirrored // when api
}

// selectsTable reports whether a table's changes can match, whoever they are for.
func (m *matcher) selectsTable(schema, name string) bool {
	if m.collections == nil {
		return m.tables.Match(schema, name)
	}
	from, ok := m.mirror(schema, name)
	if !ok || m.sync != "" && m.sync != from.SyncID && m.sync != from.Sync {
		return false
	}
	for _, c := range m.collections {
		if c.matches(from) {
			return true
		}
	}
	return false
}

func (m *matcher) mirror(schema, name string) (Mirrored, bool) {
	if m.mirrored == nil {
		return Mirrored{}, false
	}
	return m.mirrored(m.database, schema, name)
}

// formOf returns how the change is shown. ok is false when it is to be shown as the
// API's object and no sync mirrors the table any more.
func (m *matcher) formOf(r lockstep.Record) (f form, ok bool) {
	if m.collections == nil || r.Action().Whole() {
		return form{}, true
	}
	t := r.Table()
	from, ok := m.mirror(t.Schema, t.Name)
	return form{api: true, from: from}, ok
}

// Selects reports whether changes of the table concern the consumer, as its
// definition is now. Backfills ask it which tables to read.
func (c *Consumer) Selects(schema, table string) bool {
	c.mu.Lock()
	m := c.match
	c.mu.Unlock()
	return m.selectsTable(schema, table)
}

// tableKey tells tables apart for those who remember which consumers select them: by
// its name, and by what it mirrors, which may change while the name stays.
func tableKey(database string, t *lockstep.Table, mirrored func(database, schema, table string) (Mirrored, bool)) string {
	if t.OID == 0 {
		return "\x00" + t.Consumer
	}
	key := t.Schema + "\x00" + t.Name + "\x00" + t.Consumer
	if mirrored == nil {
		return key
	}
	if from, ok := mirrored(database, t.Schema, t.Name); ok {
		key += "\x00" + from.SyncID + "\x00" + from.Sync + "\x00" + from.Collection
	}
	return key
}
