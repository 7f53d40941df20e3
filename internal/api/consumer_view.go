package api

import (
	"encoding/json"
	"strings"
	"time"

	"lockstep"
)

// ConsumerView is a consumer as the API shows it.
type ConsumerView struct {
	ID          string            `json:"id" format:"uuid"`
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	Database    string            `json:"database"`
	Tables      []string          `json:"tables"`
	Collections []string          `json:"collections" doc:"Collections of syncs, in the place of tables"`
	Sync        string            `json:"sync" doc:"Whose collections; empty: those of every sync"`
	Actions     []string          `json:"actions"`
	Filter      string            `json:"filter"`
	Transform   string            `json:"transform"`
	Start       string            `json:"start"`
	Backfill    bool              `json:"backfill" doc:"Existing rows first, as action read"`
	OrderBy     OrderBy           `json:"order_by"`
	AckWait     string            `json:"ack_wait" example:"30s"`
	MaxInFlight int               `json:"max_in_flight"`
	MaxAttempts int               `json:"max_attempts" doc:"0: for ever"`
	OnExhausted string            `json:"on_exhausted"`
	Backoff     BackoffView       `json:"backoff"`
	Batch       BatchView         `json:"batch" doc:"Of kinds that send"`
	Webhook     *Anything         `json:"webhook,omitempty" doc:"Settings of kind webhook, without their secrets"`
	Postgres    *Anything         `json:"postgres,omitempty" doc:"Settings of kind postgres, without their secrets"`
	Nats        *Anything         `json:"nats,omitempty" doc:"Settings of kind nats, without their secrets"`
	Kafka       *Anything         `json:"kafka,omitempty" doc:"Settings of kind kafka, without their secrets"`
	Redis       *Anything         `json:"redis,omitempty" doc:"Settings of kind redis, without their secrets"`
	Destination *DestinationView  `json:"destination,omitempty" doc:"How sending goes, for kinds that send"`
	Paused      bool              `json:"paused"`
	Status      string            `json:"status" enum:"active,paused" doc:"paused: nothing is handed out"`
	Health      HealthView        `json:"health"`
	Metadata    json.RawMessage   `json:"metadata"`
	ManagedBy   string            `json:"managed_by" enum:"api,file,apply" doc:"file: defined in the configuration, and changed there only. apply: made by lockstep apply, and changed by hand only with override"`
	AppliedFrom string            `json:"applied_from,omitempty" doc:"The file that it was applied from"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	Stats       ConsumerStatsView `json:"stats"`
}

// BackoffView is how long a refused change waits.
type BackoffView struct {
	First  string  `json:"first"`
	Max    string  `json:"max"`
	Jitter float64 `json:"jitter"`
}

// BatchView is how changes are put together.
type BatchView struct {
	Size int    `json:"size"`
	Wait string `json:"wait"`
}

// HealthView says whether a person should look.
type HealthView struct {
	Status string `json:"status" enum:"ok,warn,error,paused"`
	Reason string `json:"reason,omitempty"`
}

// HTTPConsumerView is a pull consumer, also in the words of 2024.
type HTTPConsumerView struct {
	ConsumerView
	FilterCollection *string   `json:"filter_collection_id"`
	Filters          OldFilter `json:"filters"`
	DeliverPolicy    string    `json:"deliver_policy"`
	AckWaitMS        int64     `json:"ack_wait_ms"`
	MaxAckPending    int       `json:"max_ack_pending"`
	MaxDeliver       int       `json:"max_deliver" doc:"-1: for ever"`
}

func (a *API) viewOfConsumer(c Consumer) ConsumerView {
	d, s := c.Definition(), c.Standing()
	v := ConsumerView{
		ID: d.ID, Name: d.Name, Kind: d.Kind, Database: d.Database, Filter: d.Filter, Transform: d.Transform,
		Start: d.Start, Backfill: d.Backfill, OrderBy: OrderBy{d.OrderBy}, AckWait: spanText(d.AckWait), MaxInFlight: d.MaxInFlight, MaxAttempts: d.MaxAttempts,
		OnExhausted: d.OnExhausted, Paused: s.Paused, Status: "active", Metadata: d.Metadata, ManagedBy: d.ManagedBy, AppliedFrom: d.AppliedFrom,
		Backoff:   BackoffView{First: spanText(d.Backoff.First), Max: spanText(d.Backoff.Max), Jitter: d.Backoff.Jitter},
		CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(), Stats: statsOf(s), Health: healthOf(s),
	}
	v.Stats.Rate = a.rateOf(d.ID)
	v.Tables, v.Collections, v.Sync = append([]string{}, d.Tables...), append([]string{}, d.Collections...), d.Sync
	if v.Metadata == nil {
		v.Metadata = json.RawMessage("null")
	}
	v.Actions = actionNames(d.Actions)
	v.Batch = BatchView{Size: max(d.Batch.Size, 1), Wait: spanText(d.Batch.Wait)}
	var shown ConsumerBody
	shown.show(d.Kind, d.Shown)
	v.Webhook, v.Postgres, v.Nats, v.Kafka, v.Redis = shown.Webhook, shown.Postgres, shown.Nats, shown.Kafka, shown.Redis
	if d.Kind != "http" {
		v.Destination = a.destinationOf(d.ID)
		v.Health = v.Destination.judge(v.Health)
	}
	if s.Paused {
		v.Status = "paused"
	}
	return v
}

// actionNames names the actions that a consumer gets, those it cannot refuse apart.
func actionNames(actions []lockstep.Action) []string {
	if len(actions) == 0 {
		actions = []lockstep.Action{lockstep.Insert, lockstep.Update, lockstep.Delete}
	}
	names := make([]string, len(actions))
	for i, a := range actions {
		names[i] = a.String()
	}
	return names
}

func (a *API) viewOfHTTPConsumer(c Consumer) HTTPConsumerView {
	d := c.Definition()
	v := HTTPConsumerView{ConsumerView: a.viewOfConsumer(c), AckWaitMS: d.AckWait.Milliseconds(), MaxAckPending: d.MaxInFlight, MaxDeliver: d.MaxAttempts}
	v.FilterCollection, v.Filters = inOlderWords(d)
	if v.MaxDeliver == 0 {
		v.MaxDeliver = -1
	}
	switch d.Start {
	case "beginning":
		v.DeliverPolicy = "all"
	case "now":
		v.DeliverPolicy = "new"
	default:
		v.DeliverPolicy = d.Start
	}
	return v
}

// spanText writes a length of time without its zero parts: 1m, not 1m0s.
func spanText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-2]
	}
	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-2]
	}
	return text
}
