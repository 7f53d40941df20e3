package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/obs"
	"lockstep/internal/pull/verify"
	"lockstep/internal/syncs"
	"lockstep/source"
)

// These routes take as long as the API that is mirrored does; those of webhooks answer
// an API that does not wait.

const (
	usualSyncWait = 30 * time.Second
	maxSyncWait   = 10 * time.Minute
	maxWebhook    = 5 << 20
	webhookTime   = 10 * time.Second // APIs give up soon after, and call again
)

func (a *API) syncWaitRoutes(read func(path string) Route, write func(method, path, action string) Route) {
	wait := read("/{id}/wait")
	wait.Waits = true
	a.plain(wait, about{"wait-sync", "Hold until everything that is in the API now is in Postgres", syncTag, 200}, a.describeSyncWait, a.waitSync)
	compare := write(http.MethodPost, "/{id}/verify", "verify")
	compare.Waits = true
	a.plain(compare, about{"verify-sync", "Compare the API with its tables; the answer comes when all is compared", syncTag, 200}, a.describeVerify, a.verifySync(compare))
}

// waitView is the answer of wait.
type waitView struct {
	WaitedMS int64 `json:"waited_ms"`
}

func (a *API) waitSync(w http.ResponseWriter, r *http.Request) {
	timeout, err := waitTimeout(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	set, err := a.mirrors()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	waitsLong(w)
	began := time.Now()
	running, stop := a.drain.until(r.Context())
	defer stop()
	ctx, cancel := context.WithTimeout(running, timeout)
	defer cancel()
	err = set.Wait(ctx, r.PathValue("id"), r.URL.Query().Get("consumer"))
	writesUntil(w, answerLimit)
	switch {
	case err == nil:
		a.answer(w, r, waitView{time.Since(began).Milliseconds()})
	case running.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		a.fail(w, r, a.lateSync(r, timeout))
	default:
		a.fail(w, r, upstream(err))
	}
}

// upstream turns what the API that is mirrored refuses into a problem that says so.
func upstream(err error) error {
	if refused, ok := errors.AsType[*source.Error](err); ok {
		return problem(http.StatusBadGateway, obs.Scrub(refused.Message))
	}
	return err
}

// lateSync says how a sync is that did not get there in time.
func (a *API) lateSync(r *http.Request, timeout time.Duration) *Problem {
	text := fmt.Sprintf("after %s not everything has come through yet; wait again, or longer (timeout, up to %s)", spanText(timeout), spanText(maxSyncWait))
	if v, err := a.sync(r.Context(), r.PathValue("id")); err == nil {
		shown := viewOfSync(v)
		text += ". The sync is " + shown.State
		if shown.Reason != "" {
			text += ": " + shown.Reason
		}
	}
	return problem(http.StatusGatewayTimeout, text)
}

func waitTimeout(r *http.Request) (time.Duration, error) {
	if !r.URL.Query().Has("timeout") {
		return usualSyncWait, nil
	}
	d, err := parseDuration(r.URL.Query().Get("timeout"))
	if err != nil {
		return 0, bad("query.timeout", "timeout: %s", err)
	}
	if d <= 0 || d > maxSyncWait {
		return 0, bad("query.timeout", "timeout must be more than 0 and at most %s", spanText(maxSyncWait))
	}
	return d, nil
}

// verifyBody is what verify takes.
type verifyBody struct {
	Collections []string `json:"collections,omitempty" doc:"Default: all"`
	Repair      bool     `json:"repair,omitempty" doc:"Put right what differs"`
}

// VerifyView is what a comparison found.
type VerifyView struct {
	Equal     bool                `json:"equal" doc:"Nothing differs, or is left to differ after a repair; see unchecked"`
	Checked   uint64              `json:"checked" doc:"Records that were compared"`
	Missing   []verify.Difference `json:"missing" doc:"In the API and not in Postgres; at most 1000 are listed"`
	Stale     []verify.Difference `json:"stale" doc:"Different in Postgres; at most 1000 are listed"`
	Extra     []verify.Difference `json:"extra" doc:"In Postgres and not in the API; at most 1000 are listed"`
	MissingN  uint64              `json:"missing_count"`
	StaleN    uint64              `json:"stale_count"`
	ExtraN    uint64              `json:"extra_count"`
	Repaired  uint64              `json:"repaired" doc:"Records that were put right"`
	Unchecked []verify.Unchecked  `json:"unchecked" doc:"Collections that could not be compared, and why"`
	StartedAt time.Time           `json:"started_at"`
	EndedAt   time.Time           `json:"ended_at"`
}

// verification is what a comparison is in the audit.
type verification struct {
	verifyBody
	Missing  uint64 `json:"missing"`
	Stale    uint64 `json:"stale"`
	Extra    uint64 `json:"extra"`
	Repaired uint64 `json:"repaired"`
}

// verifySync compares until it is done; a caller that goes away ends it.
func (a *API) verifySync(rt Route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in verifyBody
		data, err := body(r)
		if err == nil && len(bytes.TrimSpace(data)) > 0 {
			err = decodeJSON(data, &in)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		v, err := a.sync(r.Context(), r.PathValue("id"))
		if err != nil {
			a.fail(w, r, err)
			return
		}
		waitsLong(w)
		ctx, stop := a.drain.until(r.Context())
		defer stop()
		found, err := a.syncs.Verify(ctx, v.Definition.ID, syncs.VerifyOptions{Collections: in.Collections, Repair: in.Repair})
		writesUntil(w, answerLimit)
		if err != nil {
			a.fail(w, r, upstream(unprocessable(err)))
			return
		}
		a.record(r.Context(), rt, note{target: v.Definition.Name, after: verification{in, found.MissingN, found.StaleN, found.ExtraN, found.Repaired}})
		a.answer(w, r, viewOfVerify(found))
	}
}

func viewOfVerify(r verify.Result) VerifyView {
	return VerifyView{
		Equal: r.MissingN+r.StaleN+r.ExtraN <= r.Repaired, Checked: r.Checked,
		Missing: append([]verify.Difference{}, r.Missing...), Stale: append([]verify.Difference{}, r.Stale...), Extra: append([]verify.Difference{}, r.Extra...),
		MissingN: r.MissingN, StaleN: r.StaleN, ExtraN: r.ExtraN, Repaired: r.Repaired, Unchecked: append([]verify.Unchecked{}, r.Unchecked...),
		StartedAt: r.StartedAt.UTC(), EndedAt: r.EndedAt.UTC(),
	}
}

// answer writes a value as JSON.
func (a *API) answer(w http.ResponseWriter, r *http.Request, v any) {
	var buf bytes.Buffer
	if err := writeJSON(&buf, v); err != nil {
		a.fail(w, r, fmt.Errorf("write the answer: %w", err))
		return
	}
	writeBytes(w, buf.Bytes())
}

// webhookRoutes take calls by every method: which one an API uses is its own choice.
func (a *API) webhookRoutes() {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodGet} {
		rt := Route{Method: method, Path: "/v1/syncs/{id}/webhook", Need: auth.NeedNothing, Webhook: true, Hidden: method != http.MethodPost}
		a.plain(rt, about{"sync-webhook", "Take a webhook of the API: a hint to fetch what it names", syncTag, 202}, a.describeWebhook, a.webhook)
	}
}

// webhook takes a call of the API that is mirrored. Its signature is what lets it in.
func (a *API) webhook(w http.ResponseWriter, r *http.Request) {
	set, err := a.mirrors()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	data, err := body(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), webhookTime)
	defer cancel()
	switch err := set.Receive(ctx, r.PathValue("id"), r.Header, data); {
	case err == nil:
		w.WriteHeader(http.StatusAccepted)
	case errors.Is(err, lockstep.ErrInvalid):
		a.fail(w, r, problem(http.StatusUnauthorized, obs.Scrub(err.Error())))
	case errors.Is(err, lockstep.ErrNotFound):
		a.fail(w, r, problem(http.StatusNotFound, "there is no such sync"))
	default:
		a.fail(w, r, err)
	}
}

// What follows is for the documentation only.

func (a *API) describeSyncWait(op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		queryParam("timeout", "How long to wait at most: milliseconds, or with a unit such as 30s (default); at most 10m", textSchema()),
		queryParam("consumer", "Also until this consumer, by id or name, has acked it", textSchema()))
	op.Responses["200"] = &huma.Response{Description: "It is in Postgres, and acked", Content: a.jsonContent(schemaOf[waitView](a, "Waited"))}
	op.Responses["504"] = a.problemResponse("The time is up")
}

func (a *API) describeVerify(op *huma.Operation) {
	op.RequestBody = &huma.RequestBody{Description: "May be left out", Content: a.jsonContent(schemaOf[verifyBody](a, "Verify"))}
	op.Responses["200"] = &huma.Response{Description: "What differs", Content: a.jsonContent(schemaOf[VerifyView](a, "Verified"))}
}

func (a *API) describeWebhook(op *huma.Operation) {
	op.Description = "Needs no token: the signature over the body is the authentication. Up to 5 MB, by any method."
	op.RequestBody = &huma.RequestBody{Content: a.jsonContent(schemaOf[json.RawMessage](a, "Webhook"))}
	op.Responses["202"] = &huma.Response{Description: "Taken"}
	op.Responses["401"] = a.problemResponse("The signature is missing or wrong")
}
