package stripe

import (
	"reflect"
	"slices"
	"time"

	"lockstep/sandbox"
)

// tx is one thing that happens: what it writes has one time, and its events one
// cause. It is made and used with Sandbox.mu held, and checks before it writes:
// there is nothing to roll back.
type tx struct {
	s       *Sandbox
	now     time.Time
	request string // "": the world, not a request
	key     string
}

func (q *request) tx() *tx { return &tx{s: q.s, now: q.now, request: q.id, key: q.key} }

// create adds an object, and its event.
func (t *tx) create(name string, d doc) *row {
	r := t.insert(name, d)
	if k := r.kind; k.events != "" && name != "payment_method" { // those begin with .attached
		t.emit(k.events+".created", t.rendered(r.json), nil)
	}
	return r
}

// insert adds an object without an event. Its id is made unless it has one.
func (t *tx) insert(name string, d doc) *row {
	table := t.s.tables[name]
	k := table.kind
	if text(d["id"]) == "" {
		// The code is a function of how many there were, and never that of a bulk row.
		d["id"] = k.prefix + t.s.options.Seed.Code(k.name, uint64(table.bulk.size())+table.seq+1, max(k.length, 14))
	}
	d["object"] = k.name
	if k.dated != "-" {
		d[k.dated] = t.now.Unix()
	}
	visible := t.now.Add(t.s.lag("list lag "+name, table.seq+1, t.s.lateness.Lists, t.s.lateness.ListMax))
	return table.insert(d["id"].(string), d, visible)
}

// set puts an object's content there without an event.
func (t *tx) set(r *row, edit func(doc)) doc {
	d := r.doc()
	edit(d)
	t.s.tables[r.kind.name].update(r, d)
	return d
}

// change edits an object. When that makes a difference, the kind's .updated event and
// those of further types follow.
func (t *tx) change(r *row, edit func(doc), types ...string) doc {
	before := r.doc()
	after, _ := sandbox.Clone(before).(doc)
	edit(after)
	if reflect.DeepEqual(before, after) {
		return after
	}
	t.s.tables[r.kind.name].update(r, after)
	previous := difference(before, after)
	if len(types) == 0 && r.kind.events != "" {
		types = []string{r.kind.events + ".updated"}
	}
	object := t.rendered(r.json)
	for _, one := range types {
		t.emit(one, object, ifUpdate(one, previous))
	}
	return after
}

func ifUpdate(kind string, previous doc) doc {
	const suffix = ".updated"
	if len(kind) > len(suffix) && kind[len(kind)-len(suffix):] == suffix {
		return previous
	}
	return nil
}

// remove deletes an object; its last content goes into the event.
func (t *tx) remove(r *row) doc {
	last := t.rendered(r.body())
	t.s.tables[r.kind.name].remove(r)
	if r.kind.events != "" {
		t.emit(r.kind.events+".deleted", last, nil)
	}
	return doc{"id": r.id, "object": r.kind.name, "deleted": true}
}

// get returns an object that a request or another object names, or the error that
// Stripe has for it.
func (s *Sandbox) get(name, id string) (*row, *Error) {
	t := s.tables[name]
	r := t.find(id)
	if r == nil || r.deleted {
		return nil, missing(t.kind.noun, id, t.kind.param)
	}
	return r, nil
}

// named returns the object that a parameter names.
func (s *Sandbox) named(name, param string, params doc) (*row, *Error) {
	id := text(params[param])
	if id == "" {
		return nil, invalid(param, "parameter_missing", "Missing required param: "+param+".")
	}
	r, err := s.get(name, id)
	if err != nil {
		return nil, err.inParam(param)
	}
	return r, nil
}

// children returns the alive objects of a kind that an indexed key points at, newest first.
func (s *Sandbox) children(name, key, value string) []*row {
	rows := s.tables[name].index[key+"="+value]
	alive := make([]*row, 0, len(rows))
	for _, r := range slices.Backward(rows) {
		if !r.deleted {
			alive = append(alive, r)
		}
	}
	return alive
}

// embedded is how many objects a list inside an object shows.
const embedded = 10

// nested is a list inside an object, as far as it is shown there.
func (s *Sandbox) nested(rows []*row, url string) doc {
	data := make([]any, 0, min(len(rows), embedded))
	for _, r := range rows[:min(len(rows), embedded)] {
		data = append(data, r.doc())
	}
	return doc{"object": "list", "data": data, "has_more": len(rows) > embedded, "url": url}
}

// dice returns what decides about the n-th object of a kind.
func (t *tx) dice(kind string) sandbox.Dice {
	return t.s.options.Seed.Dice(kind, t.s.tables[kind].seq)
}
