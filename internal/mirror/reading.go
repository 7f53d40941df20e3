package mirror

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"lockstep"
	"lockstep/source"
)

// reading is a record as Apply takes it: cleaned, with its fingerprint. It is made
// outside of the turn, so that pages are read while others are written.
type reading struct {
	look
	id      string
	created time.Time
	data    []byte
	cleaned int    // places that were replaced in data
	bad     string // why no row can be made of it
	origin  source.Record
}

// read returns the change's records by their collections, in order.
func (m *Mirror) read(c Change) (groups map[string][]*reading, err error) {
	at := c.At
	if at.IsZero() {
		at = time.Now()
	}
	groups = map[string][]*reading{}
	form := &canon{}
	for _, r := range c.Records {
		if r.Collection == "" {
			r.Collection = c.Collection
		}
		t, ok := m.table(r.Collection)
		if !ok {
			return nil, m.unprepared(r.Collection)
		}
		if r.Data == nil && !r.Deleted {
			continue // a hint: nothing is known of it but that it is there
		}
		n := newReading(r, at, t.plan.Load(), form)
		n.repair, n.rewrite = c.Repair, c.Repair && c.Rewrite
		groups[r.Collection] = append(groups[r.Collection], n)
	}
	for _, s := range c.Missing {
		if _, ok := m.table(s.Collection); !ok {
			return nil, m.unprepared(s.Collection)
		}
		if groups[s.Collection] == nil {
			groups[s.Collection] = []*reading{}
		}
	}
	return groups, nil
}

func (m *Mirror) unprepared(collection string) error {
	return fmt.Errorf("sync %q: the collection %q has not been prepared: %w", m.config.Name, collection, lockstep.ErrInvalid)
}

func newReading(r source.Record, at time.Time, volatile *pathSet, form *canon) *reading {
	n := &reading{id: postgresText(r.ID), created: micros(r.Created), origin: r}
	n.look = look{version: micros(r.Version), rank: r.Rank, at: micros(at), deleted: r.Deleted, reason: r.Reason}
	switch {
	case n.id == "":
		n.bad = "it has no id"
	case len(n.id) > longestID:
		n.bad = "its id is too long for an index"
	}
	if r.Deleted {
		if n.reason == "" {
			n.reason = "flag"
		}
		return n
	}
	if n.bad != "" {
		return n
	}
	print, odd, err := form.print(r.Data, volatile)
	if err != nil {
		n.bad = err.Error()
		return n
	}
	n.print, n.data = print, bytes.TrimSpace(r.Data)
	if odd {
		n.data, n.cleaned = clean(n.data)
	}
	return n
}

// longestID is how long an id may be, in bytes: an index' entry takes 2,704.
const longestID = 1000

// micros is a time as Postgres keeps it; out of its reach it is not said.
func micros(t time.Time) time.Time {
	if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// fits says why the table can have no row of that id; "" when it can.
func (t *table) fits(id string) string {
	if t.idType != "bigint" {
		return ""
	}
	if n, err := strconv.ParseInt(id, 10, 64); err != nil || strconv.FormatInt(n, 10) != id {
		return "its id is not a bigint"
	}
	return ""
}
