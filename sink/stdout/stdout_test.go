package stdout_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"lockstep/locksteptest"
	"lockstep/sink"
	"lockstep/sink/stdout"
)

// pipe keeps what is written and fails as it is told to.
type pipe struct {
	mu   sync.Mutex
	text bytes.Buffer
	left int // bytes that are taken before it fails; below 0: all
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left >= 0 && len(b) > p.left {
		n, _ := p.text.Write(b[:p.left])
		p.left = 0
		return n, errors.New("no space left on device")
	}
	if p.left >= 0 {
		p.left -= len(b)
	}
	return p.text.Write(b)
}

func (p *pipe) arrived(t testing.TB) (list []locksteptest.Arrival) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(p.text.String()) {
		var m struct {
			Metadata struct {
				Seq uint64
				PKs []string `json:"record_pks"`
			}
		}
		if json.Unmarshal([]byte(line), &m) != nil {
			continue // a line that was cut off
		}
		list = append(list, locksteptest.Arrival{Seq: m.Metadata.Seq, Key: strings.Join(m.Metadata.PKs, ","), Body: json.RawMessage(line)})
	}
	return list
}

func TestConformance(t *testing.T) {
	t.Parallel()
	p := &pipe{left: -1}
	lines := stdout.NewLines(p)
	locksteptest.TestSink(t, locksteptest.Target{
		New:     func(testing.TB, string) sink.Sink { return stdout.New(lines) },
		Arrived: p.arrived,
	})
}

func TestAFullDiskCostsNoLine(t *testing.T) {
	t.Parallel()
	messages := []sink.Message{{Body: json.RawMessage(`{"n":1}`)}, {Body: json.RawMessage(`{"n":2}`)}, {Body: json.RawMessage(`{"n":3}`)}}
	for room, want := range map[int]int{0: 0, 7: 0, 8: 1, 13: 1, 16: 2, 23: 2, 24: 3} {
		p := &pipe{left: room}
		s := stdout.New(stdout.NewLines(p))
		n, err := s.Write(t.Context(), messages)
		if n != want || (err == nil) != (want == 3) {
			t.Errorf("room for %d bytes: %d written, %v; want %d", room, n, err, want)
		}
		p.mu.Lock()
		p.left = -1
		p.mu.Unlock()
		if _, err := s.Write(t.Context(), messages[n:]); err != nil {
			t.Fatal(err)
		}
		whole := map[string]bool{} // one that lacked its end only comes again
		for line := range strings.Lines(p.text.String()) {
			if json.Valid([]byte(line)) && strings.HasSuffix(line, "}\n") {
				whole[line] = true
			}
		}
		if len(whole) != 3 {
			t.Errorf("room for %d bytes: %q", room, p.text.String())
		}
	}
}
