package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

// Kinds knows the kinds of consumers that changes are sent to, and what each is told.
type Kinds interface {
	Names() []string
	// Check returns all that is wrong with a kind's settings, by field.
	Check(kind string, settings json.RawMessage) []deliver.Problem
	// Shown is settings without what is secret in them.
	Shown(kind string, settings json.RawMessage) json.RawMessage
	// Merge applies a change to settings; its error is the caller's fault.
	Merge(kind string, old, change json.RawMessage) (json.RawMessage, error)
}

// Sending knows how sending to consumers goes.
type Sending interface {
	// Destination reports false when nothing is sent to the consumer.
	Destination(id string) (Destination, bool)
	// Attempts returns the last attempts, the newest first: up to limit with an ID below
	// before; 0: the newest.
	Attempts(id string, before uint64, limit int, which AttemptFilter) (list []Attempt, more bool)
	// AttemptsOf returns the last attempts to deliver one change, as far as they are
	// remembered: up to limit, the newest first.
	AttemptsOf(id string, seq uint64, limit int) []Attempt
	// Test sends an event of no meaning. Errors that wrap [lockstep.ErrInvalid] say that
	// there is no such thing for the consumer; others are what the destination said.
	Test(ctx context.Context, id string) error
}

// AttemptFilter says which attempts are listed.
type AttemptFilter int

// Which attempts are listed.
const (
	AllAttempts AttemptFilter = iota
	FailedAttempts
)

// Destination is how sending to a consumer goes.
type Destination struct {
	State     string // ok, retrying, open, throttled, refused, gone or paused
	Reason    string
	Since     time.Time
	NextTry   time.Time // zero: now, or when a person acts
	Delivered uint64    // changes, since the node began to send
	Failed    uint64    // attempts of changes that failed, since then
	Writing   int       // requests under way
	Held      int       // changes taken and not settled
	LastOK    time.Time
	LastError time.Time
}

// Attempt is one try to deliver changes.
type Attempt struct {
	ID       uint64
	At       time.Time
	Duration time.Duration
	Outcome  string // delivered, partly, retry, throttled, rejected, refused or gone
	Number   int
	Changes  int
	Seqs     []uint64
	Method   string
	URL      string
	Sent     string
	Status   int
	Answer   string
	Error    string
}

// DestinationView is how sending to a consumer goes, as the API shows it.
type DestinationView struct {
	State     string     `json:"state" enum:"ok,retrying,open,throttled,refused,gone,paused" doc:"open: everything failed, one change at a time is tried. gone: nothing is sent until the consumer is resumed"`
	Reason    string     `json:"reason,omitempty"`
	Since     *time.Time `json:"since"`
	NextTry   *time.Time `json:"next_try_at"`
	Delivered uint64     `json:"delivered" doc:"Changes; this and failed: since the node began to send"`
	Failed    uint64     `json:"failed" doc:"Attempts of changes that failed"`
	Writing   int        `json:"writing" doc:"Requests under way"`
	Held      int        `json:"held" doc:"Changes taken and not settled"`
	LastOK    *time.Time `json:"last_delivered_at"`
	LastError *time.Time `json:"last_failed_at"`
}

// AttemptView is one try to deliver changes, as the API shows it.
type AttemptView struct {
	ID         string    `json:"id"`
	At         time.Time `json:"at"`
	DurationMS float64   `json:"duration_ms"`
	Outcome    string    `json:"outcome" enum:"delivered,partly,retry,throttled,rejected,refused,gone" doc:"partly: some changes of a batch failed"`
	Attempt    int       `json:"attempt" doc:"Of the first change, from 1"`
	Changes    int       `json:"changes" doc:"How many were sent"`
	Seqs       []uint64  `json:"seqs" doc:"Theirs; the first 100"`
	Method     string    `json:"method,omitempty"`
	URL        string    `json:"url,omitempty" doc:"Without what is secret in it"`
	Request    string    `json:"request,omitempty" doc:"The beginning of the body"`
	Status     int       `json:"status,omitempty" doc:"Of the answer; left out: there was none"`
	Answer     string    `json:"answer,omitempty" doc:"The beginning of its body"`
	Error      string    `json:"error,omitempty"`
}

type (
	attemptsInput struct {
		ID     string `path:"id" doc:"Id or name"`
		Failed bool   `query:"failed" doc:"Only those that failed; they are kept longer"`
		Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"At most so many"`
		Cursor string `query:"cursor" doc:"next_cursor of the page before"`
	}
	attemptsOutput struct{ Body List[AttemptView] }
	testOutput     struct{ Body TestView }
)

// TestView is what became of a test event.
type TestView struct {
	Delivered  bool    `json:"delivered"`
	Error      string  `json:"error,omitempty"`
	DurationMS float64 `json:"duration_ms"`
}

func (a *API) sendingRoutes() {
	const tag = "consumers"
	base := "/v1/consumers/{id}"
	typed(a, Route{Method: http.MethodGet, Path: base + "/attempts", Need: auth.NeedRead, Consumer: true},
		about{"consumer-attempts", "List the last attempts to deliver, newest first", tag, 200}, a.listAttempts)
	typedAudited(a, Route{Method: http.MethodPost, Path: base + "/test", Need: auth.NeedWrite, Audit: "consumer.test", Consumer: true, Waits: true},
		about{"test-consumer", "Send a test event to the consumer's destination", tag, 200}, a.testConsumer)
	typedAudited(a, Route{Method: http.MethodPost, Path: base + "/replay", Need: auth.NeedWrite, Audit: "consumer.replay", Consumer: true},
		about{"replay-consumer", "Deliver changes again: one, those between two places, or what is in the dead letters", tag, 200}, a.replayConsumer)
}

func (a *API) listAttempts(_ context.Context, in *attemptsInput) (*attemptsOutput, error) {
	c, err := a.consumer(families()[0], in.ID)
	if err != nil {
		return nil, err
	}
	var before uint64
	if in.Cursor != "" {
		if before, err = strconv.ParseUint(in.Cursor, 10, 64); err != nil {
			return nil, bad("query.cursor", "cursor must be the next_cursor of the page before")
		}
	}
	out := &attemptsOutput{Body: List[AttemptView]{Data: []AttemptView{}}}
	if a.sending == nil {
		return out, nil
	}
	which := AllAttempts
	if in.Failed {
		which = FailedAttempts
	}
	list, more := a.sending.Attempts(c.Definition().ID, before, in.Limit, which)
	for _, one := range list {
		out.Body.Data = append(out.Body.Data, viewOfAttempt(one))
	}
	if more && len(list) > 0 {
		next := strconv.FormatUint(list[len(list)-1].ID, 10)
		out.Body.NextCursor = &next
	}
	return out, nil
}

func viewOfAttempt(a Attempt) AttemptView {
	return AttemptView{
		ID: strconv.FormatUint(a.ID, 10), At: a.At.UTC(), DurationMS: milliseconds(a.Duration), Outcome: a.Outcome, Attempt: a.Number,
		Changes: a.Changes, Seqs: append([]uint64{}, a.Seqs...), Method: a.Method, URL: a.URL, Request: strings.ToValidUTF8(a.Sent, "\uFFFD"),
		Status: a.Status, Answer: strings.ToValidUTF8(a.Answer, "\uFFFD"), Error: a.Error,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (a *API) testConsumer(ctx context.Context, in *idInput) (*testOutput, note, error) {
	c, err := a.consumer(families()[0], in.ID)
	if err != nil {
		return nil, note{}, err
	}
	d := c.Definition()
	if a.sending == nil {
		return nil, note{}, fmt.Errorf("test consumer %q: nothing is sent to it: %w", d.Name, lockstep.ErrConflict)
	}
	if _, ok := a.sending.Destination(d.ID); !ok {
		return nil, note{}, fmt.Errorf("test consumer %q: nothing is sent to consumers of kind %s: %w", d.Name, d.Kind, lockstep.ErrConflict)
	}
	began := time.Now()
	err = a.sending.Test(ctx, d.ID)
	out := &testOutput{Body: TestView{Delivered: err == nil, DurationMS: milliseconds(time.Since(began))}}
	if err != nil {
		out.Body.Error = err.Error()
	}
	return out, note{target: d.Name}, nil
}

// destinationOf returns the view of how sending goes; nil: nothing is sent.
func (a *API) destinationOf(id string) *DestinationView {
	if a.sending == nil {
		return nil
	}
	d, ok := a.sending.Destination(id)
	if !ok {
		return nil
	}
	return &DestinationView{
		State: d.State, Reason: d.Reason, Since: timeOrNull(d.Since), NextTry: timeOrNull(d.NextTry), Delivered: d.Delivered, Failed: d.Failed,
		Writing: d.Writing, Held: d.Held, LastOK: timeOrNull(d.LastOK), LastError: timeOrNull(d.LastError),
	}
}

// judge puts what is wrong with a destination into the consumer's health.
func (d *DestinationView) judge(h HealthView) HealthView {
	if d == nil || h.Status == "error" {
		return h
	}
	switch d.State {
	case "open", "refused":
		return HealthView{Status: "error", Reason: d.Reason}
	case "gone":
		return HealthView{Status: "error", Reason: d.Reason + "; nothing is sent until the consumer is resumed"}
	case "throttled", "retrying":
		if h.Status == "ok" {
			return HealthView{Status: "warn", Reason: d.Reason}
		}
	}
	return h
}

// availableKinds returns the kinds of consumers that this node has.
func (a *API) availableKinds() []string {
	if a.kinds == nil {
		return []string{"http", "stdout"}
	}
	return append([]string{"http"}, a.kinds.Names()...)
}

// kindly takes the settings of the kind from a body, and checks them.
func (a *API) kindly(settings map[string]json.RawMessage, d *deliver.Definition, f *faults) {
	kind := d.Kind
	if kind == "" {
		kind = "http"
	}
	if available := a.availableKinds(); !slices.Contains(available, kind) {
		f.add("kind", "consumers of kind %s are not available in this release: use %s", kind, strings.Join(available, " or "))
		return
	}
	for name := range settings {
		if name != kind {
			f.add(name, "settings of kind %s at a consumer of kind %s: remove them, or make one of that kind", name, kind)
		}
	}
	if a.kinds == nil || kind == "http" {
		return
	}
	if change, given := settings[kind]; given {
		merged, err := a.kinds.Merge(kind, d.Settings, change)
		if err != nil {
			f.add(kind, "%s", err)
			return
		}
		d.Settings = merged
	}
	d.Shown = a.kinds.Shown(kind, d.Settings)
	for _, p := range a.kinds.Check(kind, d.Settings) {
		field := kind
		if p.Field != "" {
			field += "." + p.Field
		}
		f.add(field, "%s", p.Message)
	}
}
