package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/obs"
)

// Problem is an error as callers get it: a problem document of RFC 9457.
type Problem struct {
	Type   string  `json:"type" doc:"about:blank: the status says it all" example:"about:blank"`
	Title  string  `json:"title" doc:"The status in words" example:"Conflict"`
	Status int     `json:"status" doc:"The HTTP status code" example:"409"`
	Detail string  `json:"detail" doc:"What went wrong, and what to do"`
	Errors []Fault `json:"errors,omitempty" doc:"What is wrong where"`
	// Stale is set by ack, nack and extend only.
	Stale     []string `json:"stale,omitempty" doc:"Tokens that are no longer valid; the others of the call were applied"`
	RequestID string   `json:"request_id,omitempty" doc:"Where to look in the server's log"`

	headers http.Header
}

// Fault is one thing that is wrong with a request.
type Fault struct {
	Message  string `json:"message" doc:"What is wrong"`
	Location string `json:"location,omitempty" doc:"Where, for example body.ack_wait or query.batch_size"`
}

func problem(status int, detail string, faults ...Fault) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Errors: faults}
}

// bad is a problem with one thing of the request.
func bad(location, format string, args ...any) *Problem {
	message := fmt.Sprintf(format, args...)
	return problem(http.StatusBadRequest, message, Fault{Message: message, Location: location})
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus, GetHeaders and ContentType make a Problem an answer of huma's.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns headers of the answer.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType returns the media type of problem documents.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func (p *Problem) header(name, value string) *Problem {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(name, value)
	return p
}

// problemOf turns an error of a stage into what the caller is told. An error that
// says nothing about its kind is internal: its text is not for callers.
func problemOf(err error) *Problem {
	var p *Problem
	var tooLarge *http.MaxBytesError
	var gone *lockstep.RetentionError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	case errors.As(err, &gone):
		return problem(http.StatusGone, err.Error())
	case errors.Is(err, auth.ErrUnauthenticated):
		return problem(http.StatusUnauthorized, "no valid API token: send Authorization: Bearer <token>").
			header("WWW-Authenticate", `Bearer realm="lockstep"`)
	case errors.Is(err, lockstep.ErrNotFound):
		return problem(http.StatusNotFound, err.Error())
	case errors.Is(err, lockstep.ErrConflict):
		return problem(http.StatusConflict, err.Error())
	case errors.Is(err, lockstep.ErrInvalid):
		return problem(http.StatusBadRequest, err.Error())
	case errors.Is(err, lockstep.ErrUnavailable), errors.Is(err, lockstep.ErrFenced):
		// The causes of these come from outside: addresses may be among them.
		return problem(http.StatusServiceUnavailable, obs.Scrub(err.Error())).header("Retry-After", "1")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusServiceUnavailable, "the node is stopping or busy; nothing is known to have been changed").header("Retry-After", "1")
	}
	return problem(http.StatusInternalServerError, "internal error; the server's log has more under this request_id")
}

// unprocessable turns errors about a definition into 422; others stay as they are.
func unprocessable(err error) error {
	var p *Problem
	if err == nil || errors.As(err, &p) || !errors.Is(err, lockstep.ErrInvalid) {
		return err
	}
	return problem(http.StatusUnprocessableEntity, err.Error(), Fault{Message: err.Error(), Location: "body"})
}

// write sends the problem. It must be called before anything else was written.
func (p *Problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only: cannot happen, and must not be silent
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"the error could not be written"}`)
	}
	for name, values := range p.headers {
		w.Header()[name] = slices.Clone(values)
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // a caller that has gone needs no error
}

// ownProblems is a transformer of huma's: it brings the errors that huma makes
// itself into our form, and keeps request bodies out of them.
func ownProblems(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem(m.Status, m.Detail)
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, Fault{Message: e.Message, Location: e.Location})
	}
	if len(p.Errors) > 0 && (p.Detail == "" || p.Detail == "validation failed") {
		first := p.Errors[0]
		p.Detail = first.Message
		if first.Location != "" {
			p.Detail = first.Location + ": " + first.Message
		}
	}
	return p, nil
}
