package locksteptest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Direction is one of the two that bytes take through a [Proxy].
type Direction int

// The directions, seen from the one who connects.
const (
	Up   Direction = iota // to the destination
	Down                  // from it
)

// Ending is how a connection ends.
type Ending int

// The endings: in order, or by a reset, as after a crash.
const (
	Closed Ending = iota
	Reset
)

// Proxy forwards TCP connections and breaks them on demand. Its methods may be called
// at any time from any goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	links   map[*link]bool
	carried [2]int64
	cut     *cut
	delay   time.Duration
	away    bool
	closed  bool          // the test is over
	stalled chan struct{} // not nil: nothing passes until it is closed
}

// cut is a fault that strikes once.
type cut struct {
	direction Direction
	left      int64
	ending    Ending
}

// link is a connection and the one it is forwarded to.
type link struct{ near, far net.Conn }

// NewProxy forwards connections to target, host:port, until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listener: listener, links: map[*link]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		p.listener.Close()
		p.Heal()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.endAll(Closed)
		p.running.Wait()
	})
	return p
}

// Address is where the proxy listens, host:port.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Carried returns how many bytes passed in each direction, over all connections.
func (p *Proxy) Carried() (up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.carried[Up], p.carried[Down]
}

// Cut ends one connection, the one that carries the byte behind the next so many in
// that direction; what comes before it passes. It strikes once.
func (p *Proxy) Cut(direction Direction, after int64, ending Ending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = &cut{direction: direction, left: after, ending: ending}
}

// Delay holds back each chunk of bytes for so long; 0 ends it.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Stall lets nothing pass. Connections are accepted and stay open, as when a cable is
// pulled.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// Away resets all connections and every new one, as when the destination is stopped.
func (p *Proxy) Away() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.endAll(Reset)
}

// Heal ends all faults. Connections in which something was stalled are closed.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.delay, p.away = nil, 0, false
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return // the listener was closed
		}
		p.running.Go(func() { p.serve(near) })
	}
}

func (p *Proxy) serve(near net.Conn) {
	p.mu.Lock()
	away := p.away || p.closed
	p.mu.Unlock()
	if away {
		end(near, Reset)
		return
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	far, err := dialer.Dial("tcp", p.target)
	if err != nil {
		end(near, Reset)
		return
	}
	l := &link{near: near, far: far}
	p.mu.Lock()
	p.links[l] = true
	away = p.away || p.closed
	p.mu.Unlock()
	if away {
		l.end(Reset)
	}
	var both sync.WaitGroup
	both.Go(func() { p.forward(l, far, near, Up) })
	both.Go(func() { p.forward(l, near, far, Down) })
	both.Wait()
	l.end(Closed)
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) forward(l *link, to, from net.Conn, d Direction) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			pass, struck := p.admit(d, n)
			if pass > 0 {
				if _, failed := to.Write(buffer[:pass]); failed != nil {
					l.end(Closed)
					return
				}
			}
			if struck != nil {
				l.end(struck.ending)
				return
			}
		}
		if err != nil {
			if half, ok := to.(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			return
		}
	}
}

// admit says how many of n bytes pass, and whether the connection ends behind them.
func (p *Proxy) admit(d Direction, n int) (int, *cut) {
	p.mu.Lock()
	stalled, delay := p.stalled, p.delay
	p.mu.Unlock()
	if stalled != nil {
		<-stalled
		return 0, &cut{}
	}
	if delay > 0 {
		<-time.After(delay)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cut
	if c == nil || c.direction != d {
		p.carried[d] += int64(n)
		return n, nil
	}
	pass := min(int64(n), c.left)
	p.carried[d] += pass
	c.left -= pass
	if pass == int64(n) {
		return n, nil
	}
	p.cut = nil
	return int(pass), c
}

func (p *Proxy) endAll(how Ending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.end(how)
	}
}

func (l *link) end(how Ending) {
	end(l.near, how)
	end(l.far, Closed)
}

func end(c net.Conn, how Ending) {
	if tcp, ok := c.(*net.TCPConn); ok && how == Reset {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
