package stripe

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"lockstep/sandbox"
)

// retention is how far back the event log goes.
const retention = 30 * 24 * time.Hour

// event is one entry of the log. It is never changed.
type event struct {
	id       string
	created  int64
	visible  time.Time // when the list shows it
	kind     string    // its type
	version  string    // of the account when it happened, in which object is rendered
	object   []byte
	previous []byte // nil: not an update
	request  string // "": it happened by itself
	key      string // the request's idempotency key
}

// eventLog is the events of the last 30 days, in the order of (created, id): ids of
// one second are in no order, so that an event may come to stand behind others that
// were read already. Guarded by Sandbox.mu.
type eventLog struct {
	list []*event
	byID map[string]*event
	n    uint64 // events ever
}

func newEventLog() *eventLog { return &eventLog{byID: map[string]*event{}} }

func (l *eventLog) add(e *event, now time.Time) {
	l.byID[e.id] = e
	i := len(l.list)
	for i > 0 && e.before(l.list[i-1]) {
		i--
	}
	l.list = slices.Insert(l.list, i, e)
	old := now.Add(-retention).Unix()
	for len(l.list) > 0 && l.list[0].created < old {
		delete(l.byID, l.list[0].id)
		l.list[0] = nil
		l.list = l.list[1:]
	}
}

func (e *event) before(other *event) bool {
	if e.created != other.created {
		return e.created < other.created
	}
	return e.id < other.id
}

func (e *event) body() []byte {
	d := doc{
		"id": e.id, "object": "event", "api_version": e.version, "created": e.created, "livemode": false, "pending_webhooks": 0, "type": e.kind,
		"data": doc{"object": raw(e.object)}, "request": doc{"id": nil, "idempotency_key": nil},
	}
	if e.previous != nil {
		d["data"].(doc)["previous_attributes"] = raw(e.previous)
	}
	if e.request != "" {
		d["request"].(doc)["id"] = e.request
	}
	if e.key != "" {
		d["request"].(doc)["idempotency_key"] = e.key
	}
	return sandbox.Encode(d)
}

// raw is JSON that is written as it is.
type raw []byte

// MarshalJSON implements json.Marshaler.
func (r raw) MarshalJSON() ([]byte, error) { return r, nil }

// rendered is an object as the events of now show it: in the account's version.
func (t *tx) rendered(object []byte) []byte {
	if era(t.s.version) == latest {
		return object
	}
	return sandbox.Encode(t.s.atVersion(sandbox.Decode(object), t.s.version))
}

// tell adds an event about a row as it is now.
func (t *tx) tell(kind string, r *row) { t.emit(kind, t.rendered(r.json), nil) }

// emit adds an event about an object that is rendered already.
func (t *tx) emit(kind string, object []byte, previous doc) {
	l := t.s.events
	l.n++
	prefix := "evt_1"
	if strings.HasPrefix(kind, "charge") || strings.HasPrefix(kind, "payment_intent") || strings.HasPrefix(kind, "refund") {
		prefix = "evt_3"
	}
	e := &event{
		id: prefix + t.s.options.Seed.Code("event", l.n, 23), created: t.now.Unix(), kind: kind, version: t.s.version, request: t.request, key: t.key, object: object,
		visible: t.now.Add(t.s.lag("event lag", l.n, t.s.lateness.Events, t.s.lateness.EventMax)),
	}
	if previous != nil {
		e.previous = sandbox.Encode(previous)
	}
	l.add(e, t.now)
}

// lag is how late one object or event is.
func (s *Sandbox) lag(what string, n uint64, share float64, most sandbox.Duration) time.Duration {
	if share <= 0 || most <= 0 {
		return 0
	}
	dice := s.options.Seed.Dice(what, n)
	if !dice.Chance(share) {
		return 0
	}
	return time.Duration(dice.Int(int(most))) + 1
}

// difference returns the fields of before that after has otherwise, as events tell
// them: of objects only what differs in them.
func difference(before, after doc) doc {
	previous := doc{}
	for name := range after {
		if _, ok := before[name]; !ok {
			previous[name] = nil
		}
	}
	for name, was := range before {
		is := after[name]
		if reflect.DeepEqual(was, is) {
			continue
		}
		inner, ok1 := was.(doc)
		now, ok2 := is.(doc)
		if ok1 && ok2 && inner["object"] == nil {
			previous[name] = difference(inner, now)
			continue
		}
		previous[name] = was
	}
	return previous
}

// mostTypes is how many types one request may ask for.
const mostTypes = 20

// listEvents answers GET /v1/events.
func listEvents(q *request) (any, *Error) {
	p, err := q.paging()
	if err != nil {
		return nil, err
	}
	if len(q.expand) > 0 {
		return nil, invalid("expand", "", "This property cannot be expanded ("+q.expand[0]+").")
	}
	types := typesOf(q.params)
	if len(types) > mostTypes {
		return nil, invalid("types", "", fmt.Sprintf("You can filter by at most %d event types.", mostTypes))
	}
	low, high := int64(-1<<62), int64(1<<62)
	if created, ok := q.params["created"]; ok {
		low, high = span(created)
	}
	low = max(low, q.now.Add(-retention).Unix())
	match := func(e *event) bool {
		return e.created >= low && e.created < high && !e.visible.After(q.now) && isOf(e.kind, types)
	}
	page, more, err := q.eventPage(p, match)
	if err != nil {
		return nil, err
	}
	data := make([]any, 0, len(page))
	for _, e := range page {
		data = append(data, raw(e.body()))
	}
	return sandbox.Encode(doc{"object": "list", "data": data, "has_more": more, "url": "/v1/events"}), nil
}

func (q *request) eventPage(p paging, match func(*event) bool) (page []*event, more bool, err *Error) {
	list := q.s.events.list
	i, step, cursor, name := len(list)-1, -1, p.after, "starting_after"
	if p.before != "" {
		step, cursor, name = 1, p.before, "ending_before"
	}
	if cursor != "" {
		e, err := q.eventCursor(cursor, name)
		if err != nil {
			return nil, false, err
		}
		i = sort.Search(len(list), func(i int) bool { return !list[i].before(e) }) + step
	}
	if q.fault != nil && q.fault.Kind == faultStuck {
		i, step, more = len(list)-1, -1, true
	}
	for ; i >= 0 && i < len(list); i += step {
		if !match(list[i]) {
			continue
		}
		if len(page) == p.limit {
			more = true
			break
		}
		page = append(page, list[i])
	}
	if step > 0 {
		slices.Reverse(page)
	}
	return page, more, nil
}

func (q *request) eventCursor(id, param string) (*event, *Error) {
	e := q.s.events.byID[id]
	if e != nil && e.created >= q.now.Add(-retention).Unix() && (q.fault == nil || q.fault.Kind != faultAgedOut) {
		return e, nil
	}
	if code, ok := strings.CutPrefix(id, "evt_"); e != nil || ok && len(code) == 24 {
		if n, existed := q.s.options.Seed.Number("event", code[1:]); e != nil || existed && n <= q.s.events.n {
			return nil, &Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Param: param, Message: fmt.Sprintf(
				"The event '%s' is no longer available because it's aged out of our retention policy.", id)}
		}
	}
	return nil, missing("event", id, param).inParam(param)
}

func retrieveEvent(q *request) (any, *Error) {
	e := q.s.events.byID[q.vars["id"]]
	if e == nil || e.created < q.now.Add(-retention).Unix() {
		return nil, missing("event", q.vars["id"], "id")
	}
	return e.body(), nil
}

func typesOf(params doc) (types []string) {
	if one := text(params["type"]); one != "" {
		types = append(types, one)
	}
	list, _ := params["types"].([]any)
	for _, one := range list {
		types = append(types, text(one))
	}
	return types
}

// isOf says whether a type is one of those asked for: exact, or invoice.* or *.
func isOf(kind string, types []string) bool {
	return len(types) == 0 || slices.ContainsFunc(types, func(t string) bool {
		prefix, any := strings.CutSuffix(t, "*")
		return t == kind || any && strings.HasPrefix(kind, prefix)
	})
}
