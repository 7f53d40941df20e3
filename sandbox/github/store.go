package github

import (
	"slices"
	"time"
)

// row is one object of one kind. What it holds is never changed in place: a change
// puts another one there, so that what lists still show can be kept. Guarded by
// Sandbox.mu, as everything in a repository.
type row[T any] struct {
	id      int64
	repo    *repo
	now     *T        // nil: deleted
	past    *T        // what lists show until visible; nil: nothing
	visible time.Time // when lists show now
}

// listed is what lists show at a time; nil: nothing.
func (r *row[T]) listed(at time.Time) *T {
	if at.Before(r.visible) {
		return r.past
	}
	return r.now
}

// table holds the objects of one kind in one repository, oldest first. Ids rise.
type table[T any] struct {
	rows []*row[T]
	byID map[int64]*row[T]
	gone int
}

func (t *table[T]) add(r *repo, id int64, v T, visible time.Time) *row[T] {
	if t.byID == nil {
		t.byID = map[int64]*row[T]{}
	}
	one := &row[T]{id: id, repo: r, now: &v, visible: visible}
	t.rows = append(t.rows, one)
	t.byID[id] = one
	return one
}

// find returns an object that exists, or nil.
func (t *table[T]) find(id int64) *row[T] {
	if r := t.byID[id]; r != nil && r.now != nil {
		return r
	}
	return nil
}

// put replaces what a row holds; lists show it when it is visible.
func (r *row[T]) put(v T, at, visible time.Time) {
	r.past = r.listed(at)
	r.now, r.visible = &v, visible
}

// remove deletes an object. Lists show it until the deletion is visible.
func (t *table[T]) remove(r *row[T], at, visible time.Time) {
	r.past = r.listed(at)
	r.now, r.visible = nil, visible
	if t.gone++; t.gone < 64 || t.gone < len(t.rows)/2 {
		return
	}
	t.gone = 0
	t.rows = slices.DeleteFunc(t.rows, func(x *row[T]) bool {
		dead := x.now == nil && !at.Before(x.visible)
		if dead {
			delete(t.byID, x.id)
		}
		return dead
	})
}

func (t *table[T]) count() (n int) {
	for _, r := range t.rows {
		if r.now != nil {
			n++
		}
	}
	return n
}

// view is an object as a request sees it: what the row holds, or held.
type view[T any] struct {
	*row[T]
	v *T
}

// alive returns what exists now, whatever lists show.
func (t *table[T]) alive() []view[T] {
	out := make([]view[T], 0, len(t.rows))
	for _, r := range t.rows {
		if r.now != nil {
			out = append(out, view[T]{r, r.now})
		}
	}
	return out
}

// shown returns what lists show at a time, of what passes; nil passes everything.
func (t *table[T]) shown(at time.Time, passes func(view[T]) bool) []view[T] {
	out := make([]view[T], 0, len(t.rows))
	for _, r := range t.rows {
		if v := r.listed(at); v != nil && (passes == nil || passes(view[T]{r, v})) {
			out = append(out, view[T]{r, v})
		}
	}
	return out
}

// current is a row as one sees it who asks for it by id.
func (r *row[T]) current() view[T] { return view[T]{r, r.now} }
