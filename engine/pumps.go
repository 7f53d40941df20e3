package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/deliver"
	"lockstep/internal/kinds"
	"lockstep/internal/obs"
	"lockstep/internal/pump"
	"lockstep/internal/stage"
	"lockstep/internal/stream"
)

// openPumps prepares what sends to the consumers that are sent to.
func (e *Engine) openPumps(ctx context.Context) (func() error, error) {
	states, err := e.stream.States(ctx)
	if err != nil {
		return nil, fmt.Errorf("open what is known of destinations: %w", err)
	}
	lines := kinds.Lines(e.Stdout)
	e.pumps = pump.NewSet(pump.SetConfig{
		Consumers: e.broker.List, Sends: kinds.Sends, Keep: keptGone{states}, Observe: e.observeAttempts, Logger: e.Logger.With(obs.KeyStage, "send"),
		Dir: filepath.Join(e.dir.path, "attempts"), Room: e.stream.Space,
		Open: func(_ context.Context, d deliver.Definition) (pump.Opened, error) {
			if why := api.WhyUnopened(d.Settings); why != "" {
				return pump.Opened{}, fmt.Errorf("%s: %w", why, lockstep.ErrInvalid)
			}
			return kinds.Open(d.Kind, kinds.Target{
				Consumer: d.Name, Database: d.Database, Stdout: lines, Ordered: len(d.OrderBy.Columns) > 0, NATS: e.ownNATS(),
			}, d.Settings)
		},
	})
	return nil, nil
}

func (e *Engine) pumpStage() stage.Stage {
	return stage.Stage{Name: "send", Run: e.pumps.Run, Grace: 25 * time.Second}
}

// keptGone remembers beside the consumers' states which destinations want no more.
type keptGone struct{ states *stream.States }

func goneID(consumer string) string { return "destination of " + consumer }

// Load implements [pump.Keep].
func (k keptGone) Load(ctx context.Context, consumer string) (string, error) {
	value, _, err := k.states.Load(ctx, goneID(consumer))
	if errors.Is(err, lockstep.ErrNotFound) {
		return "", nil
	}
	return string(value), err
}

// Save implements [pump.Keep].
func (k keptGone) Save(ctx context.Context, consumer, reason string) error {
	if reason == "" {
		err := k.states.Delete(ctx, goneID(consumer))
		if errors.Is(err, lockstep.ErrNotFound) {
			return nil
		}
		return err
	}
	return replace(ctx, k.states, goneID(consumer), []byte(reason))
}

// observeAttempts counts what is tried for a consumer.
func (e *Engine) observeAttempts(d deliver.Definition) func(pump.Attempt) {
	view := e.metrics.Destination(d.Database, d.Name, pump.Outcomes(), pump.States())
	return func(a pump.Attempt) { view.Attempt(a.Outcome, a.Duration) }
}

// kicked tells the pumps of each change of a consumer at once, and the metrics of its
// end: the next one of its name must not lose its series to it.
type kicked struct {
	api.Broker
	pumps  *pump.Set
	forget func(id string) func()
	using  sync.Locker // no database is deleted while a consumer of it is made
}

// Put implements [api.Broker].
func (k kicked) Put(ctx context.Context, d deliver.Definition) (api.Consumer, error) {
	defer k.pumps.Kick()
	k.using.Lock()
	defer k.using.Unlock()
	return k.Broker.Put(ctx, d)
}

// Remove implements [api.Broker].
func (k kicked) Remove(ctx context.Context, id string) error {
	defer k.pumps.Kick()
	forget := k.forget(id)
	if err := k.Broker.Remove(ctx, id); err != nil {
		return err
	}
	forget()
	return nil
}

// sending gives the API the pumps in its own words.
type sending struct{ pumps *pump.Set }

// Destination implements [api.Sending].
func (s sending) Destination(id string) (api.Destination, bool) {
	p, err := s.pumps.Find(id)
	if err != nil {
		return api.Destination{}, false
	}
	now := p.Status()
	return api.Destination{
		State: string(now.State), Reason: obs.Scrub(now.Reason), Since: now.Since, NextTry: now.NextTry, Delivered: now.Delivered, Failed: now.Failed,
		Writing: now.Writing, Held: now.Held, LastOK: now.LastOK, LastError: now.LastError,
	}, true
}

// Attempts implements [api.Sending].
func (s sending) Attempts(id string, before uint64, limit int, which api.AttemptFilter) ([]api.Attempt, bool) {
	p, err := s.pumps.Find(id)
	if err != nil {
		return nil, false
	}
	only := pump.All
	if which == api.FailedAttempts {
		only = pump.FailedOnly
	}
	found, more := p.Book.List(before, limit, only)
	return attemptsOf(found), more
}

// AttemptsOf implements [api.Sending].
func (s sending) AttemptsOf(id string, seq uint64, limit int) []api.Attempt {
	p, err := s.pumps.Find(id)
	if err != nil {
		return nil
	}
	return attemptsOf(p.Book.Of(seq, limit))
}

func attemptsOf(found []pump.Attempt) []api.Attempt {
	list := make([]api.Attempt, len(found))
	for i, a := range found {
		list[i] = api.Attempt{
			ID: a.ID, At: a.At, Duration: a.Duration, Outcome: a.Outcome, Number: a.Number, Changes: a.Changes, Seqs: a.Seqs,
			Method: a.Method, URL: a.URL, Sent: a.Sent, Status: a.Status, Answer: a.Answer, Error: obs.Scrub(a.Error),
		}
	}
	return list
}

// Test implements [api.Sending].
func (s sending) Test(ctx context.Context, id string) error {
	p, err := s.pumps.Find(id)
	if err != nil {
		return err
	}
	return p.Test(ctx)
}

// sentKinds gives the API the kinds in its own words.
type sentKinds struct{}

// Names implements [api.Kinds].
func (sentKinds) Names() []string { return kinds.Names() }

// Check implements [api.Kinds].
func (sentKinds) Check(kind string, settings json.RawMessage) []deliver.Problem {
	var list []deliver.Problem
	for _, p := range kinds.Check(kind, settings) {
		message := p.Message
		if p.Remedy != "" {
			message += "; " + p.Remedy
		}
		list = append(list, deliver.Problem{Field: p.Field, Message: message})
	}
	return list
}

// Shown implements [api.Kinds].
func (sentKinds) Shown(kind string, settings json.RawMessage) json.RawMessage {
	return kinds.Shown(kind, settings)
}

// Merge implements [api.Kinds].
func (sentKinds) Merge(kind string, old, change json.RawMessage) (json.RawMessage, error) {
	return kinds.Merge(kind, old, change)
}
