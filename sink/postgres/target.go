package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/sink"
)

// target is a table that is written to, as the catalog had it. It is not changed; when
// the table is, another takes its place.
type target struct {
	name      name
	columns   []column
	byName    map[string]int  // by members of the record
	skipped   map[string]bool // members that are not written, and need not be
	strict    bool            // other members must be columns
	create    bool            // and are made such
	lacking   bool            // declared columns are missing, as their types are not known
	key       []int           // numbers of columns
	guard     Guard           // empty: the row itself, which is never deleted
	seq       int             // column; -1: there is none
	gone      int             // column of SoftDelete; -1: there is none
	positions name
	lock      uint32 // of its advisory lock
	generic   bool
	pruning   timer
	// Columns of the generic table, by the names that they have.
	inserted, data, deleted, collection string

	mu         sync.Mutex
	statements map[string]string // SQL by what it does and its columns
}

type column struct {
	name     string
	cast     string // the type without length: what does not fit is refused, never cut
	kind     kind
	computed bool // Postgres computes it
	always   bool // GENERATED ALWAYS AS IDENTITY: may be inserted, not updated
	truth    bool // boolean
}

// targets knows the tables that have been written to.
type targets struct {
	config *Config
	where  string
	turn   chan struct{} // whoever reads or changes a table's definition

	mu    sync.Mutex
	known map[name]*target
	names map[place]name
}

// place is what the name of a target depends on.
type place struct{ database, schema, table string }

func newTargets(config *Config, where string) *targets {
	return &targets{config: config, where: where, turn: make(chan struct{}, 1), known: map[name]*target{}, names: map[place]name{}}
}

// nameOf returns the name of a message's target.
func (t *targets) nameOf(m *sink.Message) name {
	const most = 10_000
	at := place{m.Database, m.Schema, m.Table}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.names[at]
	if !ok {
		if len(t.names) >= most {
			clear(t.names)
		}
		n = t.config.targetOf(m)
		t.names[at] = n
	}
	return n
}

// errAbsent says that the table is not there and that nothing is lost by it.
var errAbsent = errors.New("the table does not exist")

// of returns the target of a message, and looks it up or makes it when it is not known.
func (t *targets) of(ctx context.Context, c *conn, m *sink.Message) (*target, error) {
	if known := t.get(t.nameOf(m)); known != nil && !known.lacking {
		return known, nil
	}
	return t.renew(ctx, c, m, nil)
}

// renew looks the target of a message up again, unless it is another than old by now,
// and widens it for what the message has.
func (t *targets) renew(ctx context.Context, c *conn, m *sink.Message, old *target) (*target, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, t.refusal(sink.Retry, "read the table's definition: interrupted", context.Cause(ctx))
	}
	n := t.nameOf(m)
	if known := t.get(n); known != nil && known != old && len(t.missing(known, m)) == 0 {
		return known, nil
	}
	fresh, err := t.load(ctx, c, n, m)
	if err != nil {
		return nil, err
	}
	if missing := t.missing(fresh, m); len(missing) > 0 {
		if !t.config.Create {
			return nil, t.lacks(n, missing)
		}
		if err := t.widen(ctx, c, n, m, missing); err != nil {
			return nil, err
		}
		if fresh, err = t.load(ctx, c, n, m); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[n] = fresh
	return fresh, nil
}

// lacks is the refusal of a record that has members for which there is no column.
func (t *targets) lacks(n name, missing []string) error {
	quoted := make([]string, len(missing))
	for i, m := range missing {
		quoted[i] = quote(m)
	}
	return t.refusal(t.kind(), fmt.Sprintf("table %s has no column %s: add it (ALTER TABLE … ADD COLUMN), or set unknown: ignore, or rename it to nothing", n, strings.Join(quoted, ", ")), nil)
}

// kind is that of refusals about one table: with several, the others go on.
func (t *targets) kind() sink.Kind {
	if templated(t.config.Table) {
		return sink.Rejected
	}
	return sink.Refused
}

func (t *targets) refusal(kind sink.Kind, text string, cause error) *sink.Error {
	return &sink.Error{Kind: kind, Message: "postgres " + t.where + ": " + text, Err: cause}
}

func (t *targets) get(n name) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[n]
}

// forget makes the next message look at the catalog again.
func (t *targets) forget(list []*target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, old := range list {
		if t.known[old.name] == old {
			delete(t.known, old.name)
		}
	}
}

// all returns the targets that are known.
func (t *targets) all() []*target {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*target, 0, len(t.known))
	for _, one := range t.known {
		list = append(list, one)
	}
	return list
}

// missing returns the columns that the target lacks for a message.
func (t *targets) missing(known *target, m *sink.Message) []string {
	if m.Action.Whole() || m.Record == nil {
		return nil
	}
	if len(t.config.Columns) > 0 {
		return t.undeclared(known, m)
	}
	var list []string
	_ = members(m.Record, func(quotedName, v []byte) error {
		source, err := unquote(quotedName)
		if err != nil || !known.unknown(source, v) {
			return err
		}
		if to := t.config.target(string(source)); !slices.Contains(list, to) {
			list = append(list, to)
		}
		return nil
	})
	return list
}

// target returns the name that a member has in the target; empty: it is left out.
func (c *Config) target(source string) string {
	if to, renamed := c.Rename[source]; renamed {
		return to
	}
	return source
}

// unknown reports whether a member, which is no column to be written, ought to be one.
func (t *target) unknown(source, v []byte) bool {
	if !t.strict || t.skipped[string(source)] {
		return false
	}
	if _, ok := t.byName[string(source)]; ok {
		return false
	}
	return !t.create || !isNull(v) // a null tells no type
}

// undeclared returns the declared columns that the target lacks and whose types are
// known by now.
func (t *targets) undeclared(known *target, m *sink.Message) []string {
	var list []string
	for name, typ := range t.config.Columns {
		if known.column(name) >= 0 {
			continue
		}
		if typ == "" {
			types, _, err := t.types(m)
			if err != nil || types[name] == "" {
				continue
			}
		}
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// column returns the number of a column; -1: there is none.
func (t *target) column(name string) int {
	return slices.IndexFunc(t.columns, func(c column) bool { return c.name == name })
}

// index finds the columns that members of records are written to.
func (t *target) index(c *Config) {
	t.byName, t.skipped = map[string]int{}, map[string]bool{}
	t.strict = c.Unknown == Refuse && len(c.Columns) == 0
	t.create = c.Create
	for i, col := range t.columns {
		if _, renamed := c.Rename[col.name]; renamed {
			continue
		}
		if col.computed || i == t.seq && !t.generic {
			t.skipped[col.name] = true
		} else if len(c.Columns) == 0 || declared(c, col.name) || slices.Contains(t.key, i) {
			t.byName[col.name] = i
		}
	}
	for source, to := range c.Rename {
		i := t.column(to)
		switch {
		case to == "", i >= 0 && (t.columns[i].computed || i == t.seq && !t.generic):
			t.skipped[source] = true
		case i >= 0:
			t.byName[source] = i
		}
	}
	for name := range c.Columns {
		t.lacking = t.lacking || c.Create && t.column(name) < 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(t.name.String()))
	t.lock = h.Sum32()
}

func declared(c *Config, name string) bool {
	_, ok := c.Columns[name]
	return ok || slices.Contains(c.Key, name)
}

// timer says when something is to be done again.
type timer struct{ next atomic.Int64 }

// due reports whether the time has come, to one caller.
func (t *timer) due(now time.Time) bool {
	next := t.next.Load()
	return now.UnixNano() >= next && t.next.CompareAndSwap(next, now.Add(time.Second).UnixNano())
}

func (t *timer) done(now time.Time) { t.next.Store(now.Add(pruneEvery).UnixNano()) }

// statement returns the SQL for what it does, made once.
func (t *target) statement(what string, build func() string) string {
	const most = 256 // sets of columns that were met; more are built each time
	t.mu.Lock()
	defer t.mu.Unlock()
	if sql, ok := t.statements[what]; ok {
		return sql
	}
	sql := build()
	if len(t.statements) < most {
		t.statements[what] = sql
	}
	return sql
}
