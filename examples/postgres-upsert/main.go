// Command postgres-upsert keeps a table of one's own in step with the pull requests
// that Lockstep mirrors from GitHub: it takes changes from a pull consumer, maps them
// to columns, upserts or deletes, and acks. See README.md.
//
//  1. A change is acked after it is committed, so that none is lost.
//  2. A change that comes again, or late, never takes the table back: the highest
//     updated_idx of each pull request is kept, also of those that are deleted.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const schema = `
CREATE TABLE IF NOT EXISTS github_pull_requests (
	upstream_id text PRIMARY KEY, repository_id bigint NOT NULL, number int NOT NULL, title text NOT NULL, body text, state text NOT NULL,
	url text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, merged_at timestamptz);
CREATE TABLE IF NOT EXISTS github_pull_request_versions (upstream_id text PRIMARY KEY, updated_idx bigint NOT NULL)`

const (
	newer = `INSERT INTO github_pull_request_versions AS v VALUES ($1, $2)
		ON CONFLICT (upstream_id) DO UPDATE SET updated_idx = excluded.updated_idx WHERE v.updated_idx < excluded.updated_idx`
	upsert = `INSERT INTO github_pull_requests VALUES ($1, $2::text::bigint, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (upstream_id) DO UPDATE SET (repository_id, number, title, body, state, url, created_at, updated_at, merged_at) =
			(excluded.repository_id, excluded.number, excluded.title, excluded.body, excluded.state, excluded.url, excluded.created_at, excluded.updated_at, excluded.merged_at)`
)

type message struct {
	Token  string   `json:"ack_token"`
	Action string   `json:"action"`
	Record struct { // null, and so empty, for what concerns a whole table
		UpstreamID string          `json:"upstream_id"`
		UpdatedIdx int64           `json:"updated_idx"`
		Deleted    bool            `json:"deleted"`
		Data       json.RawMessage `json:"data"` // read one by one: a bad one is not to stop the others
	} `json:"record"`
}

// pullRequest has those of GitHub's fields that the table wants; GitHub writes them
// repositoryId, createdAt and so on.
type pullRequest struct {
	RepositoryID         json.Number
	Number               int
	Title, State, URL    string
	Body                 *string
	CreatedAt, UpdatedAt time.Time
	MergedAt             *time.Time
}

type worker struct {
	consumer, token string // the consumer's address, and what lets in
	db              *pgxpool.Pool
	log             *slog.Logger
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Error("DATABASE_URL cannot be used", "error", err)
		os.Exit(2)
	}
	defer db.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server, consumer := cmp.Or(os.Getenv("LOCKSTEP_SERVER"), "http://127.0.0.1:7300"), cmp.Or(os.Getenv("CONSUMER"), "pull-requests")
	w := worker{consumer: server + "/v1/http-consumers/" + url.PathEscape(consumer) + "/", token: os.Getenv("LOCKSTEP_TOKEN"), db: db, log: log}
	w.run(ctx)
}

// run works until ctx ends. Whatever fails is tried again.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.once(ctx); err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "trying again soon", "error", err)
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// once takes a batch and applies it in its order. It acks what is committed and nacks
// what failed. A nack gives back the later changes of the same pull request as well, so
// these are passed over.
func (w *worker) once(ctx context.Context) error {
	if _, err := w.db.Exec(ctx, schema); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	var batch struct{ Data []message }
	// The call itself waits for changes: there is no need to ask again and again.
	if err := w.call(ctx, "next", map[string]any{"batch_size": 100, "wait_for": "20s"}, &batch); err != nil {
		return err
	}
	var done, failed []string
	behind := map[string]bool{}
	for _, m := range batch.Data {
		if behind[m.Record.UpstreamID] {
			continue
		}
		if err := pgx.BeginFunc(ctx, w.db, func(tx pgx.Tx) error { return apply(ctx, tx, m) }); err != nil {
			w.log.WarnContext(ctx, "a change was not applied", "upstream_id", m.Record.UpstreamID, "error", err)
			failed, behind[m.Record.UpstreamID] = append(failed, m.Token), true
			continue
		}
		done = append(done, m.Token)
	}
	ctx = context.WithoutCancel(ctx) // what is committed is to be acked, also on the way out
	return errors.Join(w.settle(ctx, "ack", done), w.settle(ctx, "nack", failed))
}

func apply(ctx context.Context, tx pgx.Tx, m message) error {
	r := m.Record
	switch m.Action {
	case "truncate":
		_, err := tx.Exec(ctx, "DELETE FROM github_pull_requests")
		return err
	case "gap": // changes may be missing: a backfill of the consumer brings what there is
		return nil
	}
	tag, err := tx.Exec(ctx, newer, r.UpstreamID, r.UpdatedIdx)
	if err != nil || tag.RowsAffected() == 0 {
		return err // this one, or one after it, has been applied before
	}
	if r.Deleted {
		_, err = tx.Exec(ctx, "DELETE FROM github_pull_requests WHERE upstream_id = $1", r.UpstreamID)
		return err
	}
	var d pullRequest
	if err := json.Unmarshal(r.Data, &d); err != nil {
		return fmt.Errorf("read the pull request: %w", err)
	}
	if d.URL == "" {
		return errors.New("these are not the fields of a pull request")
	}
	_, err = tx.Exec(ctx, upsert, r.UpstreamID, d.RepositoryID.String(), d.Number, d.Title, d.Body, d.State, d.URL, d.CreatedAt, d.UpdatedAt, d.MergedAt)
	return err
}

func (w *worker) settle(ctx context.Context, verb string, tokens []string) error {
	if len(tokens) == 0 {
		return nil
	}
	return w.call(ctx, verb, map[string]any{"ack_tokens": tokens}, nil)
}

// call posts a body and reads the answer into out, if there is one.
func (w *worker) call(ctx context.Context, verb string, body, out any) error {
	data, _ := json.Marshal(body) // numbers and texts always marshal
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.consumer+verb, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if w.token != "" { // a node on this machine may need none
		request.Header.Set("Authorization", "Bearer "+w.token)
	}
	answer, err := (&http.Client{Timeout: time.Minute}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000)) // for people only
		return fmt.Errorf("%s: %s: %s", verb, answer.Status, text)
	}
	if answer.StatusCode == http.StatusNoContent {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(out)
}
