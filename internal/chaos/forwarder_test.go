package chaos_test

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// forwarder stands between a node and Postgres, and is the network's bad moods.
type forwarder struct {
	listener net.Listener
	target   string
	done     chan struct{}
	work     sync.WaitGroup

	mu     sync.Mutex
	lines  map[*line]struct{}
	refuse bool
	delay  time.Duration
	gate   chan struct{} // closed: bytes pass
}

// line is one connection and its other half.
type line struct {
	node, server net.Conn
	lost         chan struct{} // closed: what it carries goes nowhere, and nobody is told
	once         sync.Once
}

func newForwarder(t testing.TB, target string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{listener: l, target: target, done: make(chan struct{}), lines: map[*line]struct{}{}, gate: make(chan struct{})}
	close(f.gate)
	f.work.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

func (f *forwarder) address() string { return f.listener.Addr().String() }

func (f *forwarder) accept() {
	for {
		node, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		refuse := f.refuse
		f.mu.Unlock()
		if refuse {
			node.Close()
			continue
		}
		f.work.Go(func() { f.carry(node) })
	}
}

func (f *forwarder) carry(node net.Conn) {
	defer node.Close()
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", f.target)
	if err != nil {
		return
	}
	defer server.Close()
	l := &line{node: node, server: server, lost: make(chan struct{})}
	f.mu.Lock()
	f.lines[l] = struct{}{}
	f.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { f.pump(l, server, node) })
	both.Go(func() { f.pump(l, node, server) })
	both.Wait()
	f.mu.Lock()
	delete(f.lines, l)
	f.mu.Unlock()
}

// pump carries bytes one way. When its source ends it ends both sides, unless the line
// is lost: then the other side is left to find out.
func (f *forwarder) pump(l *line, to, from net.Conn) {
	defer func() {
		select {
		case <-l.lost:
			<-f.done // until then each side holds what it believes to be a connection
		default:
		}
		l.node.Close()
		l.server.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if !f.pass(l) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// pass waits until bytes may go on, and returns false when they may not.
func (f *forwarder) pass(l *line) bool {
	f.mu.Lock()
	gate, delay := f.gate, f.delay
	f.mu.Unlock()
	select {
	case <-gate:
	case <-l.lost:
		return false
	case <-f.done:
		return false
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.done:
			return false
		}
	}
	select {
	case <-l.lost:
		return false
	default:
		return true
	}
}

// each calls do with every line that is there now.
func (f *forwarder) each(do func(*line)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.lines {
		do(l)
	}
}

// cut ends every connection for both sides.
func (f *forwarder) cut() {
	f.each(func(l *line) {
		reset(l.node)
		reset(l.server)
	})
}

// reset ends a connection with a reset instead of an end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// lose lets every connection go nowhere, without an end; new ones work.
func (f *forwarder) lose() { f.each((*line).lose) }

func (l *line) lose() { l.once.Do(func() { close(l.lost) }) }

// loseOne ends one side of every connection; the other one is left to find out.
func (f *forwarder) loseOne(random *rand.Rand) {
	nodes := random.IntN(2) == 0
	f.each(func(l *line) {
		l.lose()
		if nodes {
			l.node.Close()
		} else {
			l.server.Close()
		}
	})
}

// hold lets no byte pass until the returned function is called.
func (f *forwarder) hold() (release func()) {
	gate := make(chan struct{})
	f.mu.Lock()
	f.gate = gate
	f.mu.Unlock()
	return sync.OnceFunc(func() { close(gate) })
}

// slow delays each packet.
func (f *forwarder) slow(d time.Duration) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.delay = 0
	}
}

// shut refuses new connections and cuts those that are.
func (f *forwarder) shut() (release func()) {
	f.mu.Lock()
	f.refuse = true
	f.mu.Unlock()
	f.cut()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.refuse = false
	}
}

func (f *forwarder) close() {
	f.listener.Close()
	close(f.done)
	f.cut()
	f.work.Wait()
}
