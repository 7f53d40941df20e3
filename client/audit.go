package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// AuditEntry is who did what to what, and what that changed. It holds no secrets.
type AuditEntry struct {
	ID     string          `json:"id"`
	At     time.Time       `json:"at"`
	Actor  string          `json:"actor"`  // the token's name, or local on a node without tokens
	Action string          `json:"action"` // for example consumer.create
	Target string          `json:"target"` // name or id of what was changed
	Before json.RawMessage `json:"before"` // the JSON null: nothing to tell
	After  json.RawMessage `json:"after"`
	Remote string          `json:"remote"` // the caller's address
}

// Audit is a page of the audit.
type Audit struct {
	Data []AuditEntry `json:"data"`        // newest first
	Next string       `json:"next_cursor"` // empty: this is the last page
}

// Audit returns a page of the audit, of one target unless it is empty. It needs the
// scope admin. While the control plane cannot be reached the error wraps
// lockstep.ErrUnavailable.
func (c *Client) Audit(ctx context.Context, target string, p Page) (Audit, error) {
	query := p.query()
	if target != "" {
		query.Set("target", target)
	}
	var out Audit
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "audit"}, query: query, retry: repeatable}, &out)
	return out, err
}
