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
// without it, B and B' with it, in turns and short, so that what the machine does besides
// falls on both. A p99 of some seconds is noise; what decides is how many rounds agree.
func besideFailing(ctx context.Context, l *lab) ([]Figure, error) {
	return l.sending(ctx, func(ctx context.Context, s *sender) ([]Figure, error) {
		var figures []Figure
		for _, f := range []failing{
			{status: http.StatusInternalServerError, aim: 1.1, rounds: s.pick(3*s.Rounds, s.Rounds)},
			{status: http.StatusUnprocessableEntity, rounds: s.fewer()},
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
	rounds int
}

func (s *sender) beside(ctx context.Context, f failing) ([]Figure, error) {
	var without, with, p50, p50without, ratio, floor []float64
	for round := range f.rounds {
		s.say("send: another destination while one answers %d, round %d of %d", f.status, round+1, f.rounds)
		name := fmt.Sprintf("beside-%d-%d", f.status, round)
		var a, b [2]*arrivals
		for turn := range a {
			var err error
			if a[turn], err = s.arrivalsAt(ctx, fmt.Sprintf("%s-%d", name, turn)); err != nil {
				return nil, err
			}
			if b[turn], err = s.withFailing(ctx, f, fmt.Sprintf("%s-%d", name, turn)); err != nil {
				return nil, err
			}
		}
		p50, p50without = append(p50, b[0].at(.5), b[1].at(.5)), append(p50without, a[0].at(.5), a[1].at(.5))
		with, without = append(with, b[0].at(.99), b[1].at(.99)), append(without, a[0].at(.99), a[1].at(.99))
		ratio = append(ratio, (b[0].at(.99)+b[1].at(.99))/(a[0].at(.99)+a[1].at(.99)))
		floor = append(floor, a[1].at(.99)/a[0].at(.99))
	}
	of := fmt.Sprintf("commit to receiver while another destination answers %d", f.status)
	by := figure(of, "p99 with it, by without", "", ratio).beside(floor)
	if f.aim > 0 {
		by = by.surelyBelow(f.aim, fmt.Sprintf("under %.2f", f.aim))
	}
	return []Figure{
		figure(of, "p50 with it", "ms", p50), figure(of, "p50 without", "ms", p50without),
		figure(of, "p99 with it", "ms", with), figure(of, "p99 without", "ms", without), by,
	}, nil
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
	transactions := p.transactions * s.pick(8, 2) // seconds
	a := newArrivals(last, transactions*p.rows)
	a.untimed = last + uint64(p.transactions*p.rows) // it connects in the first second
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
