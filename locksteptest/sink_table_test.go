package locksteptest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/sink"
)

// table keeps the newest message of each key, without a network.
type table struct {
	mu         sync.Mutex
	rows       map[uint64]sink.Message
	olderWins  bool
	keepsGhost bool // deleted rows stay
}

func (d *table) Write(ctx context.Context, messages []sink.Message) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	for _, m := range messages {
		if row, ok := d.rows[m.Key]; ok && row.Seq >= m.Seq && !d.olderWins {
			continue
		}
		m.Body = append([]byte(nil), m.Body...)
		d.rows[m.Key] = m
	}
	return len(messages), nil
}

func (d *table) Close(context.Context) error { return nil }

func (d *table) arrived(testing.TB) []Arrival {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Arrival
	for _, m := range d.rows {
		if m.Action != lockstep.Delete || d.keepsGhost {
			list = append(list, Arrival{Seq: m.Seq, Body: m.Body})
		}
	}
	return list
}

func (d *table) target() Target {
	return Target{
		New:     func(testing.TB, string) sink.Sink { return d },
		Arrived: d.arrived, Keeps: Newest, Idempotent: true, Patience: time.Second,
	}
}

func TestATableWhereTheNewestWinsPasses(t *testing.T) {
	t.Parallel()
	TestSink(t, (&table{rows: map[uint64]sink.Message{}}).target())
}

func TestATableThatIsWrongIsCaught(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]*table{
		"what comes again": {olderWins: true},
		"deletes":          {keepsGhost: true},
	} {
		broken.rows = map[uint64]sink.Message{}
		s := newSuite(broken.target())
		for _, c := range s.checks() {
			if !strings.HasPrefix(c.name, name) {
				continue
			}
			r := &recorder{TB: t}
			if r.try(c.run); !r.Failed() {
				t.Errorf("%q passes", c.name)
			}
		}
	}
}
