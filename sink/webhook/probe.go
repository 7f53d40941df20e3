package webhook

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"lockstep"
	"lockstep/sink"
)

// testAction is the action of a test event, which is no change.
const testAction = "test"

// Test sends a test event in the endpoint's format: action test, seq 0, and the header
// Lockstep-Test: 1. It returns the attempt; an error is as those of Write. Attempt of
// the configuration is told too.
func (w *Webhook) Test(ctx context.Context) (Attempt, error) {
	if !w.life.enter() {
		return Attempt{}, w.refusal(sink.Retry, "the sink is closed", lockstep.ErrUnavailable)
	}
	defer w.life.leave()
	m := testEvent(time.Now().UTC())
	aim, err := w.aimAt(m)
	if err != nil {
		return Attempt{}, err
	}
	messages := []sink.Message{m}
	r, err := w.encode(messages, []int{0})
	if err != nil {
		return Attempt{}, err
	}
	var seen Attempt
	r.aim, r.test = aim, &seen
	err = w.exchange(ctx, messages, r).err
	return seen, err
}

func testEvent(now time.Time) sink.Message {
	m := sink.Message{
		Database: testAction, PKs: json.RawMessage(`[]`), IdempotencyKey: "test-" + rand.Text(), CommitTime: now, Attempt: 1,
		Record: json.RawMessage(`{"text":"This is a test event of Lockstep. It stands for no change."}`),
	}
	m.Body = fmt.Appendf(nil, `{"record":%s,"changes":null,"action":%q,"metadata":{"database":null,"table_schema":null,"table_name":null,`+
		`"seq":0,"commit_timestamp":%q,"record_pks":[],"idempotency_key":%q}}`,
		m.Record, testAction, now.Format("2006-01-02T15:04:05.000000Z"), m.IdempotencyKey)
	return m
}
