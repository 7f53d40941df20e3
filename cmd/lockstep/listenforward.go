package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/sink"
	"lockstep/sink/webhook"
)

const (
	listenBatch = 100
	// listenWait is how long one call waits for changes. It is not interrupted: an answer
	// that nobody hears would leave its changes out until their lease ends.
	listenWait = time.Second
	// After an interrupt a delivery that is under way has this long, and all that the node
	// is to be told has more.
	deliverGrace, settleGrace = 3 * time.Second, 10 * time.Second
	// ackEvery is how long a delivered change waits for others to be acked with.
	ackEvery = 200 * time.Millisecond

	firstPause, lastPause = 500 * time.Millisecond, 10 * time.Second
)

// forwarder hands changes of a consumer to a program, one after the other, in the order
// in which they are handed out. It is used by one goroutine.
type forwarder struct {
	remote   *client.Client
	consumer string
	to       *webhook.Webhook
	show     func(forwarded) error
	note     func(format string, args ...any)
	timeout  time.Duration // of one delivery

	attempt  webhook.Attempt // of the delivery that is under way
	acks     []string        // delivered and not acked
	acked    time.Time       // when the last were
	extended time.Time       // when leases were made longer
	pause    time.Duration   // the last one; 0: all is well
	lost     bool            // the node gives no answer

	delivered, failed int
}

// forwarded is what became of a delivery.
type forwarded struct {
	change *client.Delivery
	at     time.Time
	took   time.Duration
	status int // of HTTP; 0: there was no answer
	err    error
}

// run forwards until ctx ends, and then returns nil. Whatever is out is settled or
// given back when it returns.
func (f *forwarder) run(ctx context.Context) error {
	calm, stop := outlasting(ctx, settleGrace)
	defer stop()
	for ctx.Err() == nil {
		batch, err := f.remote.Next(calm, f.consumer, listenBatch, listenWait)
		if err == nil {
			f.lost = false
			err = f.forward(ctx, calm, batch.Deliveries)
		} else {
			err = f.tolerate(ctx, err, "take changes of consumer "+f.consumer)
		}
		if err != nil && calm.Err() == nil {
			return err
		}
	}
	return nil
}

// outlasting returns a context that ends a while after ctx.
func outlasting(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	calm, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(calm, func() { timer.Stop() })
	})
	return calm, func() { stop(); cancel() }
}

// forward delivers a batch. What it could not deliver is given back.
func (f *forwarder) forward(ctx, calm context.Context, list []client.Delivery) (err error) {
	f.extended = time.Time{}
	for len(list) > 0 && ctx.Err() == nil && err == nil {
		if list, err = f.keep(calm, list); err != nil || len(list) == 0 {
			break
		}
		result := f.deliver(ctx, &list[0])
		shown := f.show(result)
		list, err = f.settle(ctx, calm, list, result.err)
		err = errors.Join(shown, err)
	}
	err = errors.Join(err, f.ack(calm))
	return errors.Join(err, f.release(calm, list))
}

// deliver sends one change.
func (f *forwarder) deliver(ctx context.Context, d *client.Delivery) forwarded {
	ctx, stop := outlasting(ctx, deliverGrace)
	defer stop()
	f.attempt = webhook.Attempt{At: time.Now()}
	m, err := messageOf(d)
	if err == nil {
		_, err = f.to.Write(ctx, []sink.Message{m})
	}
	return forwarded{change: d, at: f.attempt.At, took: f.attempt.Duration, status: f.attempt.Status, err: err}
}

// settle draws the conclusions from the delivery of the first of list, and returns what
// is left to do.
func (f *forwarder) settle(ctx, calm context.Context, list []client.Delivery, err error) ([]client.Delivery, error) {
	if err == nil {
		f.delivered++
		f.pause = 0
		f.acks = append(f.acks, list[0].Token)
		if time.Since(f.acked) < ackEvery {
			return list[1:], nil
		}
		return list[1:], f.ack(calm)
	}
	if ctx.Err() != nil {
		return list, nil // it was interrupted
	}
	f.failed++
	kind, after := sink.Retry, time.Duration(0)
	if refused, ok := errors.AsType[*sink.Error](err); ok {
		kind, after = refused.Kind, refused.After
	}
	unheard := f.attempt.Status == 0 && kind == sink.Retry && f.attempt.Duration < f.timeout
	switch {
	case kind == sink.Gone:
		return list, fmt.Errorf("the program wants no more: %w", err)
	case kind == sink.Throttled, kind == sink.Refused, unheard:
		// The change is not at fault, and the next one would meet the same.
		if err := errors.Join(f.ack(calm), f.release(calm, list)); err != nil {
			return nil, err
		}
		return nil, f.wait(ctx, after)
	}
	nack := client.Nack{Delay: after, Reason: err.Error()}
	if err := f.tolerate(ctx, f.remote.Nack(calm, f.consumer, nack, list[0].Token), "give back a change"); err != nil {
		return list[1:], err
	}
	f.extended = time.Time{} // the nack took with it what is to come after this one
	return list[1:], nil
}

// keep makes leases longer before they end, and returns what is still ours: a nack takes
// with it the later changes of its key.
func (f *forwarder) keep(ctx context.Context, list []client.Delivery) ([]client.Delivery, error) {
	if time.Since(f.extended) < f.timeout {
		return list, nil
	}
	f.extended = time.Now()
	err := f.remote.Extend(ctx, f.consumer, 3*f.timeout+30*time.Second, tokensOf(client.Batch{Deliveries: list})...)
	problem, ok := errors.AsType[*client.Problem](err)
	if !ok || len(problem.Stale) == 0 {
		return list, f.tolerate(ctx, err, "hold changes")
	}
	stale := map[string]bool{}
	for _, token := range problem.Stale {
		stale[token] = true
	}
	var ours []client.Delivery
	for _, d := range list {
		if !stale[d.Token] {
			ours = append(ours, d)
		}
	}
	return ours, nil
}

// ack settles what was delivered.
func (f *forwarder) ack(ctx context.Context) error {
	if len(f.acks) == 0 {
		return nil
	}
	tokens := f.acks
	f.acks, f.acked = nil, time.Now()
	err := f.remote.Ack(ctx, f.consumer, tokens...)
	if problem, ok := errors.AsType[*client.Problem](err); ok && len(problem.Stale) > 0 {
		f.note("lockstep: %d delivered changes come again: the ack came too late", len(problem.Stale))
		return nil
	}
	return f.tolerate(ctx, err, "ack changes")
}

// release gives back what was not tried.
func (f *forwarder) release(ctx context.Context, list []client.Delivery) error {
	if len(list) == 0 {
		return nil
	}
	err := f.remote.Nack(ctx, f.consumer, client.Nack{Release: true}, tokensOf(client.Batch{Deliveries: list})...)
	return f.tolerate(ctx, err, "give back changes")
}

// tolerate waits a while when the node gives no answer: what is out is handed out again
// when its lease ends. A change that is no longer ours is no error.
func (f *forwarder) tolerate(ctx context.Context, err error, doing string) error {
	problem, answered := errors.AsType[*client.Problem](err)
	switch {
	case err == nil, answered && len(problem.Stale) > 0:
		return nil
	case !errors.Is(err, lockstep.ErrUnavailable):
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !f.lost {
		f.note("lockstep: %s; going on when it is back", reason(err))
	}
	f.lost = true
	return f.wait(ctx, 0)
}

// wait pauses, longer each time, and at least as long as it was asked for.
func (f *forwarder) wait(ctx context.Context, least time.Duration) error {
	f.pause = min(max(2*f.pause, firstPause), lastPause)
	timer := time.NewTimer(max(f.pause, least))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// messageOf makes of a delivery what the node sends to consumers of kind webhook.
func messageOf(d *client.Delivery) (sink.Message, error) {
	action, err := lockstep.ParseAction(d.Action)
	if err != nil {
		return sink.Message{}, &sink.Error{Kind: sink.Rejected, Message: "this version of lockstep does not know the action " + d.Action, Err: err}
	}
	m := sink.Message{
		Seq: d.Metadata.Seq, Action: action, Database: d.Metadata.Database, Schema: d.Metadata.TableSchema, Table: d.Metadata.TableName,
		IdempotencyKey: d.Metadata.IdempotencyKey, CommitTime: d.Metadata.CommitTime(), Attempt: d.Attempt, Record: orNull(d.Record),
	}
	m.PKs = []byte("[")
	for i, pk := range d.Metadata.RecordPKs {
		if i > 0 {
			m.PKs = append(m.PKs, ',')
		}
		m.PKs = lockstep.AppendJSONString(m.PKs, pk)
	}
	m.PKs = append(m.PKs, ']')
	m.Body = append(m.Body, `{"record":`...)
	m.Body = append(m.Body, m.Record...)
	m.Body = append(append(m.Body, `,"changes":`...), orNull(d.Changes)...)
	m.Body = lockstep.AppendJSONString(append(m.Body, `,"action":`...), d.Action)
	m.Body = append(append(m.Body, `,"metadata":`...), d.Metadata.Raw...)
	m.Body = append(m.Body, '}')
	return m, nil
}

func orNull(value json.RawMessage) json.RawMessage {
	if len(value) == 0 {
		return json.RawMessage("null")
	}
	return value
}
