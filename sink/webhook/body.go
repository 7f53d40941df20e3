package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"lockstep/sink"
)

const (
	typeJSON       = "application/json"
	typeStructured = "application/cloudevents+json; charset=utf-8"
	typeBatch      = "application/cloudevents-batch+json; charset=utf-8"
)

// batches says whether several changes fit into one request.
func (f Format) batches() bool { return f == Lockstep || f == Plain || f == CloudEventsBatch }

// encode makes the body of as many of the changes as fit, at least of the first.
func (w *Webhook) encode(messages []sink.Message, indexes []int) (*request, error) {
	r := &request{indexes: indexes, kind: typeJSON}
	var err error
	if len(indexes) == 1 && w.config.Format != CloudEventsBatch {
		err = w.encodeOne(r, messages[indexes[0]])
	} else {
		err = w.encodeAll(r, messages)
	}
	if err != nil {
		return nil, err
	}
	if len(r.body) > w.config.MaxBody {
		return nil, w.refusal(sink.Rejected, fmt.Sprintf("the change is a body of %d bytes, and the largest allowed has %d", len(r.body), w.config.MaxBody), nil)
	}
	r.id = identity(messages, r.indexes)
	for _, i := range r.indexes {
		r.attempt = max(r.attempt, messages[i].Attempt)
	}
	return r, nil
}

func (w *Webhook) encodeOne(r *request, m sink.Message) error {
	switch w.config.Format {
	case Plain:
		r.body = orNull(m.Record)
		r.header = map[string]string{headerAction: actionOf(m)}
	case CloudEvents:
		e, err := w.event(m)
		if err != nil {
			return err
		}
		r.header = e.headers()
		r.body = m.Body
	case CloudEventsStructured:
		e, err := w.event(m)
		if err != nil {
			return err
		}
		r.kind = typeStructured
		r.body = e.appendJSON(nil, m.Body)
	case Lockstep, CloudEventsBatch:
		r.body = m.Body
	}
	return nil
}

// encodeAll makes the list. What no longer fits is left to the next request.
func (w *Webhook) encodeAll(r *request, messages []sink.Message) error {
	open, end := "[", "]"
	switch w.config.Format {
	case Lockstep:
		open, end = `{"data":[`, `]}`
	case CloudEventsBatch:
		r.kind = typeBatch
	case Plain, CloudEvents, CloudEventsStructured:
	}
	size := len(open) + len(end)
	for _, i := range r.indexes {
		size += len(messages[i].Body) + 1
	}
	r.room = w.room(min(size, w.config.MaxBody+1))
	body := append(r.room, open...)
	for n, i := range r.indexes {
		before := len(body)
		if n > 0 {
			body = append(body, ',')
		}
		var err error
		if body, err = w.appendItem(body, messages[i]); err != nil {
			if n == 0 {
				return err
			}
			body = body[:before]
			r.indexes = r.indexes[:n]
			break
		}
		if n > 0 && len(body)+len(end) > w.config.MaxBody {
			body = body[:before]
			r.indexes = r.indexes[:n]
			break
		}
	}
	if len(r.indexes) == 1 && w.config.Format != CloudEventsBatch {
		return w.encodeOne(r, messages[r.indexes[0]])
	}
	r.body = append(body, end...)
	return nil
}

// room returns an empty slice, with room for so many bytes.
func (w *Webhook) room(size int) []byte {
	if old, ok := w.rooms.Get().(*[]byte); ok && cap(*old) >= size {
		return (*old)[:0]
	}
	return make([]byte, 0, size)
}

// largestRoom is the largest room that is kept for later bodies.
const largestRoom = 1 << 20

// done gives back what a request's body was made in. Nobody reads it any more.
func (w *Webhook) done(r *request) {
	if r.room != nil && cap(r.room) <= largestRoom {
		w.rooms.Put(&r.room)
	}
	r.body = nil
}

func (w *Webhook) appendItem(dst []byte, m sink.Message) ([]byte, error) {
	switch w.config.Format {
	case Plain:
		return append(dst, orNull(m.Record)...), nil
	case CloudEventsBatch:
		e, err := w.event(m)
		if err != nil {
			return dst, err
		}
		return e.appendJSON(dst, m.Body), nil
	case Lockstep, CloudEvents, CloudEventsStructured:
	}
	return append(dst, m.Body...), nil
}

func actionOf(m sink.Message) string {
	if m.Action == 0 {
		return testAction
	}
	return m.Action.String()
}

func orNull(record []byte) []byte {
	if len(record) == 0 {
		return []byte("null")
	}
	return record
}

// identity is the id of a request: equal when the same changes are sent again.
func identity(messages []sink.Message, indexes []int) string {
	if len(indexes) == 1 {
		return messages[indexes[0]].IdempotencyKey
	}
	h := sha256.New()
	for _, i := range indexes {
		_, _ = io.WriteString(h, messages[i].IdempotencyKey)
		_, _ = h.Write([]byte{'\n'})
	}
	return "batch-" + hex.EncodeToString(h.Sum(nil)[:16])
}
