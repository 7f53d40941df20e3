package client

import (
	"context"
	"net/http"
	"time"
)

// examination is how long the server may examine itself, and fix something before.
const examination = 2 * time.Minute

// Finding is what one check of the node's doctor has found.
type Finding struct {
	ID      string `json:"id"`      // of the check: stable, such as table_identity
	Target  string `json:"target"`  // such as database app
	Status  string `json:"status"`  // pass, warn, fail or skip
	Summary string `json:"summary"` // what was found
	Why     string `json:"why"`     // why it matters
	Remedy  string `json:"remedy"`  // SQL or commands, line by line; comments begin with -- or #
	Fixable bool   `json:"fixable"` // Fix does something about it
}

// Examination is what the node's doctor found.
type Examination struct {
	At     *time.Time `json:"at"` // nil: the node was not examined yet
	OK     bool       `json:"ok"` // nothing fails
	Counts struct {
		Pass int `json:"pass"`
		Warn int `json:"warn"`
		Fail int `json:"fail"`
		Skip int `json:"skip"`
	} `json:"counts"`
	Findings []Finding `json:"findings"` // a check may find several things
}

// Fixed is what became of a finding.
type Fixed struct {
	Done   []FixDone   `json:"done"`
	Report Examination `json:"report"` // of an examination after it
}

// FixDone is one thing that was done, or tried.
type FixDone struct {
	What  string `json:"what"`  // SQL or a command
	Error string `json:"error"` // why it could not be done; empty: it was
}

// Doctor returns what the node's last examination of itself found. It and the calls
// beside it need the scope admin.
func (c *Client) Doctor(ctx context.Context) (Examination, error) {
	var out Examination
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "doctor"}, retry: repeatable}, &out)
	return out, err
}

// Examine examines the node now, which takes a minute at most.
func (c *Client) Examine(ctx context.Context) (Examination, error) {
	var out Examination
	err := c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "doctor"}, wait: examination}, &out)
	return out, err
}

// Fix does what the fixable findings with that id and target ask for, and examines the
// node again. A check that is not there gives an error that wraps lockstep.ErrNotFound;
// one of which nothing can be done from the node, or nothing any more, one that wraps
// lockstep.ErrConflict.
func (c *Client) Fix(ctx context.Context, id, target string) (Fixed, error) {
	var out Fixed
	body := struct {
		ID     string `json:"id"`
		Target string `json:"target"`
	}{id, target}
	err := c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "doctor", "fix"}, body: body, wait: 2 * examination}, &out)
	return out, err
}
