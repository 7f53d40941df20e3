package wal

import (
	"testing"

	"lockstep"
)

func textRow(b *batch, ordinal uint32, size int) {
	buf := append(b.open(), make([]byte, size)...)
	b.close(buf, lockstep.RecordHead{Action: lockstep.Insert, Table: b.table(&lockstep.Table{}), RecordLen: size}, ordinal)
}

func marks(log *memoryLog) []lockstep.Mark {
	var all []lockstep.Mark
	for _, b := range log.all() {
		m := b.Mark
		m.Seq = 0
		all = append(all, m)
	}
	return all
}

func unstarted(t testing.TB, log *memoryLog, limit int) *batch {
	t.Helper()
	return newBatch(log, newFlight(0, &counters{}, func(err error) { t.Error(err) }), lockstep.Mark{}, limit)
}

func landed(t testing.TB, log *memoryLog) {
	t.Helper()
	if _, err := log.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Guarantee 2: what a keepalive says counts between transactions only, and is
// confirmed by what the log has on disk, like everything else.
func TestKeepaliveCountsBetweenTransactionsOnly(t *testing.T) {
	t.Parallel()
	log := newMemoryLog(t)
	b := unstarted(t, log, 1<<10)
	b.begin(&lockstep.Tx{CommitLSN: 100})
	textRow(b, 1, 10)
	b.advance(keepalive{end: 5000, reply: true})
	ok(t, b.offer(t.Context())) // in the middle of a transaction: nothing to hand over
	textRow(b, 2, 2000)
	ok(t, b.ended(t.Context())) // too large to wait for the commit
	b.advance(keepalive{end: 6000, reply: true})
	ok(t, b.offer(t.Context()))
	ok(t, b.commit(t.Context(), 148))
	landed(t, log)
	ok(t, b.offer(t.Context()))
	b.advance(keepalive{end: 7000, reply: true})
	landed(t, log)
	ok(t, b.offer(t.Context()))
	landed(t, log)
	equal(t, marks(log), []lockstep.Mark{
		{CommitLSN: 100, Ordinal: 2},
		{CommitLSN: 100, Ordinal: 2, EndLSN: 148, Complete: true}, // says that the transaction has ended
		{CommitLSN: 100, Ordinal: 2, EndLSN: 7000, Complete: true},
	})
}

// While the log is busy, transactions gather; they go when it is free, or when
// there is a batch full of them.
func TestSmallTransactionsGatherWhileTheLogIsBusy(t *testing.T) {
	t.Parallel()
	log := newMemoryLog(t)
	log.stop()
	b := unstarted(t, log, 4<<10)
	commit := func(at lockstep.LSN, size int) {
		t.Helper()
		b.begin(&lockstep.Tx{CommitLSN: at})
		textRow(b, 1, size)
		ok(t, b.ended(t.Context()))
		ok(t, b.commit(t.Context(), at+48))
		ok(t, b.offer(t.Context()))
	}
	commit(100, 10) // at once
	for i := range 5 {
		commit(lockstep.LSN(200+100*i), 10) // gather
	}
	commit(700, 1100) // a quarter of a batch: it may be the second on its way
	commit(800, 1100) // and no third
	commit(900, 5000) // full: it goes whatever is on its way
	log.start()
	landed(t, log)
	var got []int
	for _, l := range log.all() {
		got = append(got, l.Len())
	}
	equal(t, got, []int{1, 6, 2})
	commit(1000, 10)
	landed(t, log)
	equal(t, len(log.all()), 4)
}

// The log keeps what it is given, so it is given no more memory than needed.
func TestBatchesHoldNoSpareMemory(t *testing.T) {
	t.Parallel()
	log := newMemoryLog(t)
	b := unstarted(t, log, 256<<10)
	b.begin(&lockstep.Tx{CommitLSN: 100, Annotations: make([]byte, 500)})
	textRow(b, 1, 10)
	ok(t, b.commit(t.Context(), 148))
	ok(t, b.offer(t.Context()))
	landed(t, log)
	data := log.all()[0].Bytes()
	if cap(data) > 2*len(data)+256 {
		t.Errorf("%d bytes in memory of %d", len(data), cap(data))
	}
}
