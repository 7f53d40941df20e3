package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lockstep"
)

// Problem is an answer that is not a success: a problem document of RFC 9457.
type Problem struct {
	Status int            `json:"status"` // the HTTP status
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Detail string         `json:"detail"`
	Errors []ProblemError `json:"errors"`
	Stale  []string       `json:"stale"` // of an ack, nack or extend: the tokens that were refused
	// RequestID is where to look in the server's log; empty for what needs no look.
	RequestID string `json:"request_id"`

	RetryAfter time.Duration `json:"-"` // how long the server asks to be left alone; 0: it did not say
}

// ProblemError is one of several things that were wrong with a request.
type ProblemError struct {
	Message  string `json:"message"`
	Location string `json:"location"` // such as body.ack_wait
}

// Error returns detail and errors, and the status for those who search for it.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Detail == "" {
		b.WriteString(strings.ToLower(p.Title))
	}
	for _, e := range p.Errors {
		if strings.Contains(p.Detail, e.Message) {
			continue // the detail repeats the first
		}
		b.WriteString("; ")
		if e.Location != "" {
			b.WriteString(e.Location + ": ")
		}
		b.WriteString(e.Message)
	}
	if len(p.Stale) > 0 {
		fmt.Fprintf(&b, " (stale: %d)", len(p.Stale))
	}
	fmt.Fprintf(&b, " (HTTP %d)", p.Status)
	if p.RequestID != "" {
		b.WriteString(", request " + p.RequestID)
	}
	return b.String()
}

// Is relates the status to the kinds of errors of the root package.
func (p *Problem) Is(target error) bool {
	switch target {
	case lockstep.ErrInvalid:
		return p.Status == http.StatusBadRequest || p.Status == http.StatusUnprocessableEntity || p.Status == http.StatusRequestEntityTooLarge
	case lockstep.ErrNotFound:
		return p.Status == http.StatusNotFound || p.Status == http.StatusGone
	case lockstep.ErrConflict:
		return p.Status == http.StatusConflict
	case lockstep.ErrUnavailable:
		return p.Status == http.StatusTooManyRequests || p.Status == http.StatusBadGateway || p.Status == http.StatusServiceUnavailable || p.Status == http.StatusGatewayTimeout
	}
	return false
}

// readProblem reads an answer that is not a success. One that is no problem
// document, such as a proxy's page, gives its status alone.
func readProblem(response *http.Response) *Problem {
	p := &Problem{}
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxError))
	if json.Unmarshal(body, p) != nil || p.Title == "" && p.Detail == "" {
		p = &Problem{Title: http.StatusText(response.StatusCode), Detail: plainText(response, body)}
	}
	p.Status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.RetryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	return p
}

func plainText(response *http.Response, body []byte) string {
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") {
		return ""
	}
	text := strings.Join(strings.Fields(string(body)), " ")
	return text[:min(len(text), 300)]
}
