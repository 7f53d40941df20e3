package deliver

import (
	"log/slog"
	"testing"
	"time"
)

// A consumer that finds the end of the log may find the tail further on a moment
// later: what lies in between would be lost to it if it joined there.
func TestConsumerJoinsTheTailOnlyWhereItStands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		head, pos uint64
		want      bool
	}{{101, 121, false}, {121, 121, true}, {130, 121, true}} {
		tl := newTail("app", nil, Config{Logger: slog.New(slog.DiscardHandler)})
		tl.reading = true
		tl.pos.Store(c.pos)
		consumer := &Consumer{
			b: New(Config{}), tail: tl, scanned: make(chan struct{}),
			w: newWindow(policy{ackWait: time.Second, maxInFlight: 1}, c.head, random),
		}
		tl.attach(consumer)
		consumer.mu.Lock()
		consumer.syncHead()
		attached, head := consumer.attached, consumer.w.head
		consumer.mu.Unlock()
		if attached != c.want || head != c.head {
			t.Errorf("head %d, tail at %d: attached %v with head %d, want %v", c.head, c.pos, attached, head, c.want)
		}
	}
}
