package torture_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"lockstep"
	"lockstep/client"
)

// gap is metadata.gap.
type gap struct {
	State, Reason string
	Complete      *bool
}

func gapOf(c client.Change) (g gap, ok bool) {
	if c.Action != "gap" || json.Unmarshal(c.Metadata.Gap, &g) != nil {
		return gap{}, false
	}
	return g, true
}

func isGapStart(c client.Change) bool {
	g, ok := gapOf(c)
	return ok && g.State == "start"
}

// terms are what a case may ask of the oracle to overlook, and why.
type terms struct {
	// insertsOnly are tables of which Postgres lets nobody see updates and deletes:
	// the stream holds every row ever inserted, and is not compared.
	insertsOnly []string
	// altered are tables that got a column while they had rows: what the column holds
	// in rows that were not written since is in no change, and is not compared.
	altered []string
	// renamed tables, old name → new name: they are one table.
	renamed map[string]string
	// alarm is the reason of gaps that may be told although nothing is missing: the
	// oracle goes on as if they were not there.
	alarm string
	// gaps: the case ends with an open gap, and a stream that says so is all that can
	// be asked for: everything is checked but the tables' content.
	gaps bool
}

// check is the oracle that speaks after every case.
func (n *node) check(given terms) {
	n.t.Helper()
	n.fence()
	all := n.bySeq()
	checkOrder(n.t, n.changes)
	checkBothReadings(n.t, all, n.sse(all[len(all)-1].Metadata.Seq))
	judge(n.t, n.url, all, given)
}

// judge is the part of the oracle that looks at the stream itself.
func judge(t testing.TB, url string, all []client.Change, given terms) {
	t.Helper()
	checkIdentities(t, all)
	if t.Failed() {
		return
	}
	r := newReplica(given)
	for _, c := range all {
		if err := r.apply(c); err != nil {
			t.Errorf("change %d does not follow from what was before: %v\n%.2000s", c.Metadata.Seq, err, line(c))
		}
	}
	if !r.open && !t.Failed() {
		r.compare(t, url)
	}
	if r.open != given.gaps {
		t.Errorf("a gap is open at the end: %t, want %t", r.open, given.gaps)
	}
}

// checkIdentities: seq is dense, ids are unique, positions grow, and indices are
// dense in each transaction.
func checkIdentities(t testing.TB, all []client.Change) {
	t.Helper()
	ids := map[string]uint64{}
	var lsn, idx uint64
	var last string // timeline and system of the change before
	for i, c := range all {
		m := c.Metadata
		if m.Seq != uint64(i+1) {
			t.Fatalf("seq %d follows seq %d", m.Seq, i)
		}
		if other, taken := ids[m.IdempotencyKey]; taken {
			t.Errorf("changes %d and %d have the id %s", other, m.Seq, m.IdempotencyKey)
		}
		ids[m.IdempotencyKey] = m.Seq
		cluster := clusterOf(m.IdempotencyKey)
		switch {
		case cluster != last: // after a failover positions may go back
		case m.CommitLSN == lsn && m.CommitIdx == idx+1:
		case m.CommitLSN > lsn && m.CommitIdx == 0:
		default:
			t.Errorf("change %d at (%s, %d) follows (%s, %d)", m.Seq, lockstep.LSN(m.CommitLSN), m.CommitIdx, lockstep.LSN(lsn), idx)
		}
		lsn, idx, last = m.CommitLSN, m.CommitIdx, cluster
	}
}

// clusterOf is the part of an id that says which server and which timeline.
func clusterOf(id string) string {
	parts := bytes.SplitN([]byte(id), []byte("-"), 3)
	return string(parts[0]) + "-" + string(parts[1])
}

// checkOrder: to a worker that acks what it is given, the changes of a key come in
// the order of the stream, and a whole table's change after all before it.
func checkOrder(t testing.TB, given []client.Change) {
	t.Helper()
	rows, tables := map[string]uint64{}, map[string]uint64{}
	highest := map[string]uint64{} // of any change of the table
	for _, c := range given {
		m, table := c.Metadata, c.Metadata.Table()
		key := table
		for _, pk := range m.RecordPKs {
			key += "\x00" + pk
		}
		whole := c.Action == "truncate" || c.Action == "gap"
		if m.Seq < rows[key] || m.Seq < tables[table] || whole && m.Seq < highest[table] {
			t.Errorf("change %d of %s came after %d", m.Seq, key, max(rows[key], tables[table], highest[table]))
		}
		rows[key] = max(rows[key], m.Seq)
		highest[table] = max(highest[table], m.Seq)
		if whole {
			tables[table] = max(tables[table], m.Seq)
		}
	}
}

// checkBothReadings: a tail has the same changes as the consumer. Only what is read
// for the consumer alone is not in the tail, and lines cannot hold line breaks.
func checkBothReadings(t testing.TB, pulled, tailed []client.Change) {
	t.Helper()
	seqs := map[uint64]client.Change{}
	for _, c := range tailed {
		seqs[c.Metadata.Seq] = c
	}
	for _, want := range pulled {
		got, there := seqs[want.Metadata.Seq]
		if !there && want.Action == "read" {
			continue
		}
		folded := func(b json.RawMessage) []byte { return lockstep.FoldLines(slices.Clone(b)) }
		same := there && got.Action == want.Action && got.Metadata.IdempotencyKey == want.Metadata.IdempotencyKey &&
			bytes.Equal(got.Record, folded(want.Record)) && bytes.Equal(got.Changes, folded(want.Changes)) &&
			bytes.Equal(got.Metadata.Gap, want.Metadata.Gap)
		if !same {
			t.Fatalf("the consumer was given\n%s\nand the tail\n%s", line(want), line(got))
		}
	}
}
