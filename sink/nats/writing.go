package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/sink"
)

// writing is one call of Write.
type writing struct {
	n        *NATS
	l        *link
	messages []sink.Message
	behind   []int // the next message of the same key; 0: none
	errs     []error
	settled  []bool
	replies  chan reply
	out      map[uint64]int // messages that wait for an acknowledgment, by number
	ready    []int          // messages that may be published
	stopped  error
	writing  atomic.Bool // the library may be blocked by the network
	label    *label
}

func newWriting(n *NATS, l *link, messages []sink.Message) *writing {
	w := &writing{
		n: n, l: l, messages: messages, behind: make([]int, len(messages)), errs: make([]error, len(messages)),
		settled: make([]bool, len(messages)), replies: make(chan reply, len(messages)), out: make(map[uint64]int, n.config.Window), label: newLabel(),
	}
	last := make(map[uint64]int, len(messages))
	for i := range messages {
		key := messages[i].Key
		if before, ok := last[key]; ok {
			w.behind[before] = i
		} else {
			w.ready = append(w.ready, i)
		}
		last[key] = i
	}
	return w
}

// release takes back what still waits: its replies are nobody's.
func (w *writing) release() {
	for number := range w.out {
		w.l.forget(number)
	}
}

// run publishes and waits. An error is about all that is not settled, and about the
// connection.
func (w *writing) run(ctx context.Context) error {
	// A write into a network that takes nothing ends with its connection only.
	defer context.AfterFunc(ctx, func() {
		if w.writing.Load() {
			w.l.abort()
		}
	})()
	silence := time.NewTimer(w.n.config.AckTimeout)
	defer silence.Stop()
	for len(w.ready) > 0 || len(w.out) > 0 {
		for len(w.ready) > 0 && len(w.out) < w.n.config.Window {
			i := w.ready[0]
			w.ready = w.ready[1:]
			if w.stopped = w.publish(ctx, i); w.stopped != nil {
				return w.broken()
			}
		}
		select {
		case r := <-w.replies:
			w.heard(r)
			silence.Reset(w.n.config.AckTimeout)
		case <-w.l.lost:
			w.stopped = w.n.refusal(sink.Retry, "the connection broke", nil)
			return w.stopped
		case <-ctx.Done():
			w.stopped = w.n.refusal(sink.Retry, "interrupted", context.Cause(ctx))
			return nil
		case <-silence.C:
			w.stopped = w.n.refusal(sink.Retry, "nothing was acknowledged within "+w.n.config.AckTimeout.String(), nil)
			return w.stopped
		}
	}
	return nil
}

// broken returns what stopped the call when it is about the connection.
func (w *writing) broken() error {
	if w.l.nc.IsClosed() {
		return w.stopped
	}
	return nil
}

// publish publishes a message, or rejects it. An error concerns all.
func (w *writing) publish(ctx context.Context, i int) error {
	m := &w.messages[i]
	to, err := w.n.aim(m)
	if err != nil {
		w.fail(i, err)
		return nil
	}
	if err := w.stream(ctx, to.stream, m); err != nil {
		return err
	}
	w.writing.Store(true)
	defer w.writing.Store(false)
	if ctx.Err() != nil {
		return w.n.refusal(sink.Retry, "interrupted", context.Cause(ctx))
	}
	// The library copies the message before it returns.
	number, err := w.l.publish(&natsgo.Msg{Subject: to.subject, Header: w.label.of(to.stream, m), Data: m.Body}, w.replies)
	switch {
	case errors.Is(err, natsgo.ErrMaxPayload):
		w.fail(i, w.n.refusal(sink.Rejected, fmt.Sprintf("the message is larger than the server takes (%d bytes)", w.l.nc.MaxPayload()), nil))
		return nil
	case errors.Is(err, natsgo.ErrBadSubject):
		w.fail(i, w.n.refusal(sink.Rejected, "the change gives no valid subject", nil))
		return nil
	case err != nil:
		return w.n.refusal(sink.Retry, "the connection broke", nil)
	}
	w.out[number] = i
	return nil
}

// heard settles a message and goes on with its key.
func (w *writing) heard(r reply) {
	i, ok := w.out[r.number]
	if !ok {
		return
	}
	delete(w.out, r.number)
	if err := w.n.judge(w.l, r); err != nil {
		w.fail(i, err)
		return
	}
	w.settled[i] = true
	if next := w.behind[i]; next > 0 {
		w.ready = append(w.ready, next)
	}
}

// fail settles a message that failed, and holds back those behind it.
func (w *writing) fail(i int, err error) {
	w.errs[i], w.settled[i] = err, true
	for next := w.behind[i]; next > 0; next = w.behind[next] {
		w.errs[next] = w.n.refusal(sink.Retry, "an earlier change of its key was not delivered", nil)
		w.settled[next] = true
	}
}

// judge says what a reply means.
func (n *NATS) judge(l *link, r reply) error {
	switch {
	case r.status == "denied":
		return n.refusal(sink.Refused, "it does not let us publish: check the permissions of the user", nil)
	case r.status != "":
		l.unknow() // the stream may have been deleted
		return n.refusal(sink.Retry, "no stream takes the subject, or JetStream is not available now", nil)
	case r.bad:
		return n.refusal(sink.Refused, "the answer is no acknowledgment: something else listens on the subject", nil)
	case r.ack.Error == nil:
		return nil
	}
	code := r.ack.Error.ErrCode
	text := fmt.Sprintf("JetStream refuses the message (err_code %d)", code)
	switch {
	case code == 10054 || code == 10097:
		return n.refusal(sink.Rejected, "the message is larger than the stream takes", nil)
	case code == 10060:
		return n.refusal(sink.Refused, "another stream takes the subject: name it in stream", nil)
	case code == 10077 || code == 10023 || code == 10047:
		return n.refusal(sink.Retry, "the stream is full", nil)
	case r.ack.Error.Code >= 500:
		return n.refusal(sink.Retry, text, nil)
	}
	return n.refusal(sink.Refused, text, nil)
}

// unknow makes the next message look for its stream again.
func (l *link) unknow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.streams)
}

// stream looks for a stream, and makes it when it is missing.
func (w *writing) stream(ctx context.Context, name string, m *sink.Message) error {
	w.l.mu.Lock()
	known := w.l.streams[name]
	w.l.mu.Unlock()
	if known || w.n.config.Create == Never {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.n.config.AckTimeout)
	defer cancel()
	_, err := w.l.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = w.l.js.CreateStream(ctx, w.n.streamConfig(name, m))
	}
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return w.n.judgeStream(ctx, name, err)
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.streams[name] = true
	return nil
}

func (n *NATS) streamConfig(name string, m *sink.Message) jetstream.StreamConfig {
	c := n.config
	config := jetstream.StreamConfig{
		Name: name, Description: "Changes, by Lockstep", Subjects: n.subjects(m), Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: c.Age, MaxBytes: c.Bytes, Replicas: c.Replicas, Duplicates: c.Duplicates, AllowDirect: true, Storage: jetstream.FileStorage,
	}
	if c.Storage == Memory {
		config.Storage = jetstream.MemoryStorage
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = -1
	}
	if c.Age > 0 && c.Duplicates > c.Age {
		config.Duplicates = c.Age
	}
	return config
}

// judgeStream says why there is no stream.
func (n *NATS) judgeStream(ctx context.Context, name string, err error) error {
	var api *jetstream.APIError
	switch {
	case ctx.Err() != nil:
		return n.refusal(sink.Retry, "look for the stream "+name+": no answer in time", context.Cause(ctx))
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return n.refusal(sink.Refused, "JetStream is not enabled", nil)
	case errors.As(err, &api) && api.Code >= 400 && api.Code < 500, errors.Is(err, jetstream.ErrInvalidStreamName):
		text := "the stream " + name + " cannot be made"
		if api != nil {
			text += fmt.Sprintf(" (err_code %d)", api.ErrorCode)
			if strings.Contains(api.Description, "overlap") {
				text += ": another stream has its subjects: name that in stream"
			}
		}
		return n.refusal(sink.Refused, text, nil)
	}
	return n.refusal(sink.Retry, "look for the stream "+name+": JetStream is not available now", nil)
}

// result is what Write returns.
func (w *writing) result() (int, error) {
	first, whole := len(w.messages), true
	partial := &sink.PartialError{}
	for i := range w.messages {
		err := w.errs[i]
		if !w.settled[i] {
			err = w.stopped
		}
		if err == nil {
			whole = whole && first == len(w.messages)
			continue
		}
		first = min(first, i)
		whole = whole && !w.settled[i]
		partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: err})
	}
	switch {
	case first == len(w.messages):
		return first, nil
	case whole:
		return first, w.stopped
	}
	return first, partial
}
