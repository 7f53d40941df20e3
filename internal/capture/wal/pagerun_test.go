package wal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// strided reads table a in pages of ten rows by id; before is called before each page
// is read.
func strided(r *running, reader *pageReader, before func(page int), placed func(Interleaved) error) error {
	last, n := 0, 0
	return r.InterleaveEach(r.t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
		before(n)
		n++
		page, err := reader.read(ctx, fmt.Sprintf("WHERE id > %d ORDER BY id LIMIT 10", last))
		if err == nil && page.rows() == 0 {
			return page, ErrNoPage
		}
		last += 10
		return page, err
	}, placed)
}

// A page is read while those before it are on their way, at most two of them; they lie
// in the log in their order, each told once it is on disk.
func TestPagesFollowEachOther(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(60))
	held := false
	var placed []uint64
	err := strided(r, reader, func(page int) {
		switch page {
		case 1:
			r.log.stop()
			held = true
		case 2: // two are on their way
			equal(t, len(placed), 0)
			r.log.start()
		case 3, 4, 5:
			if len(placed) < page-2 {
				t.Errorf("page %d is read, and %d are placed", page, len(placed))
			}
		}
	}, func(got Interleaved) error {
		equal(t, got, Interleaved{Written: 10, Seq: uint64(10 * (len(placed) + 1))})
		equal(t, r.log.mark().Seq >= got.Seq, true)
		placed = append(placed, got.Seq)
		return nil
	})
	ok(t, err)
	equal(t, held, true)
	equal(t, len(placed), 6)
	id := 0
	r.log.each(t, func(r lockstep.Record) {
		id++
		equal(t, string(r.PKs()), fmt.Sprintf(`["%d"]`, id))
	})
}

// A change overrides the rows of every page that was read before it, also of one that
// was read while an earlier page was on its way; and of none that was read after it.
func TestAChangeOverridesAllPagesOnTheirWay(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(40))
	var got []Interleaved
	err := strided(r, reader, func(page int) {
		switch page {
		case 1: // page 0 was read, and its watermark is being written
			pgtest.Exec(t, r.url, "UPDATE a SET v = 'new' WHERE id IN (15, 25, 35)")
		case 3:
			pgtest.Exec(t, r.url, "UPDATE a SET v = 'new' WHERE id IN (5, 24)")
		}
	}, func(result Interleaved) error { got = append(got, result); return nil })
	ok(t, err)
	equal(t, len(got), 4)
	pgtest.Exec(t, r.url, "UPDATE a SET v = 'new' WHERE id = 36")
	r.caughtUp()
	view := map[string]string{}
	r.log.each(t, func(r lockstep.Record) { view[string(r.PKs())] = string(r.Row()) })
	for _, row := range pgtest.Query(t, r.url, `SELECT '["' || id || '"]', '{"id":' || id || ',"v":"' || v || '"}' FROM a`) {
		if view[row[0]] != row[1] {
			t.Errorf("the log makes %s of what is %s", view[row[0]], row[1])
		}
	}
}

// What the caller's functions return ends the pages: the ones before a failed read are
// waited for.
func TestPagesEndWithTheCallersError(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(60))
	own := errors.New("the caller's own")
	run := func(failRead, failPlaced int) (placed int, err error) {
		n := 0
		err = r.InterleaveEach(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			if n++; n == failRead {
				return Page{}, own
			}
			return reader.read(ctx, "WHERE id = 1")
		}, func(Interleaved) error {
			if placed++; placed == failPlaced {
				return own
			}
			return nil
		})
		return placed, err
	}
	placed, err := run(4, 0)
	equal(t, errors.Is(err, own), true)
	equal(t, placed, 3)
	_, err = run(0, 2)
	equal(t, errors.Is(err, own), true)
	placed, err = run(1, 0)
	equal(t, errors.Is(err, own), true)
	equal(t, placed, 0)
	// The next one has its turn.
	_, err = r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) { return reader.read(ctx, "") })
	ok(t, err)
	err = r.InterleaveEach(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
		page, err := reader.read(ctx, "WHERE id = 1")
		page.Snapshot = Snapshot{}
		return page, err
	}, func(Interleaved) error { return nil })
	equal(t, errors.Is(err, lockstep.ErrInvalid), true)
}

// A connection that breaks ends all pages on their way; each is in the log as a whole
// or not at all.
func TestPagesOnTheirWayWhenTheConnectionBreaks(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(60))
	for round := range 4 {
		reader = newPageReader(t, r.url, "a") // its connection ends with a read that is cut off
		err := strided(r, reader, func(page int) {
			if page == round+1 {
				pgtest.Exec(t, r.url, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+r.config.Slot+"'")
			}
		}, func(Interleaved) error { return nil })
		if err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("got error %v", err)
		}
		pgtest.Eventually(t, 20*time.Second, "capture streams again", func() bool {
			_, err := r.Interleave(t.Context(), reader.table.OID, func(context.Context, uint64) (Page, error) { return Page{}, ErrNoPage })
			return errors.Is(err, ErrNoPage)
		})
	}
	r.caughtUp()
	for _, b := range r.log.all() {
		if b.Len()%10 != 0 {
			t.Errorf("a batch with %d rows of pages of 10", b.Len())
		}
	}
}
