package chaos_test

import (
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
)

// deleted stands in a row's history for its removal; writes have numbers above it.
const deleted = 0

// ledger is what was committed: the history of each row, one number per version.
// The number is that of the write, not the version: what was rolled back and written
// anew under the same version is told apart.
type ledger struct {
	mu      sync.Mutex
	rows    map[string][]uint64
	changes int
	commits int
	doubts  int // commits that were not answered
	landed  int // of these, how many had happened
}

func newLedger() *ledger { return &ledger{rows: map[string][]uint64{}} }

// rowKey names a row as changes do.
func rowKey(table string, id int) string { return table + "/" + strconv.Itoa(id) }

// entry is one change of a transaction.
type entry struct {
	key   string
	write uint64
}

func (l *ledger) commit(entries []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		l.rows[e.key] = append(l.rows[e.key], e.write)
	}
	l.changes += len(entries)
	l.commits++
}

// fate is what became of a commit that was not answered.
type fate string

const (
	committed fate = "committed"
	aborted   fate = "aborted"
)

func (l *ledger) doubt(happened fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubts++
	if happened == committed {
		l.landed++
	}
}

func (l *ledger) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes
}

// selected returns the histories of the rows that keep is true for. The ledger must
// not change any more.
func (l *ledger) selected(keep func(key string) bool) (rows map[string][]uint64, changes int) {
	rows = map[string][]uint64{}
	for key, history := range l.rows {
		if keep(key) {
			rows[key] = history
			changes += len(history)
		}
	}
	return rows, changes
}

// bodyOf is what a write puts into its row, so that the content of a change can be
// checked wherever it is met. One in 200 is too long for its page.
func bodyOf(write uint64) string {
	h := fnv.New64a()
	_, _ = h.Write(strconv.AppendUint(nil, write, 10)) // a hash takes everything
	sum := h.Sum64()
	n := int(sum % 20)
	if sum%200 == 0 {
		n = 600
	}
	return strings.Repeat(strconv.FormatUint(sum|1<<63, 16), n)
}

func even(key string) bool { return (key[len(key)-1]-'0')%2 == 0 }
