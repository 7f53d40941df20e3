package api

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/obs"
)

// Database is a captured database.
type Database struct {
	Name   string
	Log    Log
	Status func() DatabaseStatus
	// Captured tells of its tables; nil: none are captured.
	Captured Captured
	// ManagedBy is api for one that was made by API; empty: the configuration's.
	ManagedBy string
	// Gone ends when the database is deleted, and its streams with it; nil: it never is.
	Gone context.Context //nolint:containedctx // a signal only: it carries nothing and belongs to no call
}

// DatabaseStatus is how the capture of a database stands.
type DatabaseStatus struct {
	Name         string        `json:"name"`
	ManagedBy    string        `json:"managed_by" enum:"file,api" doc:"file: it is changed in the configuration only"`
	Capture      string        `json:"capture" example:"wal"`
	Status       string        `json:"status" enum:"ok,warn,error" doc:"ok: connected and moving"`
	Reason       string        `json:"reason,omitempty" doc:"Why the status is not ok, and what to do"`
	Connected    bool          `json:"connected"`
	ReceivedLSN  string        `json:"received_lsn,omitempty" example:"0/16B3748"`
	ConfirmedLSN string        `json:"confirmed_lsn,omitempty" doc:"Up to here everything is durable in the stream"`
	LagBytes     int64         `json:"lag_bytes" doc:"Write-ahead log that the stream does not hold yet"`
	FirstSeq     uint64        `json:"first_seq" doc:"The oldest change that retention has left"`
	LastSeq      uint64        `json:"last_seq" doc:"The newest change; 0: none yet"`
	LastCommit   *time.Time    `json:"last_commit_at,omitempty"`
	Slot         *SlotStatus   `json:"slot,omitempty"`
	Publication  string        `json:"publication,omitempty"`
	Patterns     []string      `json:"patterns" doc:"Which tables are captured; empty: everything but system schemas"`
	Connection   *Connection   `json:"connection,omitempty" doc:"Left out for a private Postgres"`
	Tables       []TableStatus `json:"tables,omitempty" doc:"Tables that are not captured in full, with the reason, and those of which there is something unusual to know, with the note"`
	Gaps         []GapStatus   `json:"gaps" doc:"Open gaps: places where changes may be missing and that were not repaired yet"`
	Warnings     []string      `json:"warnings" doc:"What will go wrong unless somebody acts, and what to do"`
	// OldestTransaction is set when it holds something up.
	OldestTransaction *TransactionStatus `json:"oldest_transaction,omitempty" doc:"A transaction that has been open for so long that it holds up the slot"`
}

// GapStatus is a place where changes may be missing.
type GapStatus struct {
	Reason  string    `json:"reason" example:"slot_lost"`
	Tables  []string  `json:"tables" doc:"Empty: every table"`
	FromLSN string    `json:"from_lsn,omitempty"`
	ToLSN   string    `json:"to_lsn,omitempty"`
	At      time.Time `json:"at" doc:"When it was found"`
	Remedy  string    `json:"remedy" example:"lockstep backfill --gap --database app"`
}

// TransactionStatus is an open transaction of the database.
type TransactionStatus struct {
	PID   int32  `json:"pid"`
	XID   string `json:"xid,omitempty"`
	AgeS  int64  `json:"age_s" doc:"How long it has been open, in seconds"`
	State string `json:"state" example:"idle in transaction"`
	User  string `json:"user"`
}

// SlotStatus is how a replication slot stands.
type SlotStatus struct {
	Name          string `json:"name"`
	WALStatus     string `json:"wal_status,omitempty" example:"reserved"`
	RetainedBytes int64  `json:"retained_bytes" doc:"Write-ahead log that the database keeps for the slot"`
	SafeBytes     *int64 `json:"safe_bytes" doc:"How much more may be written before the database gives the slot up; null: without limit"`
}

// TableStatus is how a table is captured.
type TableStatus struct {
	Name      string `json:"name"`
	Published string `json:"published" doc:"full, inserts only, or none"`
	Reason    string `json:"reason,omitempty"`
	Remedy    string `json:"remedy,omitempty"`
	Note      string `json:"note,omitempty" doc:"What its changes lack, or what to expect of them; nothing is wrong"`
}

// Part is one part of the node, as readiness sees it.
type Part struct {
	Name   string `json:"name" example:"capture app"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty" doc:"Why it is not ready"`
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool   `json:"ready"`
	Parts []Part `json:"parts"`
}

// NodeStatus is how the node is as a whole.
type NodeStatus struct {
	Version   string             `json:"version"`
	GoVersion string             `json:"go_version"`
	StartedAt time.Time          `json:"started_at"`
	UptimeS   int64              `json:"uptime_s"`
	Open      bool               `json:"open" doc:"true: there are no API tokens, everybody on this machine may call"`
	Ready     bool               `json:"ready"`
	Parts     []Part             `json:"parts"`
	Databases []DatabaseStatus   `json:"databases"`
	Consumers []ConsumerStanding `json:"consumers"`
}

// ConsumerStanding is a consumer in one line.
type ConsumerStanding struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	Database string            `json:"database"`
	Status   string            `json:"status"`
	Health   HealthView        `json:"health"`
	Stats    ConsumerStatsView `json:"stats"`
}

type (
	databasesOutput struct{ Body List[DatabaseStatus] }
	databaseOutput  struct{ Body DatabaseStatus }
	statusOutput    struct{ Body NodeStatus }
	readyOutput     struct {
		Status int
		Body   Readiness
	}
	healthOutput struct {
		Body struct {
			Status string `json:"status" example:"ok"`
		}
	}
	nameInput struct {
		Name string `path:"name" doc:"The database's name in the configuration"`
	}
)

func (a *API) statusRoutes() {
	read := func(path string) Route { return Route{Method: http.MethodGet, Path: path, Need: auth.NeedRead} }
	open := func(path string) Route { return Route{Method: http.MethodGet, Path: path, Need: auth.NeedNothing} }
	typed(a, read("/v1/databases"), about{"list-databases", "List databases and how their capture stands", "databases", 200}, a.listDatabases)
	typed(a, read("/v1/databases/{name}"), about{"get-database", "Show a database and how its capture stands", "databases", 200}, a.getDatabase)
	typed(a, read("/v1/status"), about{"get-status", "Show how the node and everything in it is", "node", 200}, a.getStatus)
	typed(a, open("/healthz"), about{"get-health", "Tell that the process answers", "node", 200}, getHealth)
	typed(a, open("/readyz"), about{"get-readiness", "Tell whether capture is connected and moving; 503 when not", "node", 200}, a.getReadiness)
	if a.metrics == nil || a.gatherer == nil {
		return
	}
	h := a.metrics.Handler(a.gatherer)
	a.plain(Route{Method: http.MethodGet, Path: "/metrics", Need: auth.NeedNothing, Hidden: true}, about{}, nil, h.ServeHTTP)
}

// database finds a database by its name.
func (a *API) database(name string) (Database, error) {
	for _, db := range a.databases() {
		if db.Name == name {
			return db, nil
		}
	}
	if a.managed != nil && !a.managed.Loaded() {
		return Database{}, fmt.Errorf("database %q: the databases made by API are not known yet, try again: %w", name, lockstep.ErrUnavailable)
	}
	return Database{}, fmt.Errorf("database %q: %w", name, lockstep.ErrNotFound)
}

func (db Database) view() DatabaseStatus {
	var s DatabaseStatus
	if db.Status != nil {
		s = db.Status()
	}
	s.Name, s.Reason, s.ManagedBy, s.Patterns = db.Name, obs.Scrub(s.Reason), keptByFile, append([]string{}, s.Patterns...)
	if db.ManagedBy != "" {
		s.ManagedBy = db.ManagedBy
	}
	if db.Log != nil {
		s.FirstSeq, s.LastSeq = db.Log.First(), db.Log.Last().Seq
	}
	if s.Status == "" {
		s.Status = "ok"
	}
	s.judge()
	return s
}

// judge completes gaps and warnings, and lets them show in the status.
func (s *DatabaseStatus) judge() {
	s.Gaps, s.Warnings = append([]GapStatus{}, s.Gaps...), append([]string{}, s.Warnings...)
	for i, w := range s.Warnings {
		s.Warnings[i] = obs.Scrub(w)
	}
	for i := range s.Gaps {
		g := &s.Gaps[i]
		if g.Tables == nil {
			g.Tables = []string{}
		}
		if g.Remedy == "" {
			g.Remedy = "lockstep backfill --gap --database " + s.Name
		}
		g.At = g.At.UTC()
	}
	switch {
	case s.Status != "ok":
	case len(s.Gaps) > 0:
		s.Status, s.Reason = "warn", fmt.Sprintf("changes may be missing (%s); %s", s.Gaps[0].Reason, s.Gaps[0].Remedy)
	case len(s.Warnings) > 0:
		s.Status, s.Reason = "warn", s.Warnings[0]
	}
}

func (a *API) databaseViews() []DatabaseStatus {
	out := []DatabaseStatus{}
	for _, db := range a.databases() {
		out = append(out, db.view())
	}
	return out
}

func (a *API) listDatabases(context.Context, *noInput) (*databasesOutput, error) {
	return &databasesOutput{Body: List[DatabaseStatus]{Data: a.databaseViews()}}, nil
}

func (a *API) getDatabase(_ context.Context, in *nameInput) (*databaseOutput, error) {
	db, err := a.database(in.Name)
	if err != nil {
		return nil, err
	}
	return &databaseOutput{Body: db.view()}, nil
}

func (a *API) getStatus(ctx context.Context, _ *noInput) (*statusOutput, error) {
	ready, parts := a.readiness(ctx)
	out := &statusOutput{Body: NodeStatus{
		Version: a.version, GoVersion: runtime.Version(), StartedAt: a.started.UTC(), UptimeS: int64(time.Since(a.started).Seconds()),
		Open: a.tokens.Open(), Ready: ready, Parts: parts, Databases: a.databaseViews(), Consumers: []ConsumerStanding{},
	}}
	for _, c := range a.consumers.List() {
		v := a.viewOfConsumer(c)
		out.Body.Consumers = append(out.Body.Consumers, ConsumerStanding{
			ID: v.ID, Name: v.Name, Kind: v.Kind, Database: v.Database, Status: v.Status, Health: v.Health, Stats: v.Stats,
		})
	}
	return out, nil
}

func getHealth(context.Context, *noInput) (*healthOutput, error) {
	out := &healthOutput{}
	out.Body.Status = "ok"
	return out, nil
}

func (a *API) readiness(ctx context.Context) (bool, []Part) {
	parts := append([]Part{}, a.health(ctx)...)
	if err := a.tokens.Ready(); err != nil {
		parts = append(parts, Part{Name: "api tokens", Reason: err.Error()})
	}
	if a.drain.begun() {
		parts = append(parts, Part{Name: "http", Reason: "the node is stopping"})
	}
	ready := true
	for i, p := range parts {
		ready = ready && p.Ready
		// Reasons are errors' texts, and this answer is for everybody.
		parts[i].Reason = obs.Scrub(p.Reason)
	}
	return ready, parts
}

func (a *API) getReadiness(ctx context.Context, _ *noInput) (*readyOutput, error) {
	ready, parts := a.readiness(ctx)
	out := &readyOutput{Status: http.StatusOK, Body: Readiness{Ready: ready, Parts: parts}}
	if !ready {
		out.Status = http.StatusServiceUnavailable
	}
	return out, nil
}
