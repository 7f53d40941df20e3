package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

// The bounds of a trial.
const (
	trialLimit   = 100
	trialMost    = 1000
	trialLook    = 50_000            // changes that are looked at
	trialTime    = 2 * time.Second   // for looking
	trialMessage = 64 << 10          // a larger message is cut out
	trialAnswer  = 16 << 20          // when messages have this size in all, further ones are cut out
	trialWindow  = 32                // changes that are read at first; four times as many each further time
	trialWindows = trialWindow << 10 // at most
)

// TrialBody is what is tried on the last changes: as in the definition of a consumer.
type TrialBody struct {
	Tables      *[]string `json:"tables,omitempty" doc:"Patterns such as public.orders. Default: every table"`
	Collections *[]string `json:"collections,omitempty" doc:"Collections of syncs in the place of tables"`
	Sync        *string   `json:"sync,omitempty" doc:"With collections: only those of this sync"`
	Actions     *[]string `json:"actions,omitempty" doc:"insert, update, delete. Default: all"`
	Filter      *string   `json:"filter,omitempty" example:"record.amount > 100"`
	Transform   *string   `json:"transform,omitempty"`
	Limit       *int      `json:"limit,omitempty" minimum:"1" maximum:"1000" doc:"So many changes of the tables and actions are tried. Default: 100"`
}

// trialView describes the answer.
type trialView struct {
	Looked  int               `json:"looked_at" doc:"Changes of the stream that were looked at, of any table: at most 50,000"`
	FromSeq uint64            `json:"from_seq" doc:"The oldest of them; 0: there was none"`
	Stopped string            `json:"stopped" enum:"limit,looked_at,time,beginning,damaged" doc:"Why it looked no further back: enough were found, the most it looks at, 2 s are over, there is nothing older, or what lies before cannot be read"`
	Matched int               `json:"matched" doc:"Changes of the tables and actions: those that were tried"`
	Passed  int               `json:"passed" doc:"Of these: consumers would get them"`
	Failed  int               `json:"failed" doc:"Of these: filter or transform failed, they would go to the dead letters"`
	Results []trialResultView `json:"results" doc:"The newest first"`
}

type trialResultView struct {
	Seq     uint64      `json:"seq"`
	Table   string      `json:"table"`
	Action  string      `json:"action"`
	Passed  bool        `json:"passed"`
	Error   string      `json:"error,omitempty" doc:"Why filter or transform failed"`
	Message *ChangeView `json:"message,omitempty" doc:"As workers would get it; left out: they would not"`
	Before  *ChangeView `json:"before,omitempty" doc:"As it is before the transform"`
	Large   int         `json:"large,omitempty" doc:"A message of so many bytes was cut out: it is larger than 64 KiB, or the answer is large"`
}

func (a *API) trialRoutes() {
	rt := Route{Method: http.MethodPost, Path: "/v1/databases/{name}/trial", Need: auth.NeedRead}
	a.plain(rt, about{"try-selection", "Try filter and transform on the last changes; nothing is made or changed", "databases", 200}, a.describeTrial, a.tryChanges)
}

func (a *API) describeTrial(op *huma.Operation) {
	op.RequestBody = &huma.RequestBody{Required: true, Content: a.jsonContent(schemaOf[TrialBody](a, "TrialBody"))}
	op.Responses["200"] = &huma.Response{Description: "What became of each change", Content: a.jsonContent(schemaOf[trialView](a, "Trial"))}
	op.Responses["422"] = a.problemResponse("Not a valid selection: errors says what is wrong where")
}

func (a *API) tryChanges(w http.ResponseWriter, r *http.Request) {
	db, err := a.database(r.PathValue("name"))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	data, err := body(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var in TrialBody
	if err := decodeJSON(data, &in); err != nil {
		a.fail(w, r, err)
		return
	}
	t := trial{log: db.Log}
	if err := a.prepare(&t, db, in); err != nil {
		a.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), trialTime)
	defer cancel()
	if err := t.run(ctx); err != nil {
		a.fail(w, r, err)
		return
	}
	writesUntil(w, answerLimit)
	writeBytes(w, t.answer())
}

// prepare checks what the body says, with the words that creating a consumer has.
func (a *API) prepare(t *trial, db Database, in TrialBody) error {
	selection := ConsumerBody{Tables: in.Tables, Collections: in.Collections, Sync: in.Sync, Actions: in.Actions, Filter: in.Filter, Transform: in.Transform}
	d := deliver.Definition{Database: db.Name}
	var f faults
	selection.apply(&d, &f)
	a.checkCollections(nil, d.Collections, selection, &f)
	if t.limit = trialLimit; in.Limit != nil {
		t.limit = *in.Limit
	}
	if t.limit < 1 || t.limit > trialMost {
		f.add("limit", "%d is out of range: use 1 to %d", t.limit, trialMost)
	}
	if err := f.problem(); err != nil {
		return err
	}
	made, err := deliver.NewTrial(d, a.mirrored)
	if err != nil {
		return f.invalid(err)
	}
	t.trial = made
	return nil
}

// trial is one run. It is used by one goroutine.
type trial struct {
	log   Log
	trial *deliver.Trial
	limit int

	newest, from            uint64 // what was looked at; from is newest+1 as long as nothing was
	stopped                 string
	matched, passed, failed int
	results                 []byte
	messages                int // their size so far
}

// run looks back window by window. A window is read forwards, which is cheap, and what
// matches in it is tried backwards, so that no more than one change is held in memory.
func (t *trial) run(ctx context.Context) error {
	t.newest = t.log.Last().Seq
	t.from = t.newest + 1
	for size := uint64(trialWindow); t.stopped == ""; size = min(4*size, trialWindows) {
		first := max(t.log.First(), 1)
		looked := t.newest + 1 - t.from
		switch {
		case t.from <= first:
			t.stopped = "beginning"
			return nil
		case looked >= trialLook:
			t.stopped = "looked_at"
			return nil
		}
		low := max(first, t.from-min(t.from-1, size, trialLook-looked))
		if err := t.window(ctx, low, t.from-1); err != nil {
			return t.ended(ctx, err)
		}
	}
	return nil
}

// ended tells why a look back could not go on. What was tried by then counts.
func (t *trial) ended(ctx context.Context, err error) error {
	var gone *lockstep.RetentionError
	switch {
	case errors.As(err, &gone):
		t.stopped = "beginning"
	case errors.Is(err, lockstep.ErrCorrupt):
		t.stopped = "damaged"
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		t.stopped = "time"
	default:
		return err
	}
	return nil
}

// window tries the changes from low to high.
func (t *trial) window(ctx context.Context, low, high uint64) error {
	wanted, err := t.wanted(ctx, low, high)
	if err != nil {
		return err
	}
	for _, seq := range slices.Backward(wanted) {
		b, err := t.log.BatchOf(ctx, seq)
		if err != nil {
			return err
		}
		r, ok := b.Find(seq)
		if !ok {
			return errors.New("the log gave a batch that does not hold the change")
		}
		t.try(r)
		t.from = seq
		if t.matched == t.limit {
			t.stopped = "limit"
			return nil
		}
	}
	t.from = low
	return nil
}

// wanted returns the last seqs of the window that concern the trial, as many as are
// still to be tried.
func (t *trial) wanted(ctx context.Context, low, high uint64) ([]uint64, error) {
	reader := t.log.ReadFrom(low)
	defer reader.Close()
	var seqs []uint64
	for next := low; next <= high; {
		b, err := reader.Next(ctx)
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			if r := b.Record(i); r.Seq() >= low && r.Seq() <= high && t.trial.Wants(r) {
				seqs = append(seqs, r.Seq())
			}
		}
		next = b.Mark.Seq + 1
	}
	return seqs[max(len(seqs)-(t.limit-t.matched), 0):], nil
}

func (t *trial) try(r lockstep.Record) {
	v := t.trial.Try(r)
	t.matched++
	if t.matched > 1 {
		t.results = append(t.results, ',')
	}
	buf := append(t.results, `{"seq":`...)
	buf = strconv.AppendUint(buf, r.Seq(), 10)
	buf = append(buf, `,"table":`...)
	buf = lockstep.AppendJSONString(buf, tableText(r.Table()))
	buf = append(buf, `,"action":`...)
	buf = lockstep.AppendJSONString(buf, r.Action().String())
	buf = append(buf, `,"passed":`...)
	buf = strconv.AppendBool(buf, v.Passed)
	if v.Passed {
		t.passed++
	}
	if v.Fault != "" {
		t.failed++
		buf = append(buf, `,"error":`...)
		buf = lockstep.AppendJSONString(buf, v.Fault)
	}
	large := 0
	for _, one := range []struct {
		name    string
		message []byte
	}{{"message", v.Message}, {"before", v.Before}} {
		switch size := len(one.message); {
		case size == 0:
		case size > trialMessage || t.messages+size > trialAnswer:
			large = max(large, size)
		default:
			t.messages += size
			buf = append(append(append(buf, `,"`...), one.name...), `":`...)
			buf = append(buf, one.message...)
		}
	}
	if large > 0 {
		buf = strconv.AppendInt(append(buf, `,"large":`...), int64(large), 10)
	}
	t.results = append(buf, '}')
}

// tableText names a table; a gap of no single table has none.
func tableText(t *lockstep.Table) string {
	if t.OID == 0 {
		return ""
	}
	return t.Schema + "." + t.Name
}

func (t *trial) answer() []byte {
	looked := t.newest + 1 - t.from
	from := t.from
	if looked == 0 {
		from = 0
	}
	head, err := json.Marshal(struct {
		Looked  uint64 `json:"looked_at"`
		FromSeq uint64 `json:"from_seq"`
		Stopped string `json:"stopped"`
		Matched int    `json:"matched"`
		Passed  int    `json:"passed"`
		Failed  int    `json:"failed"`
	}{looked, from, t.stopped, t.matched, t.passed, t.failed})
	if err != nil { // numbers and words only: cannot happen
		head = []byte("{}")
	}
	buf := append(head[:len(head)-1:len(head)-1], `,"results":[`...)
	return append(append(buf, t.results...), "]}\n"...)
}
