package locksteptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fault is one way in which lineSink does not keep the contract.
type fault string

const (
	dropsLast      fault = "says that the last message is delivered, and has not sent it"
	reverses       fault = "sends a batch from its end"
	ignoresContext fault = "does not look at the context"
	closesOnce     fault = "fails when it is closed twice"
	leavesBehind   fault = "leaves a goroutine behind"
	tellsSecret    fault = "has a secret in its errors"
	tellsRecord    fault = "has data in its errors"
	sendsLater     fault = "sends when Write has returned"
	changes        fault = "changes the messages"
	blamesMessage  fault = "takes a broken network for a bad message"
	wrongIndex     fault = "names a message that is not in the batch"
	shortWrite     fault = "returns a short count without an error"
	tooMany        fault = "counts the failed message as delivered"
	blamesAll      fault = "rejects a whole batch for one bad message"
	staysBroken    fault = "does not connect again"
	newIdentity    fault = "gives each attempt an identity of its own"
	overtakes      fault = "goes on with a key behind a change of it that failed"
	blindAck       fault = "does not wait for answers"
	wrongKind      fault = "takes a busy destination for a refusal"
	garbles        fault = "writes values as they are"
)

// caughtBy says which checks must fail for each fault.
func caughtBy() map[fault][]string {
	return map[fault][]string{
		dropsLast:      {"what is written arrives", "each key keeps its order"},
		reverses:       {"each key keeps its order", "different keys are written at the same time"},
		ignoresContext: {"a context ends a call within a second"},
		closesOnce:     {"closing twice is closing"},
		leavesBehind:   {"what is written arrives"},
		tellsSecret:    {"a destination that is away comes back"},
		tellsRecord:    {"a destination that is away comes back"},
		sendsLater:     {"what is written arrives"},
		changes:        {"what is written arrives"},
		blamesMessage:  {"a destination that is away comes back", "a connection cut on the way there", "a connection cut on the way back"},
		wrongIndex:     {"a bad message holds no other"},
		shortWrite:     {"a bad message holds no other"},
		tooMany:        {"a bad message holds no other"},
		blamesAll:      {"a bad message holds no other"},
		staysBroken:    {"a destination that is away comes back"},
		newIdentity:    {"what comes again has the effect of one"},
		overtakes:      {"a connection cut on the way there"},
		blindAck:       {"a connection cut on the way there"},
		wrongKind:      {"errors are of the right kind"},
		garbles:        {"odd and large values arrive"},
	}
}

// misbehave takes the place of Write, or prepares for it.
func (s *lineSink) misbehave(ctx context.Context, messages []sink.Message) (n int, err error, done bool) {
	honest := &lineSink{address: s.address, conn: s.conn, in: s.in, closed: s.closed}
	defer func() { s.conn, s.in = honest.conn, honest.in }()
	send := func(list []sink.Message) (int, error) { return honest.Write(ctx, list) }
	switch s.broken {
	case dropsLast:
		n, err = send(messages[:max(len(messages)-1, 0)])
		return n + min(1, len(messages)), err, true
	case reverses:
		list := slices.Clone(messages)
		slices.Reverse(list)
		n, err = send(list)
		return n, err, true
	case ignoresContext:
		n, err = honest.Write(context.WithoutCancel(ctx), messages)
		return n, err, true
	case leavesBehind:
		go func() { <-time.After(time.Second) }()
	case changes:
		for i := range messages {
			messages[i].Body[0] = ' '
		}
	case sendsLater:
		if s.kept = append(s.kept, messages...); len(s.kept) > 3 {
			n, err = send(s.kept)
			s.kept = nil
		}
		return len(messages), err, true
	case newIdentity:
		list := slices.Clone(messages)
		for i := range list {
			list[i].IdempotencyKey = fmt.Sprint(time.Now().UnixNano(), i)
		}
		n, err = send(list)
		return n, err, true
	case garbles:
		list := slices.Clone(messages)
		for i, m := range list {
			list[i].Body = json.RawMessage(bytes.ReplaceAll(m.Body, []byte("%"), []byte("")))
		}
		n, err = send(list)
		return n, err, true
	case blindAck:
		for _, m := range messages {
			if honest.connect(ctx) == nil {
				l, _ := json.Marshal(line{Seq: m.Seq, Key: m.PKs, ID: m.IdempotencyKey, Bad: m.Database == "bad", Body: m.Body})
				_, _ = honest.conn.Write(append(l, '\n'))
			}
		}
		return len(messages), nil, true
	case closesOnce:
	default:
		n, err = s.misreport(ctx, honest, messages)
		return n, err, true
	}
	return 0, nil, false
}

// misreport sends as it should be and says something else about it.
func (s *lineSink) misreport(ctx context.Context, honest *lineSink, messages []sink.Message) (int, error) {
	if s.broken == overtakes {
		return overtake(ctx, honest, messages)
	}
	if s.broken == staysBroken && len(s.kept) > 0 {
		return 0, &sink.Error{Kind: sink.Retry, Message: "the connection is broken"}
	}
	n, err := honest.Write(ctx, messages)
	if err == nil {
		return n, nil
	}
	var partial *sink.PartialError
	isPartial := errors.As(err, &partial)
	switch s.broken {
	case tellsSecret:
		return n, &sink.Error{Kind: kindOf(err), Message: "sign in as hunter2"}
	case tellsRecord:
		return n, fmt.Errorf("%s: %w", messages[n].Body, err)
	case blamesMessage:
		return n, &sink.Error{Kind: sink.Rejected, Message: "no"}
	case wrongKind:
		return n, &sink.Error{Kind: sink.Refused, Message: "no"}
	case staysBroken:
		s.kept = messages[:1]
	case wrongIndex:
		if isPartial {
			partial.Failed[0].Index += len(messages)
		}
	case shortWrite:
		return n, nil
	case tooMany:
		return len(messages), err
	case blamesAll:
		if isPartial {
			for i := range messages {
				partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: partial.Failed[0].Err})
			}
			partial.Failed = partial.Failed[len(partial.Failed)-len(messages):]
			return 0, err
		}
	}
	return n, err
}

func overtake(ctx context.Context, honest *lineSink, messages []sink.Message) (int, error) {
	var partial sink.PartialError
	for i, m := range messages {
		if err := honest.send(ctx, m); err != nil {
			partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: err})
		}
	}
	if len(partial.Failed) > 0 {
		return partial.Failed[0].Index, &partial
	}
	return len(messages), nil
}

func TestEachFaultIsCaught(t *testing.T) {
	t.Parallel()
	for broken, names := range caughtBy() {
		t.Run(string(broken), func(t *testing.T) {
			t.Parallel()
			target := newLedger(t).target(broken)
			target.Patience = 400 * time.Millisecond
			s := newSuite(target)
			for _, name := range names {
				at := slices.IndexFunc(s.checks(), func(c check) bool { return c.name == name })
				if at < 0 {
					t.Fatalf("there is no check %q", name)
				}
				r := &recorder{TB: t}
				r.try(s.checks()[at].run)
				if !r.Failed() {
					t.Errorf("%q passes", name)
				}
				t.Logf("%s: %.200s", name, strings.Join(r.said, " | "))
			}
		})
	}
}

// recorder is a testing.TB that fails alone.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failed   bool
	said     []string
	cleanups []func()
}

// try runs a check as a test of its own.
func (r *recorder) try(check func(testing.TB)) {
	var one sync.WaitGroup
	one.Go(func() { check(r) })
	one.Wait()
	for _, f := range slices.Backward(r.cleanups) {
		one.Go(f)
		one.Wait()
	}
}

func (r *recorder) Helper() {}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }
