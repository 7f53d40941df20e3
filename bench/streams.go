package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/client"
)

// streamPace is the load of the streams of events.
func streamPace() pace { return pace{transactions: 20, rows: 50} }

// carriedWithin is the p99 to the last client below which clients count as carried.
const carriedWithin = time.Second

// streams measures streams of events to growing numbers of clients, each with a filter
// that leaves it its own changes, until the machine does not carry them any more.
func streams(ctx context.Context, l *lab) ([]Figure, error) {
	ladder := []int{30, 60, 125, 250, 500, 1000}
	if l.Quick {
		ladder = []int{10, 50}
	}
	return l.sending(ctx, func(ctx context.Context, s *sender) ([]Figure, error) {
		idle, err := memoryOf(s.pid)
		if err != nil {
			return nil, err
		}
		figures := []Figure{figure("streams of events, no client", "resident", "MB", []float64{idle.resident})}
		for _, clients := range ladder {
			more, err := s.audienceOf(ctx, clients)
			if err != nil {
				return nil, err
			}
			limit := float64(carriedWithin.Milliseconds())
			more[toLast] = more[toLast].below(limit, "carried: under "+Number(limit))
			figures = append(figures, more...)
			if more[toLast].Median >= limit {
				break
			}
		}
		return figures, nil
	})
}

// audienceOf measures one number of clients.
func (s *sender) audienceOf(ctx context.Context, clients int) ([]Figure, error) {
	of := fmt.Sprintf("streams of events, %d clients with a filter each", clients)
	var figures []Figure
	for round := range s.fewer() {
		s.say("send: %d clients of the stream of events, round %d", clients, round+1)
		more, err := s.audience(ctx, of, clients)
		if err != nil {
			return nil, err
		}
		figures = joined(figures, more)
	}
	return figures, nil
}

// toLast is the place of the figure that decides whether clients are carried.
const toLast = 2

// audience connects the clients, lets each have one change, and measures.
func (s *sender) audience(ctx context.Context, of string, clients int) ([]Figure, error) {
	last, err := s.last(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := streamPace()
	p.rows = min(p.rows, clients) // so that a transaction has one change for each client that it concerns
	transactions := p.transactions * s.pick(15, 2)
	first := int(last) + 1
	a := &audience{clients: clients, first: first, counted: first + roundUp(clients, 100), rows: p.rows}
	a.lasts = make([]time.Duration, transactions)
	a.met, a.full = make(chan struct{}), make(chan struct{})
	group, listening := errgroup.WithContext(ctx)
	for k := range clients {
		group.Go(func() error { return done(ctx, s.listen(listening, a, k)) })
	}
	var figures []Figure
	group.Go(func() (err error) {
		defer cancel()
		figures, err = s.paced(listening, of, a, p)
		return err
	})
	return figures, group.Wait()
}

// paced writes and waits, and returns what came of it.
func (s *sender) paced(ctx context.Context, of string, a *audience, p pace) ([]Figure, error) {
	if err := s.insert(ctx, 1, a.first, a.counted-a.first); err != nil {
		return nil, err
	}
	if err := a.wait(ctx, a.met, "each client to have its first change"); err != nil {
		return nil, err
	}
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var most memory
	var group errgroup.Group
	group.Go(func() (err error) {
		most, err = watch(sampling, s.pid)
		return err
	})
	start := time.Now()
	err = s.writeAt(ctx, p, len(a.lasts), a.counted-1)
	if err == nil {
		err = a.wait(ctx, a.full, "everything to come")
	}
	took := time.Since(start)
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return nil, err
	}
	after, err := s.cpu()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	figures := []Figure{
		figure(of, "commit to the change's client, p50", "ms", []float64{quantileMS(a.took, .5)}),
		figure(of, "commit to the change's client, p99", "ms", []float64{quantileMS(a.took, .99)}),
		toLast: figure(of, "commit to the last client of its transaction, p99", "ms", []float64{quantileMS(a.lasts, .99)}),
		figure(of, "resident, most", "MB", []float64{most.resident}),
		figure(of, "node, CPU", "cores", []float64{(after - before).Seconds() / took.Seconds()}),
		figure(of, "node, CPU by clients and changes", "µs", []float64{float64((after - before).Microseconds()) / float64(a.clients*len(a.took))}),
	}
	return figures, nil
}

// audience is all clients of one run. It may be used concurrently.
type audience struct {
	clients int
	first   int // id of the first row, which each client has one of
	counted int // id of the first row that is measured
	rows    int // of a transaction

	met, full chan struct{} // closed when each has its first change; when all have all

	mu    sync.Mutex
	came  bitmap
	early int // changes that are not measured
	took  []time.Duration
	lasts []time.Duration // of each transaction, to its last client
}

// hear notes a change that came to a client.
func (a *audience) hear(k, id int, took time.Duration) error {
	if id%a.clients != k {
		return fmt.Errorf("client %d got the row %d, which its filter leaves out", k, id)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id < a.first || a.came.add(uint64(id-a.first)) {
		return fmt.Errorf("client %d got the row %d twice, or one from before it came", k, id)
	}
	if id < a.counted {
		if a.early++; a.early == a.counted-a.first {
			close(a.met)
		}
		return nil
	}
	transaction := (id - a.counted) / a.rows
	if transaction >= len(a.lasts) {
		return fmt.Errorf("client %d got the row %d, which nobody wrote", k, id)
	}
	a.lasts[transaction] = max(a.lasts[transaction], took)
	if a.took = append(a.took, took); len(a.took) == len(a.lasts)*a.rows {
		close(a.full)
	}
	return nil
}

func (a *audience) wait(ctx context.Context, until chan struct{}, what string) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		a.mu.Lock()
		defer a.mu.Unlock()
		return fmt.Errorf("%d clients: waited %s for %s: %d changes came, of %d", a.clients, patience, what, a.early+len(a.took), a.counted-a.first+len(a.lasts)*a.rows)
	}
}

// listen is one client.
func (s *sender) listen(ctx context.Context, a *audience, k int) error {
	o := client.TailOptions{From: "seq:" + strconv.Itoa(a.first), Filter: fmt.Sprintf("record.id %% %d == %d", a.clients, k)}
	for e, err := range s.api.Tail(ctx, database, o) {
		if err != nil {
			return err
		}
		now := time.Now()
		c, err := client.ParseChange(e.Data)
		if err != nil {
			return err
		}
		if len(c.Metadata.RecordPKs) != 1 {
			return fmt.Errorf("client %d got a %s: %s", k, e.Name, e.Data)
		}
		id, err := strconv.Atoi(c.Metadata.RecordPKs[0])
		if err != nil {
			return err
		}
		if err := a.hear(k, id, now.Sub(c.Metadata.CommitTime())); err != nil {
			return err
		}
	}
	return nil
}
