package api

import (
	"context"
	"encoding/json"
	"time"

	"lockstep/internal/deliver"
)

// Consumers is the control plane of consumers; [Registry] is one.
type Consumers interface {
	// Find returns the consumer with that id or name. It is cheap: each request calls it.
	Find(idOrName string) (Consumer, error)
	List() []Consumer
	// Create opens a new consumer. Its errors are those of the definition
	// ([deliver.DefinitionError]) and [lockstep.ErrConflict] for a name that is taken.
	Create(ctx context.Context, d deliver.Definition) (Consumer, error)
	// Change replaces the definition of the consumer with that id. Consumers of the
	// configuration give [lockstep.ErrConflict], as do those whose UpdatedAt is not that
	// of d any more.
	Change(ctx context.Context, d deliver.Definition) (Consumer, error)
	Delete(ctx context.Context, id string) error
	// Pause stops handing out, over restarts too, until Resume.
	Pause(ctx context.Context, id string) (Consumer, error)
	Resume(ctx context.Context, id string) (Consumer, error)
}

// Consumer is an open consumer. Errors that wrap [lockstep.ErrInvalid] are the
// caller's fault and changed nothing.
type Consumer interface {
	Definition() deliver.Definition
	Standing() Standing

	// Next hands out up to n changes. With nothing to hand out it waits, until ctx
	// ends or wait is over; then it returns none and no error.
	Next(ctx context.Context, n int, wait time.Duration, holder string) (Handout, error)
	// Ack, Nack and Extend return the tokens that are not valid any more; what the
	// others ask for is durable when they return.
	Ack(ctx context.Context, tokens []string) (stale []string, err error)
	Nack(ctx context.Context, tokens []string, o deliver.NackOptions) (stale []string, err error)
	Extend(ctx context.Context, tokens []string, by time.Duration) (stale []string, err error)

	Switch

	// Seek goes on from a place: now, beginning, seq:42, a time, or 1h.
	Seek(ctx context.Context, to string) error
	// Peek calls each for up to limit changes that Next would hand out, as messages.
	Peek(ctx context.Context, limit int, each func(message []byte) error) error
	// Where tells what became of a change.
	Where(ctx context.Context, seq uint64) (Whereabouts, error)

	// Letters lists dead letters; RetryLetters and DropLetters work on many, as far as
	// one call may, and tell how far they came, also with an error.
	Letters(ctx context.Context, q deliver.LetterQuery) (LetterPage, error)
	RetryLetters(ctx context.Context, w deliver.LetterWork) (deliver.LetterProgress, error)
	DropLetters(ctx context.Context, w deliver.LetterWork) (deliver.LetterProgress, error)
	Letter(ctx context.Context, seq uint64) (Letter, error)
	RetryLetter(ctx context.Context, seq uint64) error
	DropLetter(ctx context.Context, seq uint64) error

	// Replay delivers a change again that is settled or parked, ReplayRange those with
	// seqs from first to last, and ReplayDead the letters written since.
	Replay(ctx context.Context, seq uint64) error
	ReplayRange(ctx context.Context, first, last uint64) (int, error)
	ReplayDead(ctx context.Context, since time.Time) (int, error)
	// SeqAt returns the first seq that was committed at or after a time.
	SeqAt(ctx context.Context, t time.Time) (uint64, error)
}

// Handout is what Next returns: changes in order, ready to be written.
type Handout struct {
	N int
	// Append appends the i-th delivery as a JSON object.
	Append     func(dst []byte, i int) []byte
	Pending    uint64 // changes that wait
	AckPending uint64 // changes handed out and not settled, these included
}

// Standing is how a consumer stands.
type Standing struct {
	Pending       uint64 // not settled and not in flight; an upper bound with a filter
	InFlight      uint64
	Dead          uint64 // letters that wait for a person
	Blocked       uint64 // keys that wait for a person
	FloorSeq      uint64 // everything up to it is settled
	LastSeq       uint64 // the newest change of the log
	OldestUnacked time.Time
	Paused        bool

	Delivered, Redelivered, Acked, Nacked, Expired, Parked uint64 // since the consumer was opened

	Stuck []StuckKey // the worst ones, longest first

	// Reason tells what keeps the consumer from going on; empty: nothing.
	Reason string
}

// Whereabouts tells where a change is with one consumer.
type Whereabouts struct {
	State    string    // settled, in_flight, waiting, blocked, parked, not_matching or ahead
	Attempts int       // that failed
	Reason   string    // why the last one failed, or why it is parked
	Holder   string    // who has it
	Until    time.Time // of the lease or the delay; zero: neither
	Match    string    // yes, filtered, not_selected or failed; empty: unknown
	Fault    string    // with failed: why the filter fails
	Letter   *Letter   // its dead letter; nil: there is none
}

// StuckKey is a key whose later changes wait for one that goes wrong or takes long.
type StuckKey struct {
	Seq      uint64     `json:"seq" doc:"The change that the others wait for"`
	State    string     `json:"state" enum:"in_flight,waiting,blocked,parked"`
	Attempts int        `json:"attempts"`
	ForMS    int64      `json:"for_ms" doc:"How long it has been so"`
	Until    *time.Time `json:"until,omitempty" doc:"When the lease or the delay ends"`
	Reason   string     `json:"reason,omitempty" doc:"Why the last attempt failed"`
	Holder   string     `json:"holder,omitempty" doc:"Who has it: token@address"`
	Behind   uint64     `json:"behind" doc:"How many changes wait for it"`
}

// Letter is a dead letter.
type Letter struct {
	Seq      uint64
	State    string // parked, blocked or retrying
	Reason   string
	Attempts int
	At       time.Time
	Table    string
	PKs      json.RawMessage
	Message  json.RawMessage // as it was delivered
}

// LetterPage is a part of a list of dead letters.
type LetterPage struct {
	Letters []Letter
	Next    uint64 // the cursor of the next page; 0: there is none
	Looked  int    // letters that were looked at
	Stopped bool   // it ended before it was full
}

// ConsumerStatsView is how a consumer stands, as the API shows it.
type ConsumerStatsView struct {
	Pending       uint64     `json:"num_pending" doc:"Changes that are not settled and not in flight; an upper bound with a filter"`
	InFlight      uint64     `json:"num_ack_pending" doc:"Changes handed out and not settled"`
	Dead          uint64     `json:"dead" doc:"Dead letters that wait for a person"`
	Blocked       uint64     `json:"blocked_keys" doc:"Keys that wait for a person"`
	FloorSeq      uint64     `json:"floor_seq" doc:"Everything up to this change is settled"`
	LastSeq       uint64     `json:"last_seq" doc:"The newest change of the database"`
	OldestUnacked *time.Time `json:"oldest_unacked_at" doc:"Commit time of the oldest change that is not settled"`
	Delivered     uint64     `json:"delivered" doc:"This and the following: since the node started"`
	Redelivered   uint64     `json:"redelivered"`
	Acked         uint64     `json:"acked"`
	Nacked        uint64     `json:"nacked"`
	Expired       uint64     `json:"expired"`
	Parked        uint64     `json:"parked"`
	Rate          *float64   `json:"rate" doc:"Changes settled per second, over the last minute; null: not known yet"`
	Stuck         []StuckKey `json:"stuck_keys" doc:"Keys that something holds up: the longest first, at most 10"`
}

func statsOf(s Standing) ConsumerStatsView {
	return ConsumerStatsView{
		Pending: s.Pending, InFlight: s.InFlight, Dead: s.Dead, Blocked: s.Blocked, FloorSeq: s.FloorSeq, LastSeq: s.LastSeq,
		OldestUnacked: timeOrNull(s.OldestUnacked), Delivered: s.Delivered, Redelivered: s.Redelivered, Acked: s.Acked,
		Nacked: s.Nacked, Expired: s.Expired, Parked: s.Parked, Stuck: append([]StuckKey{}, s.Stuck...),
	}
}

// healthOf judges whether a person should look.
func healthOf(s Standing) HealthView {
	switch {
	case s.Reason != "":
		return HealthView{Status: "error", Reason: s.Reason}
	case s.Paused:
		return HealthView{Status: "paused"}
	case s.Blocked > 0:
		return HealthView{Status: "warn", Reason: "keys are blocked until a person retries or drops their dead letters"}
	case s.Dead > 0:
		return HealthView{Status: "warn", Reason: "there are dead letters"}
	}
	return HealthView{Status: "ok"}
}
