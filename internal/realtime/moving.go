package realtime

import (
	"context"
	"sync"
)

// movings asks whether capture runs, once for all who wait for the answer: it is as
// good for those who came while it was on its way. Nothing that is committed after it
// came is missed from its seq on, and that is all that they need.
type movings struct {
	config Config
	spawn  func(func(context.Context)) bool

	mu    sync.Mutex
	calls map[string]*movingCall // guarded by mu: those under way, by database
}

type movingCall struct {
	done chan struct{} // closed when seq and err are set
	seq  uint64
	err  error
}

func newMovings(config Config, spawn func(func(context.Context)) bool) *movings {
	return &movings{config: config, spawn: spawn, calls: map[string]*movingCall{}}
}

// wait returns a seq from which on capture is certain.
func (m *movings) wait(ctx context.Context, database string) (uint64, error) {
	call, ok := m.join(database)
	if !ok {
		return 0, errStopping
	}
	select {
	case <-call.done:
		return call.seq, call.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// join returns the call under way, or begins one.
func (m *movings) join(database string) (*movingCall, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if call := m.calls[database]; call != nil {
		return call, true
	}
	call := &movingCall{done: make(chan struct{})}
	if !m.spawn(func(life context.Context) { m.ask(life, database, call) }) {
		return nil, false
	}
	m.calls[database] = call
	return call, true
}

func (m *movings) ask(ctx context.Context, database string, call *movingCall) {
	ctx, cancel := context.WithTimeout(ctx, m.config.Limits.JoinWait)
	defer cancel()
	call.seq, call.err = m.config.Moving(ctx, database)
	m.mu.Lock()
	delete(m.calls, database)
	m.mu.Unlock()
	close(call.done)
}
