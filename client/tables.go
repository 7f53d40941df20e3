package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Page says which part of a list is wanted. The zero value is its beginning.
type Page struct {
	Limit  int    // at most so many; 0: the server's default
	Cursor string // Next of the page before
}

func (p Page) query() url.Values {
	q := url.Values{}
	if p.Limit > 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	if p.Cursor != "" {
		q.Set("cursor", p.Cursor)
	}
	return q
}

// Table is a table of a captured database.
type Table struct {
	Schema          string   `json:"schema"`
	Name            string   `json:"name"`
	Table           string   `json:"table"`            // schema.name, as patterns name it
	Kind            string   `json:"kind"`             // table, partitioned table, view, …
	KeyColumns      []string `json:"key_columns"`      // in the order of the index; empty: the whole row
	KeyKind         string   `json:"key_kind"`         // primary_key, replica_identity or row
	ReplicaIdentity string   `json:"replica_identity"` // what old rows hold: default (the key), index, full or nothing
	Published       string   `json:"published"`        // full, inserts only or none
	EstimatedRows   *int64   `json:"estimated_rows"`   // nil: not known now
	SizeBytes       *int64   `json:"size_bytes"`       // with indexes and large values; nil: not known now
	Reason          string   `json:"reason"`           // what is not as it should be
	Remedy          string   `json:"remedy"`
	Note            string   `json:"note"` // what its changes lack, or what to expect of them; nothing is wrong
}

// Tables is a page of the tables of a database.
type Tables struct {
	Data       []Table `json:"data"`        // by schema and name
	Next       string  `json:"next_cursor"` // empty: this is the last page
	Total      int     `json:"total"`       // tables on all pages
	Unmeasured string  `json:"unmeasured"`  // why rows and sizes are not known now
	// SchemaChanges are those that capture saw since the node's start, newest first,
	// 100 at most. They are on the first page only.
	SchemaChanges []SchemaChange `json:"schema_changes"`
}

// SchemaChange is a table that changes came of in another shape than before.
type SchemaChange struct {
	Table   string         `json:"table"`
	At      time.Time      `json:"at"` // commit of the first transaction that showed it
	Changes []ColumnChange `json:"changes"`
	More    int            `json:"more"` // changes that are not listed
}

// ColumnChange is one difference of a table's shapes.
type ColumnChange struct {
	Kind   string `json:"kind"`   // column_added, column_dropped, type_changed, key_changed, identity_changed or table_renamed
	Column string `json:"column"` // empty for what is the table's
	Before string `json:"before"` // the type, the key, the replica identity or the name
	After  string `json:"after"`
}

// Tables returns a page of the tables of a database that the configuration names: how
// they are captured, how large they are, and what changed in them.
func (c *Client) Tables(ctx context.Context, database string, p Page) (Tables, error) {
	var out Tables
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "databases", database, "tables"}, query: p.query(), retry: repeatable}, &out)
	return out, err
}
