package realtime_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lockstep/internal/realtime"
)

// catalog answers for the types of tables, as tests change them.
type catalog struct {
	mu    sync.Mutex
	types map[string]string
	err   error
	asked int
	hang  chan struct{} // not nil: it answers when that is closed
}

func (c *catalog) read(ctx context.Context, _, _, _ string) (map[string]string, error) {
	c.mu.Lock()
	c.asked++
	types, err, hang := maps.Clone(c.types), c.err, c.hang
	c.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
	return types, err
}

func (c *catalog) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func TestTypesAreAskedOnceAndAnewForANewColumn(t *testing.T) {
	t.Parallel()
	types := &catalog{types: map[string]string{"id": "int4"}}
	r := newRig(t, func(c *realtime.Config) { c.Types = types.read })
	c := r.connect()
	c.follow(everything)
	for id := range 20 {
		r.log.add(t, insert(id, ""))
		c.change()
	}
	types.mu.Lock()
	if types.asked != 1 {
		t.Errorf("asked %d times; want once", types.asked)
	}
	types.types["note"] = "text"
	types.mu.Unlock()
	eventually(t, "the new column has a type", func() bool {
		r.log.add(t, insert(1, `,"note":"x"`))
		return string(c.change().Data.Columns) == `[{"name":"id","type":"int4"},{"name":"note","type":"text"}]`
	})
	types.mu.Lock()
	defer types.mu.Unlock()
	if types.asked != 2 {
		t.Errorf("asked %d times; want twice", types.asked)
	}
}

func TestTypesThatCannotBeReadStopNothing(t *testing.T) {
	t.Parallel()
	types := &catalog{err: errors.New("no connection")}
	r := newRig(t, func(c *realtime.Config) { c.Types = types.read })
	c := r.connect()
	c.follow(`{"event":"*","schema":"public","table":"orders","filter":"id=gt.5"}`)
	r.log.add(t, insert(5, ""), insert(6, ""))
	got := c.change()
	if string(got.Data.Record) != `{"id":6}` || string(got.Data.Columns) != `[]` {
		t.Errorf("got %s, columns %s", got.Data.Record, got.Data.Columns)
	}
}

func TestACatalogThatHangsDelaysChangesAMomentOnly(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	types := &catalog{types: orders(), hang: hang}
	r := newRig(t, func(c *realtime.Config) { c.Types = types.read })
	defer close(hang)
	c := r.connect()
	c.follow(`{"event":"*","schema":"*","table":"*"}`)
	r.log.add(t, insert(1, ""))
	if got := c.change(); string(got.Data.Record) != `{"id":1}` {
		t.Errorf("got %+v", got)
	}
}

func TestWhoJoinsWhileABatchIsBeingPreparedGetsIt(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	var place atomic.Uint64
	r := newRig(t, func(c *realtime.Config) {
		c.Moving = func(context.Context, string) (uint64, error) { return place.Load(), nil }
		c.Types = func(ctx context.Context, _, schema, _ string) (map[string]string, error) {
			if schema == "other" {
				close(asked)
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			return orders(), nil
		}
	})
	first := r.connect()
	first.follow(`{"event":"*","schema":"other","table":"*"}`)
	r.log.add(t, row{table: "other.things", record: `{"id":1}`}, insert(2, ""))
	<-asked
	// Capture told of the place before the batch: the second row is for who joins now.
	second := r.connect()
	second.follow(everything)
	close(release)
	first.change()
	if got := second.change(); got.Data.Sequence != 2 {
		t.Errorf("sequence %d; want 2", got.Data.Sequence)
	}
}

func TestFiltersFollowAChangedType(t *testing.T) {
	t.Parallel()
	types := &catalog{types: map[string]string{"id": "int4", "code": "text"}}
	r := newRig(t, func(c *realtime.Config) { c.Types = types.read })
	c := r.connect()
	c.follow(`{"event":"*","schema":"public","table":"orders","filter":"code=eq.007"}`)
	r.log.add(t, insert(1, `,"code":"7"`), insert(2, `,"code":"007"`))
	if got := c.change(); !strings.Contains(string(got.Data.Record), `"id":2`) {
		t.Errorf("got %s", got.Data.Record)
	}
	types.set(func() { types.types["code"] = "int4"; types.types["new"] = "text" })
	// As a text only the last row matches, as a number the first one too.
	eventually(t, "the column is a number now", func() bool {
		r.log.add(t, insert(3, `,"code":7,"new":"x"`), insert(4, `,"code":8,"new":"x"`), insert(5, `,"code":"007","new":"x"`))
		return strings.Contains(string(c.change().Data.Record), `"id":3`)
	})
}

func TestWithoutACatalog(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) { c.Types, c.Keys = nil, nil })
	c := r.connect()
	c.follow(`{"event":"*","schema":"public","table":"orders","filter":"id=eq.7"}`)
	r.log.add(t, insert(8, ""), row{action: 2, record: `{"id":7}`})
	got := c.change()
	if string(got.Data.Columns) != `[]` || string(got.Data.OldRecord) != `{}` || string(got.Data.Record) != `{"id":7}` {
		t.Errorf("got %+v", got.Data)
	}
}
