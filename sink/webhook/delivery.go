package webhook

import (
	"context"
	"errors"

	"lockstep/sink"
)

// delivery is one call of Write.
type delivery struct {
	w        *Webhook
	messages []sink.Message
	failed   []sink.Failure      // ascending
	held     map[uint64]struct{} // keys of which a change failed
}

// run sends everything it can. An error that is about one change holds back the later
// ones of its key; any other ends the call, since the next request would meet it too.
func (d *delivery) run(ctx context.Context) (int, error) {
	for at := 0; at < len(d.messages); {
		if d.isHeld(at) {
			at++
			continue
		}
		r, next := d.gather(at)
		at = next
		if r == nil {
			continue // the change failed before it was sent
		}
		if stop, err := d.send(ctx, r); err != nil {
			return d.stopped(stop, err)
		}
	}
	return d.outcome()
}

// outcome is what Write returns when every change was tried.
func (d *delivery) outcome() (int, error) {
	switch {
	case len(d.failed) == 0:
		return len(d.messages), nil
	case len(d.messages) == 1:
		return 0, d.failed[0].Err
	}
	return d.failed[0].Index, &sink.PartialError{Failed: d.failed}
}

// stopped is what Write returns when it ended at a change: those behind it were not
// sent, or what became of them is not known.
func (d *delivery) stopped(at int, err error) (int, error) {
	if len(d.failed) == 0 {
		return at, err
	}
	for ; at < len(d.messages); at++ {
		d.failed = append(d.failed, sink.Failure{Index: at, Err: err})
	}
	return d.outcome()
}

func (d *delivery) fail(at int, err error) {
	if d.held == nil {
		d.held = map[uint64]struct{}{}
	}
	d.held[d.messages[at].Key] = struct{}{}
	d.failed = append(d.failed, sink.Failure{Index: at, Err: err})
}

// isHeld fails a change of a key of which an earlier one failed.
func (d *delivery) isHeld(at int) bool {
	_, held := d.held[d.messages[at].Key]
	if held {
		d.fail(at, &sink.Error{Kind: sink.Retry, Message: "webhook " + d.w.name + ": an earlier change of its key was not delivered"})
	}
	return held
}

// request is what is sent at once.
type request struct {
	aim     aim
	indexes []int // of the messages, ascending
	id      string
	body    []byte
	room    []byte            // where the body lies, when it was made here; nil: it is the message's
	kind    string            // of the body, as Content-Type
	header  map[string]string // what else the format has; nil: nothing
	attempt int
	test    *Attempt // not nil: a test event, and where its attempt goes
}

// gather makes the request that begins with a change: its neighbours join as far as the
// format, their aim and MaxBody allow. It returns nil when that change cannot be sent,
// and where to go on.
func (d *delivery) gather(at int) (*request, int) {
	first, err := d.w.aimAt(d.messages[at])
	if err != nil {
		d.fail(at, err)
		return nil, at + 1
	}
	indexes := []int{at}
	next := at + 1
	for ; next < len(d.messages) && d.w.config.Format.batches(); next++ {
		if _, held := d.held[d.messages[next].Key]; held {
			break
		}
		if d.w.aims() {
			a, err := d.w.aimAt(d.messages[next])
			if err != nil || !a.equal(first) {
				break
			}
		}
		indexes = append(indexes, next)
	}
	r, err := d.w.encode(d.messages, indexes)
	if err != nil {
		d.fail(at, err)
		return nil, at + 1
	}
	r.aim = first
	return r, r.indexes[len(r.indexes)-1] + 1
}

// send sends a request. Its error ends the call at the message that it returns.
func (d *delivery) send(ctx context.Context, r *request) (stop int, err error) {
	answer := d.w.exchange(ctx, d.messages, r)
	var refused *sink.Error
	switch {
	case answer.err == nil:
		d.spread(r, answer.failed)
		return 0, nil
	case !errors.As(answer.err, &refused) || refused.Kind != sink.Rejected:
		return r.indexes[0], answer.err
	case len(r.indexes) == 1:
		d.fail(r.indexes[0], answer.err)
		return 0, nil
	}
	// One of them is rejected, and the endpoint does not say which.
	half := len(r.indexes) / 2
	for _, part := range [][]int{r.indexes[:half], r.indexes[half:]} {
		if stop, err := d.resend(ctx, r.aim, part); err != nil {
			return stop, err
		}
	}
	return 0, nil
}

// resend sends a part of a rejected batch, without the keys that failed meanwhile.
func (d *delivery) resend(ctx context.Context, a aim, part []int) (stop int, err error) {
	var rest []int
	for _, i := range part {
		if !d.isHeld(i) {
			rest = append(rest, i)
		}
	}
	if len(rest) == 0 {
		return 0, nil
	}
	r, err := d.w.encode(d.messages, rest)
	if err != nil || len(r.indexes) != len(rest) {
		return rest[0], d.w.refusal(sink.Retry, "the part of a batch does not fit", err) // smaller than what did fit
	}
	r.aim = a
	return d.send(ctx, r)
}

// spread fails the messages that an answer names, and the later ones of their keys.
func (d *delivery) spread(r *request, named map[int]bool) {
	if len(named) == 0 {
		return
	}
	for _, i := range r.indexes {
		if named[i] {
			d.fail(i, &sink.Error{Kind: sink.Retry, Message: "webhook " + d.w.name + ": the answer names the change as failed"})
			continue
		}
		d.isHeld(i)
	}
}
