package pump

import "time"

// Status is how sending goes.
type Status struct {
	State     State
	Reason    string    // why it is not ok
	Since     time.Time // of this state
	NextTry   time.Time // when it is tried again; zero: now, or when a person acts
	Delivered uint64    // changes, since the pump started
	Failed    uint64    // attempts of changes that failed, since then
	Writes    uint64    // calls of the sink, since then
	Writing   int       // writes that run
	Held      int       // changes here: waiting or being written
	LastOK    time.Time // when something was delivered last
	LastError time.Time // when something failed last
}

// Status returns how sending goes.
func (p *Pump) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func (p *Pump) show(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
}
