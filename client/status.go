package client

import (
	"context"
	"net/http"
	"time"
)

// Database is how the capture of a database stands.
type Database struct {
	Name         string     `json:"name"`
	ManagedBy    string     `json:"managed_by"` // file: the configuration, or api
	Capture      string     `json:"capture"`
	Status       string     `json:"status"` // ok, warn or error
	Reason       string     `json:"reason"` // why it is not ok, and what to do
	Connected    bool       `json:"connected"`
	ReceivedLSN  string     `json:"received_lsn"`
	ConfirmedLSN string     `json:"confirmed_lsn"` // up to here everything is durable in the stream
	LagBytes     int64      `json:"lag_bytes"`
	FirstSeq     uint64     `json:"first_seq"` // the oldest change that retention has left
	LastSeq      uint64     `json:"last_seq"`  // the newest change; 0: none yet
	LastCommit   *time.Time `json:"last_commit_at"`
	Slot         *struct {
		Name          string `json:"name"`
		WALStatus     string `json:"wal_status"`
		RetainedBytes int64  `json:"retained_bytes"`
		SafeBytes     *int64 `json:"safe_bytes"` // how much more may be written before the database gives the slot up; nil: without limit
	} `json:"slot"`
	Publication string   `json:"publication"`
	Patterns    []string `json:"patterns"` // which tables are captured; empty: everything but system schemas
	// Connection says where it is; nil: a private Postgres.
	Connection *struct {
		Host     string `json:"host"` // or the folder of its socket
		Port     uint16 `json:"port"`
		Database string `json:"database"`
		User     string `json:"user"`
	} `json:"connection"`
	Tables []struct {
		Name      string `json:"name"`
		Published string `json:"published"`
		Reason    string `json:"reason"`
		Remedy    string `json:"remedy"`
		Note      string `json:"note"` // what its changes lack, or what to expect of them; nothing is wrong
	} `json:"tables"` // those that are not captured in full, and those with something unusual to know
	Gaps     []Gap    `json:"gaps"`     // open ones: changes may be missing there
	Warnings []string `json:"warnings"` // what will go wrong unless somebody acts, and what to do
	// OldestTransaction has been open for so long that it holds up the slot; nil: none.
	OldestTransaction *struct {
		PID   int32  `json:"pid"`
		XID   string `json:"xid"`
		AgeS  int64  `json:"age_s"`
		State string `json:"state"`
		User  string `json:"user"`
	} `json:"oldest_transaction"`
}

// Gap is a place where changes may be missing, and that was not repaired yet.
type Gap struct {
	Reason  string    `json:"reason"`
	Tables  []string  `json:"tables"` // empty: every table
	FromLSN string    `json:"from_lsn"`
	ToLSN   string    `json:"to_lsn"`
	At      time.Time `json:"at"` // when it was found
	Remedy  string    `json:"remedy"`
}

// Database returns the database with that name.
func (c *Client) Database(ctx context.Context, name string) (Database, error) {
	var out Database
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "databases", name}, retry: repeatable}, &out)
	return out, err
}

// Databases returns the databases of the node.
func (c *Client) Databases(ctx context.Context) ([]Database, error) {
	return all[Database](ctx, c, "v1", "databases")
}

// Part is one part of the node, as readiness sees it.
type Part struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason"` // why it is not
}

// Node is how the node is as a whole.
type Node struct {
	Version   string     `json:"version"`
	StartedAt time.Time  `json:"started_at"`
	Open      bool       `json:"open"` // there are no tokens: everybody on the machine may call
	Ready     bool       `json:"ready"`
	Parts     []Part     `json:"parts"`
	Databases []Database `json:"databases"`
	Consumers []Consumer `json:"consumers"` // with id, name, kind, database, status, health and stats only
}

// Status returns how the node and everything in it is.
func (c *Client) Status(ctx context.Context) (Node, error) {
	var out Node
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "status"}, retry: repeatable}, &out)
	return out, err
}

// Ready returns nil when the node is ready: capture is connected and moving. A node
// that is not ready gives an error that wraps lockstep.ErrUnavailable.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodGet, path: []string{"readyz"}}, nil)
}
