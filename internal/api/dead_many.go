package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"lockstep/internal/deliver"
)

// maxSeqs is how many dead letters one call names.
const maxSeqs = 1000

// How many milliseconds a page of dead letters may look for those that are asked for.
const (
	minLookMS = 10
	maxLookMS = int(deliver.MaxLook / time.Millisecond)
)

// LettersBody says which dead letters are worked on: some, or all that match.
type LettersBody struct {
	Seqs   []uint64 `json:"seqs,omitempty" maxItems:"1000" doc:"These"`
	All    bool     `json:"all,omitempty" doc:"All that wait for a person: 10,000 a call, and for no longer than 20 s"`
	Reason string   `json:"reason,omitempty" doc:"With all: only those whose reason has this part, whatever its case"`
	Before string   `json:"before,omitempty" doc:"With all: only those that were written before a time, or 1h for an hour ago"`
	Cursor string   `json:"cursor,omitempty" doc:"With all: next_cursor of the call before"`
}

type (
	lettersInput struct {
		ID   string `path:"id" doc:"Id or name"`
		Body LettersBody
	}
	retriedOutput struct{ Body RetriedView }
	droppedOutput struct{ Body DroppedView }
)

// LettersView is how far a call came.
type LettersView struct {
	Skipped int     `json:"skipped" doc:"Letters that it cannot be done to now"`
	Why     string  `json:"why,omitempty" doc:"The reason of the first one"`
	Left    uint64  `json:"left" doc:"Letters that were not looked at: call again, with next_cursor"`
	Next    *string `json:"next_cursor" doc:"Where the next call goes on; null: the end was reached"`
	Stopped string  `json:"stopped,omitempty" doc:"What went wrong after some were done"`
}

// RetriedView is how far a retry of many came.
type RetriedView struct {
	Retried int `json:"retried"`
	LettersView
}

// DroppedView is how far a drop of many came.
type DroppedView struct {
	Dropped int `json:"dropped"`
	LettersView
}

func (a *API) retryLetters(f family) func(context.Context, *lettersInput) (*retriedOutput, note, error) {
	return func(ctx context.Context, in *lettersInput) (*retriedOutput, note, error) {
		n, view, noted, err := a.onLetters(ctx, f, in, Consumer.RetryLetters)
		if err != nil {
			return nil, note{}, err
		}
		return &retriedOutput{Body: RetriedView{Retried: n, LettersView: view}}, noted, nil
	}
}

func (a *API) dropLetters(f family) func(context.Context, *lettersInput) (*droppedOutput, note, error) {
	return func(ctx context.Context, in *lettersInput) (*droppedOutput, note, error) {
		n, view, noted, err := a.onLetters(ctx, f, in, Consumer.DropLetters)
		if err != nil {
			return nil, note{}, err
		}
		return &droppedOutput{Body: DroppedView{Dropped: n, LettersView: view}}, noted, nil
	}
}

func (a *API) onLetters(ctx context.Context, f family, in *lettersInput, do func(Consumer, context.Context, deliver.LetterWork) (deliver.LetterProgress, error)) (int, LettersView, note, error) {
	c, err := a.consumer(f, in.ID)
	if err != nil {
		return 0, LettersView{}, note{}, err
	}
	work, err := in.Body.work()
	if err != nil {
		return 0, LettersView{}, note{}, err
	}
	ctx, cancel := a.drain.until(ctx)
	defer cancel()
	p, err := do(c, ctx, work)
	if err != nil && p.Done == 0 {
		return 0, LettersView{}, note{}, err
	}
	view := LettersView{Skipped: p.Skipped, Why: p.Why, Left: p.Left}
	if err != nil { // what was done is to be in the audit, and told
		view.Stopped = problemOf(err).Detail
	}
	if p.Next > 0 {
		next := strconv.FormatUint(p.Next, 10)
		view.Next = &next
	}
	return p.Done, view, note{target: c.Definition().Name, after: askedLetters{Body: in.Body, Done: p.Done, Left: p.Left}}, nil
}

// askedLetters is what the audit keeps.
type askedLetters struct {
	Body LettersBody `json:"asked"`
	Done int         `json:"done"`
	Left uint64      `json:"left"`
}

func (b LettersBody) work() (w deliver.LetterWork, err error) {
	if b.All == (len(b.Seqs) > 0) || !b.All && (b.Reason != "" || b.Before != "" || b.Cursor != "") {
		return w, problem(http.StatusUnprocessableEntity, `say which dead letters: {"seqs": [42, 43]} or {"all": true}, the latter with reason, before and cursor as you like`)
	}
	if len(b.Seqs) > maxSeqs {
		return w, problem(http.StatusUnprocessableEntity, "name at most 1000 dead letters in one call")
	}
	w.Reason = b.Reason
	if !b.All {
		w.Seqs = b.Seqs
	}
	if b.Before != "" {
		if w.Before, err = timeAt(b.Before); err != nil {
			return w, problem(http.StatusUnprocessableEntity, err.Error(), Fault{Message: err.Error(), Location: "body.before"})
		}
	}
	if b.Cursor != "" {
		if w.Cursor, err = strconv.ParseUint(b.Cursor, 10, 64); err != nil {
			return w, bad("body.cursor", "cursor must be the next_cursor of the call before")
		}
	}
	return w, nil
}

// decodeLetterQuery reads which dead letters a page has.
func decodeLetterQuery(r *http.Request) (q deliver.LetterQuery, err error) {
	if q.Limit, err = number(r, "limit", 100, 1, maxBatchSize); err != nil {
		return q, err
	}
	query := r.URL.Query()
	if cursor := query.Get("cursor"); cursor != "" {
		if q.Cursor, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return q, bad("query.cursor", "cursor must be the next_cursor of the page before")
		}
	}
	switch query.Get("order") {
	case "", "oldest":
	case "newest":
		q.Order = deliver.NewestFirst
	default:
		return q, bad("query.order", "order must be oldest or newest")
	}
	q.Key, q.Reason = query.Get("key"), query.Get("reason")
	look, err := number(r, "look_ms", maxLookMS, minLookMS, maxLookMS)
	q.Look = time.Duration(look) * time.Millisecond
	return q, err
}
