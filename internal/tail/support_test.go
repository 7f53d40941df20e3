package tail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/filter"
	"lockstep/internal/stream"
	"lockstep/internal/tail"
)

// The tests of this package read a real stream, which they fill by themselves.

// place is a log and the sessions of a node.
type place struct {
	t      testing.TB
	server *tail.Server
	log    *stream.Log
	logOf  tail.Log

	mu  sync.Mutex
	lsn lockstep.LSN // guarded by mu, as is seq
	seq int
}

type readable struct{ *stream.Log }

func (r readable) ReadFrom(seq uint64) tail.Reader { return r.Reader(seq) }

func newPlace(t testing.TB, limits tail.Limits) *place {
	t.Helper()
	server, err := stream.Open(t.Context(), stream.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &place{t: t, server: tail.New(limits)}
	if p.log, err = server.Log(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.log.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.logOf = readable{p.log}
	t.Cleanup(p.server.Close)
	return p
}

// commit appends a transaction of inserts into public.orders, and returns the seq of
// the last one.
func (p *place) commit(rows ...string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var w lockstep.BatchWriter
	w.Reset(nil)
	table := &lockstep.Table{OID: 1, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}
	p.lsn += 100
	w.Begin(lockstep.Tx{CommitLSN: p.lsn, CommitTime: 1, XID: 7})
	number := w.Table(table)
	for i, row := range rows {
		p.seq++
		pks := `["` + strconv.Itoa(p.seq) + `"]`
		w.Close(append(append(w.Open(), row...), pks...), lockstep.RecordHead{Action: lockstep.Insert, Table: number, CommitIdx: uint32(i), RecordLen: len(row), PKsLen: len(pks)})
	}
	done := make(chan error, 1)
	mark := lockstep.Mark{SystemID: 1, Timeline: 1, CommitLSN: p.lsn, Ordinal: uint32(len(rows)), CommitIdx: uint32(len(rows) - 1), EndLSN: p.lsn + 8, Complete: true}
	err := p.log.Append(context.Background(), &w, mark, func(err error) { done <- err })
	if err = errors.Join(err, <-done); err != nil {
		p.t.Error(err)
	}
	return p.seq
}

// open opens a session that begins with seq from, and gets what the filter selects.
func (p *place) open(from int, source string) *tail.Session {
	var program *filter.Program
	if source != "" {
		program = tail.FilterOf(source)
	}
	return p.server.Open("app", p.logOf, uint64(from), tail.Selection{Filter: program})
}

// client is a session, and what came of it.
type client struct {
	*tail.Session
	t   testing.TB
	ids []int
	raw [][]byte // the last that came
}

func (p *place) follow(from int, source string) *client {
	c := &client{Session: p.open(from, source), t: p.t}
	p.t.Cleanup(c.Close)
	return c
}

// take reads once, if there is something, and notes the seq of what came.
func (c *client) take(ctx context.Context, wait time.Duration) bool {
	parts, err := c.Next(ctx, wait)
	if err != nil {
		c.t.Errorf("next: %v", err)
		return false
	}
	c.raw = parts
	for _, part := range parts {
		for line := range strings.Lines(string(part)) {
			if text, ok := strings.CutPrefix(line, "id: "); ok {
				id, _ := strconv.Atoi(strings.TrimSpace(text))
				c.ids = append(c.ids, id)
			}
		}
	}
	return len(parts) > 0
}

// await reads until as many changes came.
func (c *client) await(n int) []int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for len(c.ids) < n && c.take(ctx, time.Minute) { //nolint:revive // take does the work
	}
	if len(c.ids) < n {
		c.t.Fatalf("%d changes came, want %d", len(c.ids), n)
	}
	return c.ids
}

// settle makes the session get what there is, so that it shares a reader from then on.
func (c *client) settle() {
	c.t.Helper()
	for range 1000 {
		if c.take(c.t.Context(), time.Millisecond); c.Standing() == "shared" {
			return
		}
	}
	c.t.Fatalf("the session is still %s", c.Standing())
}

func row(n int) string {
	return fmt.Sprintf(`{"id": %d, "customer": %d, "amount": "%d.50", "big": %d, "note": null}`, n, n%10, n%4, 9007199254740993+n%3)
}

func rows(first, count int) []string {
	var out []string
	for i := range count {
		out = append(out, row(first+i))
	}
	return out
}

// selected returns which of the rows 1 to last, of which the seq is the number, a filter
// yields true for.
func selected(t testing.TB, source string, last int) []int {
	t.Helper()
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 1})
	number := w.Table(&lockstep.Table{OID: 1, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary})
	for n := 1; n <= last; n++ {
		text := row(n)
		w.Close(append(w.Open(), text...), lockstep.RecordHead{Action: lockstep.Insert, Table: number, RecordLen: len(text)})
	}
	data, err := w.Seal(1, lockstep.Mark{SystemID: 1, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	program := tail.FilterOf(source)
	for n := range b.Len() {
		matched, err := program.Match(filter.NewInput(b.Record(n), "app"))
		if err != nil || matched {
			ids = append(ids, n+1) // what it fails on is told
		}
	}
	return ids
}

func same(a, b []byte) bool { return len(a) > 0 && bytes.Equal(a, b) && &a[0] == &b[0] }
