package pull_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"lockstep/source"
)

// fake is an API that does what a test tells it to.
type fake struct {
	mu      sync.Mutex
	list    []source.Collection
	objects map[string]map[string]string // collection, id, value
	sorted  map[string][]string          // ids, until they change
	events  []event
	calls   map[string]int // "method name"
	settles map[time.Duration]int
	page    int
	fed     bool // Changes brings ids only
	// version and rank are of what lists and Changes bring.
	version time.Time
	rank    source.Rank
	// before is asked before each call is answered; an error is the answer.
	before func(ctx context.Context, method, name string, n int) error
	// shown is asked whether a list shows a record.
	shown func(method, collection, id string) bool
}

// event says that a record changed.
type event struct {
	collection, id string
	at             time.Time
}

func newFake(list ...source.Collection) *fake {
	f := &fake{list: list, objects: map[string]map[string]string{}, sorted: map[string][]string{}, calls: map[string]int{}, settles: map[time.Duration]int{}, page: 100}
	for _, c := range list {
		f.objects[c.Name] = map[string]string{}
	}
	return f
}

// thing is a collection with a feed, that can be swept and fetched.
func thing(name string) source.Collection {
	return source.Collection{Name: name, Feed: "log", Get: true, IDs: true}
}

// fill puts n records in without an event.
func (f *fake) fill(collection string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sorted, collection)
	for i := range n {
		f.objects[collection][fmt.Sprintf("%s%06d", collection[:1], i)] = "old"
	}
}

// set changes a record, with an event.
func (f *fake) set(collection, id, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sorted, collection)
	f.objects[collection][id] = value
	f.events = append(f.events, event{collection, id, time.Now()})
}

// vanish removes records without any event.
func (f *fake) vanish(collection string, ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sorted, collection)
	for _, id := range ids {
		delete(f.objects[collection], id)
	}
}

func (f *fake) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *fake) script(before func(ctx context.Context, method, name string, n int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// truth is what a mirror should hold.
func (f *fake) truth(collection string) map[string]json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]json.RawMessage{}
	for id, value := range f.objects[collection] {
		out[id] = body(id, value)
	}
	return out
}

func body(id, value string) json.RawMessage {
	text, _ := json.Marshal(map[string]string{"id": id, "value": value})
	return text
}

// enter counts a call, and returns what the script answers.
func (f *fake) enter(ctx context.Context, method, name string) error {
	f.mu.Lock()
	f.calls[method+" "+name]++
	n, before := f.calls[method+" "+name], f.before
	f.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, method, name, n)
}

// Check implements source.Source.
func (f *fake) Check(ctx context.Context) (string, error) { return "me", f.enter(ctx, "check", "") }

// Collections implements source.Source.
func (f *fake) Collections(context.Context) ([]source.Collection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list), nil
}

// Start implements source.Source.
func (f *fake) Start(ctx context.Context, feed string) (source.Cursor, error) {
	err := f.enter(ctx, "start", feed)
	f.mu.Lock()
	defer f.mu.Unlock()
	return json.RawMessage(fmt.Sprint(len(f.events))), err
}

// Backfill implements source.Source.
func (f *fake) Backfill(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	if err := f.enter(ctx, "backfill", collection); err != nil {
		return source.Page{}, err
	}
	return f.some("backfill", collection, at)
}

// IDs implements source.Source.
func (f *fake) IDs(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	if err := f.enter(ctx, "ids", collection); err != nil {
		return source.Page{}, err
	}
	page, err := f.some("ids", collection, at)
	for i := range page.Records {
		page.Records[i].Data = nil
	}
	return page, err
}

func (f *fake) some(method, collection string, at source.Cursor) (source.Page, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var after string
	if at != nil {
		if err := json.Unmarshal(at, &after); err != nil {
			return source.Page{}, err
		}
	}
	page := source.Page{At: time.Now()}
	if f.sorted[collection] == nil {
		f.sorted[collection] = slices.Sorted(maps.Keys(f.objects[collection]))
	}
	ids := f.sorted[collection]
	from, found := slices.BinarySearch(ids, after)
	if found {
		from++
	}
	for _, id := range ids[from:] {
		if f.shown != nil && !f.shown(method, collection, id) {
			continue
		}
		if n := len(page.Records); n == f.page {
			page.Next, _ = json.Marshal(page.Records[n-1].ID)
			break
		}
		page.Records = append(page.Records, source.Record{Collection: collection, ID: id, Rank: source.RankList, Version: f.version, Data: body(id, f.objects[collection][id])})
	}
	return page, nil
}

// Changes implements source.Source.
func (f *fake) Changes(ctx context.Context, feed string, at source.Cursor, settle time.Duration) (source.Page, error) {
	if err := f.enter(ctx, "changes", feed); err != nil {
		return source.Page{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settles[settle]++
	var from int
	if err := json.Unmarshal(at, &from); err != nil {
		return source.Page{}, err
	}
	now := time.Now()
	page := source.Page{At: now, Next: at}
	for i := from; i < len(f.events); i++ {
		e := f.events[i]
		if settle > 0 && now.Sub(e.at) < settle {
			break
		}
		if i-from == f.page {
			page.More = true
			break
		}
		page.Next = json.RawMessage(fmt.Sprint(i + 1))
		r := f.one(e.collection, e.id)
		if f.rank != 0 {
			r.Rank, r.Version = f.rank, f.version
		}
		if f.fed {
			r = source.Record{Collection: e.collection, ID: e.id}
		}
		page.Records = append(page.Records, r)
	}
	return page, nil
}

func (f *fake) one(collection, id string) source.Record {
	value, ok := f.objects[collection][id]
	if !ok {
		return source.Record{Collection: collection, ID: id, Rank: source.RankObject, Deleted: true, Reason: "not_found"}
	}
	return source.Record{Collection: collection, ID: id, Rank: source.RankObject, Data: body(id, value)}
}

// Get implements source.Source.
func (f *fake) Get(ctx context.Context, collection string, ids []string) (source.Page, error) {
	for _, id := range ids {
		if err := f.enter(ctx, "get", collection+" "+id); err != nil {
			return source.Page{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	page := source.Page{At: time.Now()}
	for _, id := range ids {
		page.Records = append(page.Records, f.one(collection, id))
	}
	return page, nil
}

// refuse is an API's refusal.
func refuse(kind source.Kind) error {
	return &source.Error{Kind: kind, Message: "the API says: " + string(kind)}
}

// same waits until the mirror holds exactly what the API does.
func (f *fake) same(b *bench, e *engine, collections ...string) {
	b.t.Helper()
	wrong := ""
	if !holds(soon, func() bool {
		wrong = ""
		for _, c := range collections {
			if wrong = difference(b.rows(c), f.truth(c)); wrong != "" {
				return false
			}
		}
		return true
	}) {
		b.t.Fatalf("the mirror never became equal: %s\nstatus %+v\nlog %v", wrong, e.Status(), b.log())
	}
}
