package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/client"
)

// Send measures what the node does by itself: webhooks and sinks beside bare clients,
// streams of events to many clients, and what a destination that fails costs the
// others.
func Send(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:  "send",
		about: "webhooks and streams of events, sent by a node that is a process of its own; receivers, clients and Postgres on this machine",
		conditions: func(o Options) []string {
			return []string{
				fmt.Sprintf("webhooks: %d changes of about 200 B (%d with batches of 1) from a filled stream, signed, over %d connections; acks on the disk; %d rounds",
					o.Rows, min(o.Rows, smallBatches), connections, o.Rounds),
				"bare client: net/http, as many connections, the bodies that the webhooks had, unsigned, to the same receiver, which finds each seq in either; both clocks include connecting",
				fmt.Sprintf("sinks: %d changes; Postgres is the lab's own (another database, %d connections, commits of %d rows); NATS and Kafka are nats-server (on the disk, without fsync for each message) and kfake (in memory) in the process that measures; redis-server is a process of its own, in memory", o.Rows, sinkConnections, sinkRows),
				fmt.Sprintf("streams: %d changes/s in transactions of %d, each change for one client by its filter; from the commit that Postgres stamps to the client that has read it", streamPace().transactions*streamPace().rows, streamPace().rows),
				fmt.Sprintf("beside a failing destination: %d transactions/s of one row, from commit to the receiver of another webhook; the failing consumer begins at the beginning", besidePace().transactions),
			}
		},
		measure: sendAll,
	})
}

func sendAll(ctx context.Context, o Options) (figures []Figure, err error) {
	for _, part := range []struct {
		of      []string
		measure func(context.Context, *lab) ([]Figure, error)
	}{{backlogParts(), fromBacklog}, {[]string{partStreams}, streams}, {[]string{partFailing}, besideFailing}} {
		if !slices.ContainsFunc(part.of, o.wanted) {
			continue
		}
		more, err := o.inLab(ctx, part.measure)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// The parts of Send.
const (
	partWebhook  = "webhook"
	partPostgres = "postgres"
	partNATS     = "nats"
	partKafka    = "kafka"
	partRedis    = "redis"
	partStreams  = "streams"
	partFailing  = "failing"
)

// backlogParts are those that send a filled stream.
func backlogParts() []string {
	return []string{partWebhook, partPostgres, partNATS, partKafka, partRedis}
}

// SendParts returns the parts of Send, in the order in which they are measured.
func SendParts() []string { return append(backlogParts(), partStreams, partFailing) }

func (o Options) wanted(part string) bool { return len(o.Parts) == 0 || slices.Contains(o.Parts, part) }

// connections is what an endpoint is given, by webhooks and by the bare client.
const connections = 16

// signingKey signs the requests; whoever receives them here does not check it.
const signingKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// sender is a node and an endpoint to send to.
type sender struct {
	*node
	to *receiver
}

// sending starts a node, its table and an endpoint, measures and ends them.
func (l *lab) sending(ctx context.Context, measure func(context.Context, *sender) ([]Figure, error)) (figures []Figure, err error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.tables(ctx, 1); err != nil {
		return nil, err
	}
	to, err := newReceiver()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	return measure(ctx, &sender{node: n, to: to})
}

// webhook makes a consumer that sends to the url.
func (n *node) webhook(ctx context.Context, name, start, url string, size int) error {
	settings, err := json.Marshal(map[string]any{"url": url, "secret": signingKey, "allow_private": true, "concurrency": connections})
	if err != nil {
		return err
	}
	_, err = n.api.CreateConsumer(ctx, client.Definition{
		Name: name, Kind: "webhook", Tables: []string{"public.bench_0"}, Start: start, MaxInFlight: 20_000,
		Batch: &client.Batching{Size: size}, Webhook: settings,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", name, err)
	}
	return nil
}

// fromBacklog sends a filled stream to each kind of destination.
func fromBacklog(ctx context.Context, l *lab) ([]Figure, error) {
	return l.sending(ctx, func(ctx context.Context, s *sender) ([]Figure, error) {
		if err := s.insert(ctx, 1, 1, s.Rows); err != nil {
			return nil, err
		}
		if err := s.captured(ctx, uint64(s.Rows)); err != nil {
			return nil, err
		}
		var figures []Figure
		for _, size := range []int{1, 100} {
			if !s.wanted(partWebhook) {
				break
			}
			more, err := s.webhooksOf(ctx, size)
			if err != nil {
				return nil, err
			}
			figures = append(figures, more...)
		}
		more, err := s.sinks(ctx)
		return append(figures, more...), err
	})
}

// webhooksOf measures one size of batches, beside the bare client.
func (s *sender) webhooksOf(ctx context.Context, size int) ([]Figure, error) {
	changes := s.Rows
	if size == 1 {
		changes = min(changes, smallBatches)
	}
	s.say("send: webhooks of %d, a run that warms up and is not counted", size)
	warm, err := s.sent(ctx, size, changes, fmt.Sprintf("warm-%d", size))
	if err != nil {
		return nil, err
	}
	var peer, ours, floor, ratio, cpu, each, all, alone, share, made, madeShare []float64
	for round := range s.Rounds {
		s.say("send: webhooks of %d, round %d", size, round+1)
		a, err := s.bare(ctx, changes, warm.bodies, nil)
		if err != nil {
			return nil, err
		}
		b, err := s.sent(ctx, size, changes, fmt.Sprintf("sent-%d-%d", size, round))
		if err != nil {
			return nil, err
		}
		a2, err := s.bare(ctx, changes, warm.bodies, nil)
		if err != nil {
			return nil, err
		}
		c, err := s.bare(ctx, changes, nil, func(turn int) ([]byte, error) { return renderMany(1+turn*size%changes, size) })
		if err != nil {
			return nil, err
		}
		n := float64(changes)
		of := func(cpu time.Duration) float64 { return float64(cpu.Microseconds()) / n }
		peer, ours = append(peer, n/a.took, n/a2.took), append(ours, n/b.took)
		floor, ratio = append(floor, a2.took/a.took), append(ratio, (a.took+a2.took)/2/b.took)
		cpu, each = append(cpu, of(b.node)), append(each, b.each)
		all, alone, made = append(all, of(b.sum())), append(alone, of(a.sum()), of(a2.sum())), append(made, of(c.sum()))
		share, madeShare = append(share, float64(a.sum()+a2.sum())/2/float64(b.sum())), append(madeShare, float64(c.sum())/float64(b.sum()))
	}
	of := fmt.Sprintf("webhooks, batches of %d, %d connections", size, connections)
	return []Figure{
		figure(of, "bare client", "changes/s", peer), figure(of, "lockstep", "changes/s", ours),
		figure(of, "lockstep by bare client", "", ratio).beside(floor),
		figure(of, "node and receiver, CPU", "µs/change", all), figure(of, "bare client and receiver, CPU", "µs/change", alone),
		figure(of, "CPU, bare client by lockstep", "", share),
		figure(of, "bare client that renders, and receiver, CPU", "µs/change", made), figure(of, "CPU, bare client that renders, by lockstep", "", madeShare),
		figure(of, "changes in one request", "changes", each), figure(of, "node, CPU", "µs/change", cpu),
	}, nil
}

// bodiesKept is how many bodies of webhooks the bare client sends in turns.
const bodiesKept = 256

// sentRun is how long webhooks took.
type sentRun struct {
	spent          // from the request that makes the consumer to the last change
	each   float64 // changes in one request
	bodies [][]byte
}

// sent has a new consumer send changes from the beginning.
func (s *sender) sent(ctx context.Context, size, changes int, name string) (r sentRun, err error) {
	a := newArrivals(0, changes)
	a.keep = bodiesKept
	url := s.to.expect(name, a)
	defer s.to.over(name)
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	own := ownCPU()
	start := time.Now()
	if err := s.webhook(ctx, name, "beginning", url, size); err != nil {
		return r, err
	}
	if err := a.whole(ctx); err != nil {
		return r, fmt.Errorf("consumer %s: %w", name, err)
	}
	r.took, r.rest = time.Since(start).Seconds(), ownCPU()-own
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	requests, came := a.asked()
	r.each, r.bodies = float64(came)/float64(requests), a.kept()
	if !s.Within {
		r.node = after - before
	}
	return r, s.api.DeleteConsumer(ctx, name)
}

// bare posts the bodies in turns until as many changes came, as a program without a
// node would; without bodies those that it makes.
func (s *sender) bare(ctx context.Context, changes int, bodies [][]byte, render func(turn int) ([]byte, error)) (p spent, err error) {
	const name = "bare"
	a := newArrivals(0, changes)
	a.again = untilAcks
	url := s.to.expect(name, a)
	defer s.to.over(name)
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	poster := &http.Client{Transport: transport, Timeout: time.Minute}
	if render == nil {
		render = func(turn int) ([]byte, error) { return bodies[turn%len(bodies)], nil }
	}
	var turn atomic.Int64
	own := ownCPU()
	start := time.Now()
	group, posting := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			for {
				select {
				case <-a.full:
					return nil
				default:
				}
				body, err := render(int(turn.Add(1)))
				if err != nil {
					return err
				}
				if err := post(posting, poster, url, body); err != nil {
					return fmt.Errorf("bare client: %w", err)
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return p, err
	}
	p.took, p.rest = time.Since(start).Seconds(), ownCPU()-own
	return p, a.whole(ctx)
}

func post(ctx context.Context, c *http.Client, url string, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	answer, err := c.Do(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", answer.StatusCode)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
