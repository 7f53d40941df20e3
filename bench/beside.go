package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// besidePace is the load beside a failing destination.
func besidePace() pace { return pace{transactions: 200, rows: 1} }

// besideFailing measures what a destination that fails costs another one: A and A'
// without it, B with it.
func besideFailing(ctx context.Context, l *lab) ([]Figure, error) {
	return l.sending(ctx, func(ctx context.Context, s *sender) ([]Figure, error) {
		var figures []Figure
		for _, f := range []failing{
			{status: http.StatusInternalServerError, aim: 1.1},
			{status: http.StatusUnprocessableEntity},
		} {
			more, err := s.beside(ctx, f)
			if err != nil {
				return nil, err
			}
			figures = append(figures, more...)
		}
		return figures, nil
	})
}

// failing is a destination that answers a status to everything.
type failing struct {
	status int
	aim    float64 // of the other one's p99, by that without it; 0: none
}

func (s *sender) beside(ctx context.Context, f failing) ([]Figure, error) {
	var without, with, p50, ratio, floor []float64
	for round := range s.fewer() {
		name := fmt.Sprintf("beside-%d-%d", f.status, round)
		s.say("send: another destination while one answers %d, round %d", f.status, round+1)
		a, err := s.arrivalsAt(ctx, name+"-a")
		if err != nil {
			return nil, err
		}
		b, err := s.withFailing(ctx, f, name)
		if err != nil {
			return nil, err
		}
		a2, err := s.arrivalsAt(ctx, name+"-c")
		if err != nil {
			return nil, err
		}
		without, with, p50 = append(without, a.at(.99), a2.at(.99)), append(with, b.at(.99)), append(p50, b.at(.5))
		ratio, floor = append(ratio, 2*b.at(.99)/(a.at(.99)+a2.at(.99))), append(floor, a2.at(.99)/a.at(.99))
	}
	of := fmt.Sprintf("commit to receiver while another destination answers %d", f.status)
	by := figure(of, "p99 with it, by without", "", ratio).beside(floor)
	if f.aim > 0 {
		by = by.below(f.aim, fmt.Sprintf("under %.2f", f.aim))
	}
	return []Figure{figure(of, "p50 with it", "ms", p50), figure(of, "p99 with it", "ms", with), figure(of, "p99 without", "ms", without), by}, nil
}

// withFailing measures while a consumer of everything since the beginning is refused.
func (s *sender) withFailing(ctx context.Context, f failing, name string) (*arrivals, error) {
	refused := newArrivals(0, 1)
	refused.status = f.status
	bad := name + "-failing"
	url := s.to.expect(bad, refused)
	defer s.to.over(bad)
	if err := s.webhook(ctx, bad, "beginning", url, 1); err != nil {
		return nil, err
	}
	a, err := s.arrivalsAt(ctx, name+"-b")
	if requests, _ := refused.asked(); err == nil && requests == 0 {
		err = errors.New("the failing destination was never asked")
	}
	return a, errors.Join(err, s.api.DeleteConsumer(ctx, bad))
}

// arrivalsAt writes at the pace, and returns what came to a webhook made for it.
func (s *sender) arrivalsAt(ctx context.Context, name string) (*arrivals, error) {
	last, err := s.last(ctx)
	if err != nil {
		return nil, err
	}
	p := besidePace()
	transactions := p.transactions * s.pick(15, 1) // seconds
	a := newArrivals(last, transactions*p.rows)
	url := s.to.expect(name, a)
	defer s.to.over(name)
	if err := s.webhook(ctx, name, "now", url, 1); err != nil {
		return nil, err
	}
	if err := s.writeAt(ctx, p, transactions, int(last)); err != nil {
		return nil, err
	}
	if err := a.whole(ctx); err != nil {
		return nil, fmt.Errorf("consumer %s: %w", name, err)
	}
	return a, s.api.DeleteConsumer(ctx, name)
}
