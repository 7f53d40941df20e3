package torture_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// fenceTable is where a case writes a row to know that everything before has come.
const fenceTable = "torture_fence"

// reading is what the pull consumer has been given and has acked, in the order in
// which it came.
type reading struct {
	n       *node
	changes []client.Change
	fences  int
	highest uint64 // every seq up to it has come
	early   map[uint64]bool
}

func newReading(n *node) *reading { return &reading{n: n, early: map[uint64]bool{}} }

// fence writes a row and reads until it and everything before it has come.
func (r *reading) fence() {
	r.n.t.Helper()
	r.fences++
	r.n.exec(fmt.Sprintf("INSERT INTO public.%s VALUES (%d)", fenceTable, r.fences))
	want := fmt.Sprint(r.fences)
	r.until("fence "+want, func(c client.Change) bool {
		return c.Metadata.TableName == fenceTable && c.Action == "insert" && slices.Equal(c.Metadata.RecordPKs, []string{want})
	})
}

// until reads until a change like this, and all with a smaller seq, have come.
func (r *reading) until(what string, like func(client.Change) bool) {
	r.n.t.Helper()
	var at uint64
	ctx, cancel := context.WithTimeout(r.n.t.Context(), time.Minute)
	defer cancel()
	for at == 0 || r.highest < at {
		got, err := r.n.api.Next(ctx, "all", 1000, time.Second)
		if errors.Is(err, lockstep.ErrUnavailable) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			d := r.n.database()
			r.n.t.Fatalf("waiting for %s, have %d changes: %v; the database is %s: %s", what, len(r.changes), err, d.Status, d.Reason)
		}
		tokens := make([]string, 0, len(got.Deliveries))
		for _, d := range got.Deliveries {
			r.take(d.Change)
			tokens = append(tokens, d.Token)
			if like(d.Change) {
				at = max(at, d.Metadata.Seq)
			}
		}
		if len(tokens) == 0 {
			continue
		}
		if err := r.n.api.Ack(ctx, "all", tokens...); err != nil {
			r.n.t.Fatal(err)
		}
	}
}

func (r *reading) take(c client.Change) {
	r.changes = append(r.changes, c)
	r.early[c.Metadata.Seq] = true
	for r.early[r.highest+1] {
		delete(r.early, r.highest+1)
		r.highest++
	}
}

// bySeq returns everything in the order of the stream.
func (r *reading) bySeq() []client.Change {
	all := slices.Clone(r.changes)
	slices.SortStableFunc(all, func(a, b client.Change) int { return int(int64(a.Metadata.Seq) - int64(b.Metadata.Seq)) })
	return all
}

// sse reads the whole stream again, as a tail from the beginning.
func (r *reading) sse(last uint64) []client.Change {
	r.n.t.Helper()
	var all []client.Change
	ctx, cancel := context.WithTimeout(r.n.t.Context(), time.Minute)
	defer cancel()
	for event, err := range r.n.api.Tail(ctx, "app", client.TailOptions{From: "beginning"}) {
		if err != nil {
			r.n.t.Fatal("tail:", err)
		}
		c, err := client.ParseChange(event.Data)
		if err != nil {
			r.n.t.Fatal(err)
		}
		if all = append(all, c); c.Metadata.Seq >= last {
			break
		}
	}
	return all
}

// lines returns what came, without fences: one line per change, in the order of
// the stream. The form is documented at line.
func (r *reading) lines() []string {
	var all []string
	for _, c := range r.bySeq() {
		if c.Metadata.TableName != fenceTable {
			all = append(all, line(c))
		}
	}
	return all
}

// line writes a change as the cases expect it:
//
//	action table[key] record was {old values of what changed}
//
// The schema public is left out. "was ?" stands for old values that are not known,
// "key only" for a deleted row of which nothing else is known; unchanged and
// json_null name columns; a gap says its state and its reason.
func line(c client.Change) string {
	m := c.Metadata
	var b strings.Builder
	b.WriteString(c.Action)
	if table := strings.TrimPrefix(m.Table(), "public."); table != "." {
		b.WriteString(" " + table)
	}
	if len(m.RecordPKs) > 0 {
		b.WriteString("[" + strings.Join(m.RecordPKs, ",") + "]")
	}
	if c.Record != nil {
		b.WriteString(" " + string(c.Record))
	}
	switch {
	case c.Action == "update" && c.Changes != nil:
		b.WriteString(" was " + string(c.Changes))
	case c.Action == "update":
		b.WriteString(" was ?")
	case c.Action == "delete" && !m.OldKnown:
		b.WriteString(" key only")
	}
	if m.Unchanged != nil {
		b.WriteString(" unchanged " + strings.Join(m.Unchanged, ","))
	}
	if m.JSONNull != nil {
		b.WriteString(" json_null " + strings.Join(m.JSONNull, ","))
	}
	if m.Annotations != nil {
		b.WriteString(" annotations " + string(m.Annotations))
	}
	if g, ok := gapOf(c); ok {
		b.WriteString(" " + g.State + " " + g.Reason)
	}
	return b.String()
}

// firstOf returns the first change after the one with that id.
func (r *reading) firstOf(ctx context.Context, lastID string) client.Change {
	r.n.t.Helper()
	for event, err := range r.n.api.Tail(ctx, "app", client.TailOptions{LastID: lastID}) {
		if err != nil {
			r.n.t.Fatal("tail:", err)
		}
		c, err := client.ParseChange(event.Data)
		if err != nil {
			r.n.t.Fatal(err)
		}
		return c
	}
	return client.Change{}
}
