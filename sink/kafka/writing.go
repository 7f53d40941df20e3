package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"lockstep/sink"
)

// writing is one call of Write.
type writing struct {
	k        *Kafka
	messages []sink.Message
	errs     []error
	done     []bool          // Kafka has it
	failed   map[uint64]bool // keys of which a change was not sent
	dragged  []int           // given up with records of another call
	stopped  error           // of all that is not done
}

// outcome is what became of a record.
type outcome struct {
	index int
	topic string
	err   error
	early bool // its context had not ended
}

// run sends all records and waits for what becomes of them; a second time those that
// the client gave up together with records of a call whose context has ended.
func (w *writing) run(ctx context.Context) {
	w.done = make([]bool, len(w.messages))
	// The client's own limit for records counts from their timestamps, which are the commits'.
	sending, cancel := context.WithTimeout(ctx, w.k.config.Timeout)
	defer cancel()
	list := make([]int, len(w.messages))
	for i := range list {
		list[i] = i
	}
	for range 2 {
		w.dragged = nil
		outcomes := make(chan outcome, len(list)) // has room for all: the client does not wait for us
		w.wait(ctx, outcomes, w.send(sending, list, outcomes))
		if len(w.dragged) == 0 || w.stopped != nil || sending.Err() != nil {
			return
		}
		slices.Sort(w.dragged)
		list = w.dragged
	}
}

// send hands records to the client, and returns how many.
func (w *writing) send(ctx context.Context, list []int, outcomes chan<- outcome) (out int) {
	shelf := newShelf(w.k, w.messages, list)
	defer w.k.begin(ctx)
	for _, i := range list {
		m := &w.messages[i]
		if w.failed[m.Key] {
			w.errs[i] = w.k.refusal(sink.Retry, "an earlier change of its key was not delivered", nil)
			continue
		}
		r, err := w.fitting(ctx, shelf, m)
		if rejected(err) {
			w.errs[i], w.failed[m.Key] = err, true
			continue
		}
		if err != nil {
			w.stopped = err
			return out
		}
		out++
		w.errs[i] = nil
		w.k.client.Produce(ctx, r, func(r *kgo.Record, err error) { outcomes <- outcome{i, r.Topic, err, ctx.Err() == nil} })
	}
	return out
}

// wait waits for what becomes of so many records. When their time is up the client
// gives up those that are not on their way, and the rest with their request.
func (w *writing) wait(ctx context.Context, outcomes <-chan outcome, out int) {
	late := time.NewTimer(w.k.config.Timeout + 2*w.k.config.request())
	defer late.Stop()
	for ; out > 0; out-- {
		select {
		case o := <-outcomes:
			w.heard(ctx, o)
			continue
		case <-late.C:
			w.stopped = w.k.refusal(sink.Retry, "not acknowledged within "+w.k.config.Timeout.String(), nil)
		case <-ctx.Done():
			w.stopped = w.k.refusal(sink.Retry, "interrupted", context.Cause(ctx))
		}
		// Those under way may arrive all the same: they come again, behind these.
		return
	}
}

func rejected(err error) bool {
	var e *sink.Error
	return errors.As(err, &e) && e.Kind == sink.Rejected
}

// fitting makes the record of a message, if its topic takes it.
func (w *writing) fitting(ctx context.Context, s *shelf, m *sink.Message) (*kgo.Record, error) {
	if err := s.turn(ctx, m); err != nil {
		return nil, err
	}
	r := s.record(m)
	if size(r) > s.limit {
		return nil, w.k.refusal(sink.Rejected, fmt.Sprintf("the change is larger than the topic %s takes (%d bytes)", s.topic, s.limit), nil)
	}
	return r, nil
}

// begin has the client send what waits for company, unless it was told how long to
// wait: of a call all records are there.
func (k *Kafka) begin(ctx context.Context) {
	if k.config.Linger > 0 {
		return
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	_ = k.client.Flush(over) // it begins with everything, and waits for nothing when its time is over
}

// heard notes what became of a record.
func (w *writing) heard(ctx context.Context, o outcome) {
	if o.err == nil {
		w.done[o.index] = true
		return
	}
	if errors.Is(o.err, kerr.UnknownTopicOrPartition) || errors.Is(o.err, kerr.MessageTooLarge) {
		w.k.forget(o.topic)
	}
	if o.early && (errors.Is(o.err, context.Canceled) || errors.Is(o.err, context.DeadlineExceeded)) {
		w.dragged = append(w.dragged, o.index)
	}
	w.errs[o.index] = w.k.judge(ctx, o.err, "write to "+o.topic)
}

// judge says what an error is about. README.md has the table.
func (k *Kafka) judge(ctx context.Context, err error, what string) error {
	if of, ok := errors.AsType[*kerr.Error](err); ok {
		kind, means := meaning(of)
		return k.refusal(kind, what+": "+means+" ("+of.Message+")", nil)
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var certificate *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil:
		return k.refusal(sink.Retry, what+": no answer in time", context.Cause(ctx))
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &certificate):
		return k.refusal(sink.Refused, what+": the broker's certificate cannot be verified", nil)
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries), errors.Is(err, context.DeadlineExceeded):
		return k.refusal(sink.Retry, what+": not acknowledged within "+k.config.Timeout.String(), nil)
	case errors.Is(err, kgo.ErrClientClosed):
		return k.refusal(sink.Retry, "the sink is closed", nil)
	case errors.Is(err, io.EOF):
		return k.refusal(sink.Retry, what+": a broker hung up: it is going down, or wants TLS or SASL otherwise than configured", nil)
	case strings.Contains(err.Error(), "SASL") || strings.Contains(err.Error(), "sasl"):
		return k.refusal(sink.Refused, what+": the brokers do not let us in: check mechanism, user and password", nil)
	}
	return k.refusal(sink.Retry, what+": the brokers cannot be reached now", nil)
}

// meaning says what an error of Kafka is about: the record, everything, or this moment.
func meaning(err *kerr.Error) (sink.Kind, string) {
	switch err {
	case kerr.MessageTooLarge, kerr.RecordListTooLarge:
		return sink.Rejected, "the change is larger than the topic takes"
	case kerr.InvalidRecord, kerr.InvalidTimestamp:
		return sink.Rejected, "the record is refused"
	case kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed:
		return sink.Refused, "a permission is missing: Write, Describe and, for new topics, Create"
	case kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState:
		return sink.Refused, "the brokers do not let us in: check mechanism, user and password"
	case kerr.InvalidTopicException, kerr.PolicyViolation, kerr.InvalidReplicationFactor, kerr.InvalidPartitions, kerr.InvalidConfig,
		kerr.UnsupportedCompressionType, kerr.UnsupportedForMessageFormat, kerr.SecurityDisabled:
		return sink.Refused, "the cluster does not take it as it is configured"
	case kerr.ThrottlingQuotaExceeded:
		return sink.Throttled, "a quota is used up"
	}
	return sink.Retry, "the brokers cannot take it now"
}

// result is what Write returns.
func (w *writing) result() (int, error) {
	first, whole := len(w.messages), true
	partial := &sink.PartialError{}
	for i := range w.messages {
		err := w.errs[i]
		own := err != nil
		if !own && !w.done[i] {
			err = w.stopped
		}
		if err == nil {
			whole = whole && first == len(w.messages)
			continue
		}
		first = min(first, i)
		whole = whole && !own
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
