package api

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"
)

// The shapes below describe, for the OpenAPI document, what the routes that read
// and write bytes themselves take and give.

// ChangeView is a change as consumers get it.
type ChangeView struct {
	Record   json.RawMessage `json:"record" doc:"The row after the change; for delete the row as it was"`
	Changes  json.RawMessage `json:"changes" doc:"Updates only: the old values of the columns that changed; null when they are not known"`
	Action   string          `json:"action" enum:"insert,update,delete,read,truncate,gap"`
	Metadata MetadataView    `json:"metadata"`
}

// MetadataView is what a change tells beside the row.
type MetadataView struct {
	Database       string          `json:"database"`
	TableSchema    string          `json:"table_schema"`
	TableName      string          `json:"table_name"`
	Seq            uint64          `json:"seq" doc:"Its place in the database's stream, from 1"`
	CommitLSN      uint64          `json:"commit_lsn"`
	CommitIdx      uint32          `json:"commit_idx"`
	CommitTime     string          `json:"commit_timestamp"`
	XID            uint32          `json:"xid"`
	PKs            []string        `json:"record_pks"`
	KeyKind        string          `json:"key_kind" enum:"primary_key,replica_identity,row"`
	IdempotencyKey string          `json:"idempotency_key" doc:"Equal on every redelivery"`
	Origin         string          `json:"origin" enum:"sync,proxy,binding,user"`
	OldKnown       bool            `json:"old_known"`
	Annotations    json.RawMessage `json:"transaction_annotations"`
	Unchanged      []string        `json:"unchanged,omitempty" doc:"Columns that Postgres did not send; they are absent from record"`
	Late           bool            `json:"late,omitempty" doc:"Later changes of its key went by"`
	Backfill       *struct {
		ID string `json:"id"`
	} `json:"backfill,omitempty" doc:"Of a read: the backfill that read the row"`
	Gap      json.RawMessage `json:"gap,omitempty" doc:"Of a gap: where changes may be missing, and why"`
	Consumer *struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"consumer,omitempty"`
}

// DeliveryView is a change with the right to settle it.
type DeliveryView struct {
	AckToken string `json:"ack_token" doc:"Names this delivery: pass it to ack, nack or extend"`
	Attempt  int    `json:"attempt" doc:"From 1"`
	ChangeView
}

// InfoView counts.
type InfoView struct {
	Pending    uint64 `json:"num_pending"`
	AckPending uint64 `json:"num_ack_pending"`
}

type (
	handoutView struct {
		Data []DeliveryView `json:"data"`
		Info InfoView       `json:"info"`
	}
	peekView struct {
		Data []ChangeView `json:"data"`
		Info InfoView     `json:"info"`
	}
	nextBody struct {
		BatchSize int  `json:"batch_size,omitempty" minimum:"1" maximum:"1000" default:"1"`
		WaitFor   Span `json:"wait_for,omitempty" doc:"0 to 5m; 0 answers at once"`
	}
	ackBody struct {
		Tokens []string `json:"ack_tokens" minItems:"1"`
	}
	nackBody struct {
		Tokens  []string `json:"ack_tokens" minItems:"1"`
		Delay   Span     `json:"delay,omitempty" doc:"Instead of the consumer's backoff"`
		Reason  string   `json:"reason,omitempty" doc:"Shown with the dead letter and with a blocked key"`
		Release bool     `json:"release,omitempty" doc:"Give back without counting an attempt"`
	}
	extendBody struct {
		Tokens []string `json:"ack_tokens" minItems:"1"`
		By     Span     `json:"by" doc:"How much longer from now"`
	}
)

func (a *API) jsonContent(schema *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: schema}}
}

func schemaOf[T any](a *API, name string) *huma.Schema {
	return a.huma.OpenAPI().Components.Schemas.Schema(typeOf[T](), true, name)
}

func (a *API) describeNext(op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		queryParam("batch_size", "At most so many changes", numberSchema(1, maxBatchSize, 1)),
		queryParam("wait_for", "How long to wait for a change: milliseconds, or with a unit such as 30s; at most 5m", textSchema()))
	op.Responses["200"] = &huma.Response{Description: "Changes, in order; none when there is nothing to hand out", Content: a.jsonContent(schemaOf[handoutView](a, "Handout"))}
}

func (a *API) describeNextBody(op *huma.Operation) {
	a.describeNext(op)
	op.RequestBody = &huma.RequestBody{Description: "The parameters may also come here", Content: a.jsonContent(schemaOf[nextBody](a, "Next"))}
}

func (a *API) describeSettle(v verb) func(*huma.Operation) {
	return func(op *huma.Operation) {
		var schema *huma.Schema
		switch v {
		case verbAck:
			schema = schemaOf[ackBody](a, "Ack")
		case verbNack:
			schema = schemaOf[nackBody](a, "Nack")
		case verbExtend:
			schema = schemaOf[extendBody](a, "Extend")
		}
		op.RequestBody = &huma.RequestBody{Required: true, Content: a.jsonContent(schema)}
		op.Responses["204"] = &huma.Response{Description: "Done and durable"}
		op.Responses["400"] = a.problemResponse("Malformed; nothing was applied")
		op.Responses["409"] = a.problemResponse("Some tokens are stale, see the member stale; the others were applied")
	}
}

func (a *API) describePeek(op *huma.Operation) {
	op.Parameters = append(op.Parameters, queryParam("limit", "At most so many changes", numberSchema(1, maxBatchSize, 10)))
	op.Responses["200"] = &huma.Response{Description: "Changes that wait", Content: a.jsonContent(schemaOf[peekView](a, "Peek"))}
}

func (a *API) describeChanges(op *huma.Operation) {
	op.Description += " Each event has the change's seq as id, its action as event and the message as data. " +
		"A client that comes back with Last-Event-ID misses nothing; when retention has removed changes meanwhile, an event gap says how many."
	op.Parameters = append(op.Parameters,
		queryParam("tables", "Patterns, separated by commas", textSchema()),
		queryParam("actions", "Actions, separated by commas", textSchema()),
		queryParam("filter", "An expression; changes for which it is false are left out", textSchema()),
		queryParam("from", "Where to begin: now (default), beginning, a seq, a time, or 1h for an hour ago", textSchema()),
		queryParam("last_event_id", "Like the header, for browsers", textSchema()),
		queryParam("heartbeat", "event: heartbeats are events, not comments", textSchema()),
		&huma.Param{Name: "Last-Event-ID", In: "header", Description: "The last id seen: goes on behind it", Schema: textSchema()})
	op.Responses["200"] = &huma.Response{Description: "A stream of events", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: textSchema()}}}
}

// foundChange is one change, and what became of it.
type foundChange struct {
	ChangeView
	Mirror    *mirrorView      `json:"mirror,omitempty" doc:"Of a row of a mirror table: where it comes from"`
	Consumers []whereaboutView `json:"consumers"`
}

type whereaboutView struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	State  string `json:"state" enum:"settled,in_flight,waiting,blocked,parked,not_matching,ahead,unknown"`
	Tries  int    `json:"attempts" doc:"That failed"`
	Holder string `json:"holder,omitempty" doc:"Who has it: token@address"`
	Reason string `json:"reason,omitempty"`
	Until  string `json:"until,omitempty" doc:"When the lease or the delay ends"`

	Matches     string        `json:"matches,omitempty" enum:"yes,filtered,not_selected,failed" doc:"By the definition as it is now; filtered: its filter does not let the change through; failed: its filter fails on it"`
	Fault       string        `json:"fault,omitempty" doc:"Why its filter fails"`
	BeforeStart bool          `json:"before_start,omitempty" doc:"Settled since the consumer was made to begin behind it"`
	NextAttempt string        `json:"next_attempt_at,omitempty" doc:"It waits, and is not tried before"`
	Dead        *deadView     `json:"dead,omitempty" doc:"Its dead letter"`
	Log         []AttemptView `json:"attempt_log,omitempty" doc:"Kinds that send: the attempts that are remembered, the newest first, at most 20"`
}

// deadView is a dead letter without what it holds.
type deadView struct {
	State    string `json:"state" enum:"parked,blocked,retrying"`
	Reason   string `json:"reason"`
	Attempts int    `json:"attempts"`
	At       string `json:"at"`
}

// mirrorView is where a row of a mirror table comes from. What the row does not tell is
// null.
type mirrorView struct {
	SyncID      string  `json:"sync_id"`
	Sync        string  `json:"sync" doc:"Its name"`
	Provider    string  `json:"provider"`
	Collection  string  `json:"collection_id" example:"stripe:customer"`
	ID          *string `json:"id" doc:"Lockstep's own, of the column _id"`
	UpstreamID  *string `json:"upstream_id" doc:"The API's"`
	CreatedAt   *string `json:"upstream_created_at" doc:"By the API's clock"`
	UpdatedAt   *string `json:"upstream_updated_at" doc:"By the API's clock: the version"`
	FetchedAt   *string `json:"fetched_at" doc:"When the API gave it"`
	Fingerprint *string `json:"fingerprint" doc:"Of the API's JSON, base64"`
	Notes       any     `json:"notes" doc:"Values that did not fit their columns, with the reason"`
	CommittedAt string  `json:"committed_at" doc:"When its transaction committed, by the database's clock"`
}

func (a *API) describeChange(op *huma.Operation) {
	op.Responses["200"] = &huma.Response{Description: "The change", Content: a.jsonContent(schemaOf[foundChange](a, "ChangeStanding"))}
	op.Responses["410"] = a.problemResponse("Retention has removed it")
}

// letterView is a dead letter.
type letterView struct {
	Seq      uint64     `json:"seq"`
	State    string     `json:"state" enum:"parked,blocked,retrying"`
	Reason   string     `json:"reason"`
	Attempts int        `json:"attempts"`
	At       string     `json:"at"`
	Table    string     `json:"table"`
	PKs      []string   `json:"record_pks"`
	Message  ChangeView `json:"message" doc:"As it was delivered"`
}

type lettersView struct {
	Data    []letterView `json:"data"`
	Next    *string      `json:"next_cursor"`
	Looked  int          `json:"looked_at,omitempty" doc:"With stopped_early, key or reason: letters that were looked at for this page"`
	Stopped bool         `json:"stopped_early,omitempty" doc:"The page ended before it was full: it looked at as many as a page may, or they are large"`
}

func (a *API) describeLetters(op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		queryParam("limit", "At most so many letters", numberSchema(1, maxBatchSize, 100)),
		queryParam("cursor", "next_cursor of the page before", textSchema()),
		queryParam("order", "By seq: oldest (default) or newest first", &huma.Schema{Type: huma.TypeString, Enum: []any{"oldest", "newest"}}),
		queryParam("key", "Only those whose key's values, joined by comma and space, have this part", textSchema()),
		queryParam("reason", "Only those whose reason has this part, whatever its case", textSchema()),
		queryParam("look_ms", "With key or reason: how many milliseconds it looks at most", numberSchema(minLookMS, maxLookMS, maxLookMS)),
		queryParam("messages", "false: message is null", &huma.Schema{Type: huma.TypeBoolean}))
	op.Description += " With key or reason a page looks at no more than 10,000 letters and for no longer than look_ms: it may be empty and have a next_cursor."
	op.Responses["200"] = &huma.Response{Description: "Dead letters, by seq", Content: a.jsonContent(schemaOf[lettersView](a, "Letters"))}
}

func (a *API) describeLetter(op *huma.Operation) {
	op.Responses["200"] = &huma.Response{Description: "The dead letter", Content: a.jsonContent(schemaOf[letterView](a, "Letter"))}
}
