package console

import (
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	wrongTokens = 10          // from one address, within
	wrongWithin = time.Minute // this time
	addresses   = 4096        // that are remembered; with more, everybody's are forgotten
)

// door slows down who guesses tokens. The zero value is ready; it is safe for
// concurrent use.
type door struct {
	mu    sync.Mutex
	tries map[string]tries // by address, guarded by mu
}

type tries struct {
	since time.Time
	n     int
}

// wait is how long the address has to wait; 0: it may try.
func (d *door) wait(address string, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tries[address]
	if t.n < wrongTokens {
		return 0
	}
	return max(0, t.since.Add(wrongWithin).Sub(now))
}

// wrong notes that a wrong token came from the address.
func (d *door) wrong(address string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tries == nil || len(d.tries) >= addresses {
		d.tries = map[string]tries{}
	}
	t := d.tries[address]
	if now.Sub(t.since) >= wrongWithin {
		t = tries{since: now}
	}
	t.n++
	d.tries[address] = t
}

// host is the address of who asks, without its port.
func host(r *http.Request) string {
	name, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return name
}
