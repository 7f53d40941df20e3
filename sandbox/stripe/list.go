package stripe

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"lockstep/sandbox"
)

// view is the objects that a list is made of, oldest first: first the bulk, then rows.
type view struct {
	t    *table
	bulk uint64 // how many of the bulk, 0 or all
	rows []*row
}

func (v *view) len() int { return int(v.bulk) + len(v.rows) }

func (v *view) at(i int) *row {
	if uint64(i) < v.bulk {
		return v.t.lazy(uint64(i))
	}
	return v.rows[i-int(v.bulk)]
}

// position returns where a row is, or would be if it passed the view's filter.
func (v *view) position(r *row) (i int, present bool) {
	if r.bulk != nil {
		return int(min(r.seq, v.bulk)), r.seq < v.bulk
	}
	i = at(v.rows, r)
	return int(v.bulk) + i, i < len(v.rows) && v.rows[i] == r
}

// list answers the list of a kind.
func (s *Sandbox) list(k *kind) handler {
	return func(q *request) (any, *Error) { return q.listOf(k, q.path, nil) }
}

// listOf answers a list; fixed are further filters (those of a nested list), which
// must have an index.
func (q *request) listOf(k *kind, url string, fixed doc) (any, *Error) {
	p, err := q.paging()
	if err != nil {
		return nil, err
	}
	filters := maps.Clone(q.params)
	maps.Copy(filters, fixed)
	v := q.s.view(k, filters)
	from, to, err := q.bounds(v, k, filters)
	if err != nil {
		return nil, err
	}
	match := func(r *row) bool {
		return !r.deleted && !r.visible.After(q.now) && r.matches(filters) && (k.hides == nil || fixed != nil || !k.hides(r, filters))
	}
	page, more, err := q.page(v, p, from, to, match)
	if err != nil {
		return nil, err
	}
	page, more = q.spoilPage(v, page, more, p, match)
	return q.envelope(page, more, url)
}

// paging is where a list goes on.
type paging struct {
	limit         int
	after, before string
}

const (
	defaultLimit = 10
	largestLimit = 100
)

func (q *request) paging() (paging, *Error) {
	p := paging{limit: defaultLimit, after: text(q.params["starting_after"]), before: text(q.params["ending_before"])}
	if n, ok := q.params["limit"].(int64); ok {
		p.limit = int(n)
		if n < 1 || n > largestLimit {
			return p, invalid("limit", "", "Invalid limit: must be between 1 and "+strconv.Itoa(largestLimit)+"; got "+strconv.FormatInt(n, 10))
		}
	}
	if p.after != "" && p.before != "" {
		return p, invalid("starting_after", "", "You may specify only one of these parameters: starting_after, ending_before.")
	}
	for _, name := range []string{"limit", "starting_after", "ending_before"} {
		delete(q.params, name)
	}
	return p, nil
}

// view picks the smallest set of rows that an indexed filter leaves.
func (s *Sandbox) view(k *kind, filters doc) *view {
	t := s.tables[k.name]
	best := &view{t: t, bulk: uint64(t.bulk.size()), rows: t.rows}
	for i, name := range k.names {
		if value, ok := filters[name].(string); ok && k.index[i] {
			if rows := t.index[name+"="+value]; len(rows) <= best.len() {
				best = &view{t: t, rows: rows}
			}
		}
	}
	return best
}

// bounds narrows a view to created[gte] and the like, and takes it out of the filters.
func (q *request) bounds(v *view, k *kind, filters doc) (from, to int, err *Error) {
	asked, ok := filters["created"]
	if !ok || k.dated == "-" {
		return 0, v.len(), nil
	}
	delete(filters, "created")
	low, high := span(asked)
	from, to = v.since(low), v.since(high)
	return from, max(from, to), nil
}

// span returns the range [low, high) of seconds that a filter on a time means.
func span(asked any) (low, high int64) {
	if n, ok := asked.(int64); ok {
		return n, n + 1
	}
	low, high = -1<<62, 1<<62
	for op, n := range asked.(doc) {
		n, _ := n.(int64)
		switch op {
		case "gte":
			low = max(low, n)
		case "gt":
			low = max(low, n+1)
		case "lt":
			high = min(high, n)
		case "lte":
			high = min(high, n+1)
		}
	}
	return low, high
}

func (v *view) since(t int64) int {
	if v.bulk > 0 {
		if n := v.t.bulk.since(t); n < v.bulk {
			return int(n)
		}
	}
	return int(v.bulk) + at(v.rows, &row{created: t})
}

// page collects the objects of a page, newest first.
func (q *request) page(v *view, p paging, from, to int, match func(*row) bool) (page []*row, more bool, err *Error) {
	cursor, name := p.after, "starting_after"
	if p.before != "" {
		cursor, name = p.before, "ending_before"
	}
	i, step := to-1, -1
	if cursor != "" {
		r := v.t.find(cursor)
		if r == nil || r.deleted && !v.t.kind.keeps {
			return nil, false, missing(v.t.kind.noun, cursor, name).inParam(name)
		}
		here, present := v.position(r)
		if i = min(here-1, to-1); p.before != "" {
			if present {
				here++
			}
			i, step = max(here, from), 1
		}
	}
	for ; i >= from && i < to; i += step {
		r := v.at(i)
		if !match(r) {
			continue
		}
		if len(page) == p.limit {
			more = true
			break
		}
		page = append(page, r)
	}
	if step > 0 {
		slices.Reverse(page)
	}
	return page, more, nil
}

// matches says whether an object passes filters, all of which it must.
func (r *row) matches(filters doc) bool {
	for name, want := range filters {
		i := slices.Index(r.kind.names, name)
		if i < 0 || r.kind.name == "subscription" && name == "status" {
			continue // hides decides, or Stripe filters by more than we keep
		}
		if !fits(r.key(i), want) {
			return false
		}
	}
	return true
}

func fits(have string, want any) bool {
	switch want := want.(type) {
	case []any:
		return slices.ContainsFunc(want, func(one any) bool { return fits(have, one) })
	case doc: // a range
		n, err := strconv.ParseInt(have, 10, 64)
		low, high := span(want)
		return err == nil && low <= n && n < high
	default:
		wanted := text(want)
		return have == wanted || strings.HasPrefix(have, "\n") && strings.Contains(have, "\n"+wanted+"\n")
	}
}

// envelope renders a page.
func (q *request) envelope(page []*row, more bool, url string) (any, *Error) {
	modern := era(q.version) == latest && len(q.expand) == 0
	if modern {
		var b bytes.Buffer
		b.WriteString(`{"object":"list","data":[`)
		var scratch []byte
		for i, r := range page {
			if i > 0 {
				b.WriteByte(',')
			}
			if r.json != nil || r.bulk == nil {
				b.Write(r.json)
				continue
			}
			scratch = r.bulk.body(scratch[:0], r.seq)
			b.Write(scratch)
		}
		b.WriteString(`],"has_more":` + strconv.FormatBool(more) + `,"url":`)
		b.Write(sandbox.Encode(url))
		b.WriteByte('}')
		return b.Bytes(), nil
	}
	data := make([]any, 0, len(page))
	for _, r := range page {
		data = append(data, r.doc())
	}
	return doc{"object": "list", "data": data, "has_more": more, "url": url}, nil
}

// spoilPage is what the vendor's own faults do to a page.
func (q *request) spoilPage(v *view, page []*row, more bool, p paging, match func(*row) bool) ([]*row, bool) {
	if q.fault == nil {
		return page, more
	}
	switch q.fault.Kind {
	case faultStuck:
		page, _, _ = q.page(v, paging{limit: p.limit}, 0, v.len(), match)
		return page, true
	case faultEmpty:
		return nil, true
	case faultShort:
		less := q.fault.N
		if less == 0 {
			less = len(page) / 2
		}
		if less = min(less, len(page)); less > 0 {
			return page[:len(page)-less], true
		}
	case faultDuplicate:
		if len(page) > 0 {
			page = append(slices.Clone(page), page[len(page)-1].older())
		}
	}
	return page, more
}

// older is an object with a field as it might have been before its last change.
func (r *row) older() *row {
	d := r.doc()
	if m, ok := d["metadata"].(doc); ok {
		m["stale"] = "true"
	}
	return &row{kind: r.kind, id: r.id, seq: r.seq, created: r.created, json: sandbox.Encode(d), keys: r.keys}
}
