package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"lockstep/internal/obs"
	"lockstep/internal/pull"
	"lockstep/internal/syncs"
)

// SyncView is a sync as the API shows it, in its own words and in those of 2024.
type SyncView struct {
	ID         string             `json:"id" format:"uuid"`
	Name       string             `json:"name"`
	Provider   string             `json:"provider"`
	Spec       string             `json:"spec,omitempty" doc:"Of provider rest: the YAML"`
	SpecFile   string             `json:"spec_file,omitempty" doc:"Of provider rest in the configuration: the file's name"`
	BaseURL    string             `json:"base_url" doc:"Empty: the API itself"`
	Credential SyncCredentialView `json:"credential"`
	Database   string             `json:"database"`
	Schema     string             `json:"schema"`
	Every      *string            `json:"every" doc:"Pause between two polls; null: as the API's spec says"`
	RateLimit  *SyncRateView      `json:"rate_limit" doc:"null: only the API's own limits"`
	ExternalID *string            `json:"external_id"`
	Metadata   json.RawMessage    `json:"metadata"`
	Paused     bool               `json:"paused"`
	ManagedBy  string             `json:"managed_by" enum:"api,file,apply" doc:"file: defined in the configuration, and changed there only. apply: made by lockstep apply, and changed by hand only with override"`
	From       string             `json:"applied_from,omitempty" doc:"The file that it was applied from"`
	CreatedAt  time.Time          `json:"created_at,omitzero" doc:"Of the configuration: when a node found it first. Left out until its database has been reached"`
	UpdatedAt  time.Time          `json:"updated_at,omitzero"`

	State        string               `json:"state" enum:"starting,waiting,backfilling,polling,paused,failing,blocked" doc:"waiting: another node works on it. failing: the last calls failed, and are tried again. blocked: a person must act"`
	Reason       string               `json:"reason" doc:"Why it waits, fails or is blocked, and what to do"`
	Health       SyncHealthView       `json:"health"`
	Account      string               `json:"account" doc:"Whose credential it is, as the API says; empty: not known yet"`
	BackfilledAt *time.Time           `json:"backfilled_at" doc:"When every collection had been read once"`
	Collections  []SyncCollectionView `json:"collections"`
	Quotas       []SyncQuotaView      `json:"quotas" doc:"What is left of the API's limits"`

	Status        string     `json:"status" enum:"active,disabled" doc:"The older form of paused"`
	CollectionIDs []string   `json:"collection_ids" doc:"The names of the collections"`
	All           bool       `json:"all_collections" doc:"None were chosen: every collection, also of later versions"`
	Frequency     string     `json:"sync_frequency" doc:"The older form of every: continuous, or a length of time"`
	BackfillEnd   *time.Time `json:"initial_backfill_completed_at" doc:"The older form of backfilled_at"`
}

// SyncCredentialView tells of a credential what is no secret.
type SyncCredentialView struct {
	Provider string   `json:"provider"`
	Kind     string   `json:"kind"`
	Names    []string `json:"property_names" doc:"What is stored; the values are never shown"`
}

// SyncRateView is a rate limit in both forms.
type SyncRateView struct {
	PerSecond     *float64 `json:"requests_per_second"`
	MaxConcurrent *int     `json:"max_concurrent"`
	Reserve       float64  `json:"reserve"`
	Allowed       *float64 `json:"allowed_requests" doc:"In each interval"`
	Interval      int64    `json:"interval" doc:"In milliseconds"`
	MaxRequesting *int     `json:"max_concurrent_requests"`
}

// SyncHealthView says whether a person should look.
type SyncHealthView struct {
	Status string `json:"status" enum:"ok,warn,error,paused"`
	Reason string `json:"reason,omitempty"`
	SyncID string `json:"sync_id" format:"uuid"`
}

// SyncCollectionView is how one collection is.
type SyncCollectionView struct {
	Name     string     `json:"name" example:"stripe:customer"`
	Table    string     `json:"table" example:"stripe.customer"`
	State    string     `json:"state"`
	Reason   string     `json:"reason"`
	Records  uint64     `json:"records" doc:"That the running or last backfill has read"`
	Rate     float64    `json:"records_per_second" doc:"Of the running backfill"`
	PolledAt *time.Time `json:"polled_at" doc:"Everything that the API told then is in Postgres"`
	NextAt   *time.Time `json:"next_at" doc:"When it is asked next"`
	SweptAt  *time.Time `json:"swept_at" doc:"When the last complete sweep began"`
	Changed  uint64     `json:"changed" doc:"Rows written since the node started"`
	Deleted  uint64     `json:"deleted" doc:"Rows deleted since the node started"`
	Parked   int        `json:"parked" doc:"Records that the table refused"`
}

// SyncQuotaView is what is left of a limit.
type SyncQuotaView struct {
	Bucket    string     `json:"bucket"`
	Limit     *float64   `json:"limit" doc:"null: not known"`
	Remaining *float64   `json:"remaining" doc:"null: not known"`
	ResetAt   *time.Time `json:"reset_at"`
	PausedTo  *time.Time `json:"paused_to" doc:"After a refusal"`
	Refusals  uint64     `json:"refusals" doc:"Answers that said: too often"`
	Requests  uint64     `json:"requests"`
}

// SyncEntryView is a line of a sync's log.
type SyncEntryView struct {
	ID         int64           `json:"id"`
	At         time.Time       `json:"at"`
	Kind       string          `json:"kind" doc:"backfill, poll, sweep, schema, pause, …"`
	Collection string          `json:"collection"`
	Outcome    string          `json:"outcome" doc:"started, completed, held, failed, …"`
	Message    string          `json:"message"`
	Payload    json.RawMessage `json:"payload" doc:"Figures, by kind"`
}

func viewOfSync(v syncs.View) SyncView {
	d, s := v.Definition, v.Status
	out := SyncView{
		ID: d.ID, Name: d.Name, Provider: d.Provider, Spec: d.Spec, SpecFile: d.SpecFile, BaseURL: obs.Scrub(d.BaseURL), Credential: viewOfCredential(d),
		Database: d.Database, Schema: d.Schema, RateLimit: viewOfRate(d.RateLimit), Metadata: rawOrNull(d.Metadata), Paused: d.Paused, ManagedBy: d.ManagedBy, From: d.AppliedFrom, All: len(d.Collections) == 0,
		CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(),
		State: string(s.State), Reason: obs.Scrub(s.Reason), Health: healthOfSync(v), Account: s.Account, BackfilledAt: timeOrNull(s.BackfilledAt),
		Collections: []SyncCollectionView{}, Quotas: []SyncQuotaView{},
		Status: "active", CollectionIDs: append([]string{}, d.Collections...), Frequency: "continuous", BackfillEnd: timeOrNull(s.BackfilledAt),
	}
	if d.Paused {
		out.Status = "disabled"
	}
	if d.ExternalID != "" {
		out.ExternalID = &d.ExternalID
	}
	if d.Every > 0 {
		out.Frequency = spanText(d.Every)
		out.Every = &out.Frequency
	}
	for _, c := range s.Collections {
		out.Collections = append(out.Collections, viewOfCollection(c))
		if len(d.Collections) == 0 {
			out.CollectionIDs = append(out.CollectionIDs, c.Name)
		}
	}
	for _, q := range s.Quotas {
		out.Quotas = append(out.Quotas, viewOfQuota(q))
	}
	return out
}

func viewOfCredential(d syncs.Definition) SyncCredentialView {
	return SyncCredentialView{Provider: d.Provider, Kind: d.Credential.Kind, Names: append([]string{}, slices.Sorted(maps.Keys(d.Credential.Properties))...)}
}

func viewOfRate(r syncs.RateLimit) *SyncRateView {
	if r == (syncs.RateLimit{}) {
		return nil
	}
	v := &SyncRateView{Reserve: r.Reserve, Interval: time.Second.Milliseconds()}
	if r.RequestsPerSecond > 0 {
		v.PerSecond, v.Allowed = &r.RequestsPerSecond, &r.RequestsPerSecond
	}
	if r.MaxConcurrent > 0 {
		v.MaxConcurrent, v.MaxRequesting = &r.MaxConcurrent, &r.MaxConcurrent
	}
	return v
}

func viewOfCollection(c pull.Collection) SyncCollectionView {
	return SyncCollectionView{
		Name: c.Name, Table: c.Table, State: string(c.State), Reason: obs.Scrub(c.Reason), Records: c.Records, Rate: rounded(c.Rate),
		PolledAt: timeOrNull(c.PolledAt), NextAt: timeOrNull(c.NextAt), SweptAt: timeOrNull(c.SweptAt), Changed: c.Changed, Deleted: c.Deleted, Parked: c.Parked,
	}
}

func viewOfQuota(q pull.Quota) SyncQuotaView {
	v := SyncQuotaView{Bucket: q.Bucket, ResetAt: timeOrNull(q.ResetAt), PausedTo: timeOrNull(q.PausedTo), Refusals: q.Refusals, Requests: q.Requests}
	if limit := rounded(q.Limit); limit > 0 {
		v.Limit = &limit
	}
	if q.Remaining >= 0 {
		remaining := rounded(q.Remaining)
		v.Remaining = &remaining
	}
	return v
}

// rounded makes a number one that JSON has, with a digit behind the point.
func rounded(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return math.Round(f*10) / 10
}

func rawOrNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}

// healthOfSync judges whether a person should look.
func healthOfSync(v syncs.View) SyncHealthView {
	out := SyncHealthView{Status: "ok", SyncID: v.Definition.ID}
	var troubled []string
	parked := 0
	for _, c := range v.Status.Collections {
		if c.State == pull.Blocked || c.State == pull.Failing {
			troubled = append(troubled, c.Name)
		}
		parked += c.Parked
	}
	switch state := v.Status.State; {
	case state == pull.Blocked:
		out.Status, out.Reason = "error", obs.Scrub(v.Status.Reason)
	case v.Definition.Paused || state == pull.Paused:
		out.Status = "paused"
	case state == pull.Failing:
		out.Status, out.Reason = "warn", obs.Scrub(v.Status.Reason)
	case len(troubled) > 0:
		out.Status, out.Reason = "warn", strings.Join(troubled, ", ")+": see the reason of each collection"
	case parked > 0:
		out.Status, out.Reason = "warn", fmt.Sprintf("%d records were refused by their tables: see lockstep.sync_parked", parked)
	}
	return out
}

func viewOfEntry(e syncs.Entry) SyncEntryView {
	return SyncEntryView{ID: e.ID, At: e.At.UTC(), Kind: e.Kind, Collection: e.Collection, Outcome: e.Outcome, Message: obs.Scrub(e.Message), Payload: rawOrNull(e.Payload)}
}

// syncAudit is a definition as the audit keeps it: no secret is in it.
type syncAudit struct {
	syncs.Definition
	Credential SyncCredentialView `json:"credential"`
	Renewed    renewal            `json:"credential_renewed,omitempty"`
	Override   overrides          `json:"override,omitempty"`
	Every      string             `json:"every,omitempty"`
}

// renewal says that a change brought a credential.
type renewal bool

func auditOfSync(d syncs.Definition) syncAudit {
	d.BaseURL = obs.Scrub(d.BaseURL)
	out := syncAudit{Definition: d, Credential: viewOfCredential(d)}
	if d.Every > 0 {
		out.Every = spanText(d.Every)
	}
	return out
}
