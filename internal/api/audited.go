package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/auth"
)

// Audited reads the audit.
type Audited interface {
	// Entries returns the entries before that id, newest first, of one target unless it
	// is empty; before 0: from the newest.
	Entries(ctx context.Context, target string, before int64, limit int) ([]StoredEntry, error)
}

// StoredEntry is an entry of the audit as it is kept.
type StoredEntry struct {
	ID int64 // larger for those that came later
	Entry
}

// AuditView is an entry of the audit as the API shows it.
type AuditView struct {
	ID     string          `json:"id"`
	At     time.Time       `json:"at"`
	Actor  string          `json:"actor" doc:"The token's name, or local on a node without tokens"`
	Action string          `json:"action" example:"consumer.create"`
	Target string          `json:"target" doc:"Name or id of what was changed"`
	Before json.RawMessage `json:"before" doc:"Without secrets; null: it was made, or there is nothing to tell"`
	After  json.RawMessage `json:"after" doc:"Without secrets; null: it was deleted, or there is nothing to tell"`
	Remote string          `json:"remote" doc:"The caller's address"`
}

type (
	auditInput struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
		Cursor string `query:"cursor" doc:"next_cursor of the page before"`
		Target string `query:"target" maxLength:"1000" doc:"Only what was done to this"`
	}
	auditOutput struct{ Body List[AuditView] }
)

func (a *API) auditRoutes() {
	typed(a, Route{Method: http.MethodGet, Path: "/v1/audit", Need: auth.NeedAdmin},
		about{"list-audit", "List who changed what, newest first", "node", 200}, a.listAudit)
}

func (a *API) listAudit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	if a.audited == nil {
		return nil, fmt.Errorf("this node keeps its audit in the log only: %w", lockstep.ErrUnavailable)
	}
	var before int64
	if in.Cursor != "" {
		var err error
		if before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil || before < 1 {
			return nil, bad("query.cursor", "cursor must be the next_cursor of the page before")
		}
	}
	found, err := a.audited.Entries(ctx, in.Target, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := &auditOutput{Body: List[AuditView]{Data: []AuditView{}}}
	for _, e := range found[:min(len(found), in.Limit)] {
		out.Body.Data = append(out.Body.Data, AuditView{
			ID: strconv.FormatInt(e.ID, 10), At: e.At.UTC(), Actor: e.Actor, Action: e.Action, Target: e.Target,
			Before: rawOrNull(e.Before), After: rawOrNull(e.After), Remote: e.Remote,
		})
	}
	if len(found) > in.Limit {
		out.Body.NextCursor = &out.Body.Data[in.Limit-1].ID
	}
	return out, nil
}

const selectAudit = `
SELECT id, at, actor, action, target, before, after, coalesce(remote, '')
FROM lockstep.audit
WHERE ($1::text = '' OR target = $1::text) AND ($2::bigint = 0 OR id < $2::bigint)
ORDER BY id DESC
LIMIT $3::int`

// Entries implements [Audited].
func (p Postgres) Entries(ctx context.Context, target string, before int64, limit int) ([]StoredEntry, error) {
	rows, err := p.Pool.Query(ctx, selectAudit, target, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", auth.Down(err))
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e StoredEntry, err error) {
		var before, after []byte
		err = row.Scan(&e.ID, &e.At, &e.Actor, &e.Action, &e.Target, &before, &after, &e.Remote)
		e.Before, e.After = before, after
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", auth.Down(err))
	}
	return out, nil
}
