package client

import (
	"context"
	"encoding/json"
	"net/http"
)

// Trial is a selection to be tried on the last changes of a database: the fields of a
// [Definition] that say which changes a consumer gets, and how.
type Trial struct {
	Tables      []string `json:"tables,omitempty"`
	Collections []string `json:"collections,omitempty"`
	Sync        string   `json:"sync,omitempty"`
	Actions     []string `json:"actions,omitempty"`
	Filter      string   `json:"filter,omitempty"`
	Transform   string   `json:"transform,omitempty"`
	Limit       int      `json:"limit,omitempty"` // so many changes are tried, 1 to 1000; 0: 100
}

// TrialReport is what a trial found.
type TrialReport struct {
	Looked  uint64        `json:"looked_at"` // changes of the stream, at most 50,000
	FromSeq uint64        `json:"from_seq"`  // the oldest of them; 0: there was none
	Stopped string        `json:"stopped"`   // why it looked no further: limit, looked_at, time, beginning or damaged
	Matched int           `json:"matched"`   // changes of the tables and actions: those that were tried
	Passed  int           `json:"passed"`    // of these: a consumer would get them
	Failed  int           `json:"failed"`    // of these: filter or transform failed; the others were filtered out
	Results []TrialResult `json:"results"`   // the newest first

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// TrialResult is what became of one change. Messages are for [ParseChange].
type TrialResult struct {
	Seq     uint64          `json:"seq"`
	Table   string          `json:"table"` // schema.name; empty for a gap of no single table
	Action  string          `json:"action"`
	Passed  bool            `json:"passed"`
	Error   string          `json:"error"`   // why filter or transform failed; empty: they did not
	Message json.RawMessage `json:"message"` // as a worker would get it; nil: it would not, or Large
	Before  json.RawMessage `json:"before"`  // ahead of the transform; nil: Large
	Large   int             `json:"large"`   // a message of so many bytes was cut out; 0: none
}

// UnmarshalJSON keeps the text beside the fields.
func (r *TrialReport) UnmarshalJSON(data []byte) error {
	type plain TrialReport
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	r.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// Try runs filter and transform over the last changes of a database that the trial
// selects. It changes nothing. What is wrong with the trial is a [*Problem] of status
// 422 that says where, such as body.filter.
func (c *Client) Try(ctx context.Context, database string, t Trial) (TrialReport, error) {
	var out TrialReport
	path := []string{"v1", "databases", database, "trial"}
	err := c.do(ctx, call{method: http.MethodPost, path: path, body: t, retry: repeatable}, &out)
	return out, err
}
