package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// ReplayBody says which changes are delivered again: one of the three forms.
type ReplayBody struct {
	Seq         *uint64 `json:"seq,omitempty" minimum:"1" doc:"One change"`
	From        *Mark   `json:"from,omitempty"`
	To          *Mark   `json:"to,omitempty"`
	FailedSince *string `json:"failed_since,omitempty" doc:"What went to the dead letters since then: a time, or 1h for an hour ago"`
}

// Mark is a place in the stream in JSON: a seq, a time, or 1h for an hour ago.
type Mark struct{ text string }

// UnmarshalJSON keeps the text.
func (m *Mark) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &m.text)
	}
	m.text = string(data)
	return nil
}

// Schema implements huma.SchemaProvider.
func (Mark) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "A seq, a time, or 1h for an hour ago. Both ends belong to it; to: default now", Examples: []any{42, "2026-11-01T00:00:00Z"},
		OneOf: []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeInteger}}}
}

type (
	replayInput struct {
		ID   string `path:"id" doc:"Id or name"`
		Body ReplayBody
	}
	replayOutput struct{ Body ReplayView }
)

// ReplayView is how many changes are delivered again.
type ReplayView struct {
	Replayed int `json:"replayed"`
}

func (a *API) replayConsumer(ctx context.Context, in *replayInput) (*replayOutput, note, error) {
	c, err := a.consumer(families()[0], in.ID)
	if err != nil {
		return nil, note{}, err
	}
	n, err := replay(ctx, c, in.Body)
	if err != nil {
		return nil, note{}, err
	}
	return &replayOutput{Body: ReplayView{Replayed: n}}, note{target: c.Definition().Name, after: asked(in.Body, n)}, nil
}

// asked is what the audit keeps of a replay.
func asked(b ReplayBody, n int) map[string]any {
	kept := map[string]any{"replayed": n}
	if b.Seq != nil {
		kept["seq"] = *b.Seq
	}
	if b.From != nil {
		kept["from"] = b.From.text
	}
	if b.To != nil {
		kept["to"] = b.To.text
	}
	if b.FailedSince != nil {
		kept["failed_since"] = *b.FailedSince
	}
	return kept
}

func replay(ctx context.Context, c Consumer, b ReplayBody) (int, error) {
	switch {
	case b.Seq != nil && b.From == nil && b.To == nil && b.FailedSince == nil:
		if err := c.Replay(ctx, *b.Seq); err != nil {
			return 0, err
		}
		return 1, nil
	case b.FailedSince != nil && b.Seq == nil && b.From == nil && b.To == nil:
		at, err := timeAt(*b.FailedSince)
		if err != nil {
			return 0, bad("body.failed_since", "%s", err)
		}
		return c.ReplayDead(ctx, at)
	case b.From != nil && b.Seq == nil && b.FailedSince == nil:
		return replayRange(ctx, c, *b.From, b.To)
	}
	return 0, problem(http.StatusUnprocessableEntity, `say which changes: {"seq": 42}, {"from": 40, "to": 50} or {"failed_since": "1h"}`)
}

func replayRange(ctx context.Context, c Consumer, from Mark, to *Mark) (int, error) {
	first, err := seqAt(ctx, c, from)
	if err != nil {
		return 0, bad("body.from", "%s", err)
	}
	last := uint64(math.MaxUint64)
	if to != nil {
		if last, err = seqAt(ctx, c, *to); err != nil {
			return 0, bad("body.to", "%s", err)
		}
		if _, isSeq := seqOf(*to); !isSeq {
			last-- // the last one before that time
		}
	}
	if first > last {
		return 0, bad("body.to", "it lies before from")
	}
	return c.ReplayRange(ctx, first, last)
}

// seqOf reads a place that is a seq.
func seqOf(m Mark) (uint64, bool) {
	seq, err := strconv.ParseUint(strings.TrimPrefix(m.text, "seq:"), 10, 63)
	return seq, err == nil
}

// seqAt returns the seq that a place names, or the first at or after its time.
func seqAt(ctx context.Context, c Consumer, m Mark) (uint64, error) {
	if seq, ok := seqOf(m); ok {
		return seq, nil
	}
	at, err := timeAt(m.text)
	if err != nil {
		return 0, err
	}
	return c.SeqAt(ctx, at)
}

// timeAt reads a time, or how long ago it was.
func timeAt(text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := parseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time: write 2026-11-01T00:00:00Z, or 1h for an hour ago", text)
	}
	return time.Now().Add(-ago), nil
}
