package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"lockstep/internal/auth"
	"lockstep/internal/obs"
)

// Captured tells of the tables of one database. Its methods are safe for concurrent
// use.
type Captured interface {
	// Tables returns the tables that the configuration names, ordered by schema and
	// name, as capture saw them last. It asks nobody. The slice may be shared: it must
	// not be changed.
	Tables() []CapturedTable
	// Measure asks the database for the sizes of tables, by oid. It takes a few seconds
	// at most.
	Measure(ctx context.Context, oids []uint32) (map[uint32]TableSize, error)
	// Changes returns the schema changes that capture saw since the node's start, newest
	// first, 100 at most.
	Changes() []SchemaChange
}

// CapturedTable is a table as capture saw it last.
type CapturedTable struct {
	OID             uint32
	Schema, Name    string
	Kind            string   // table, partitioned table, view, …
	KeyColumns      []string // in the order of the index; empty: the whole row
	KeyKind         string   // primary_key, replica_identity or row
	ReplicaIdentity string   // default, index, full or nothing
	Published       string   // full, inserts only or none
	Reason, Remedy  string
	Note            string
}

// TableSize is how large a table is, all its partitions together.
type TableSize struct {
	Rows  int64 // as Postgres estimates
	Bytes int64 // with indexes and large values
}

// SchemaChange is a table that changes came of in another shape than before.
type SchemaChange struct {
	Table   string         `json:"table" example:"public.orders"`
	At      time.Time      `json:"at" doc:"Commit of the first transaction that showed it: Postgres tells a table's shape with the next change of its rows"`
	Columns []ColumnChange `json:"changes"`
	More    int            `json:"more,omitempty" doc:"Changes that are not listed: 20 are at most"`
}

// ColumnChange is one difference of a table's shapes.
type ColumnChange struct {
	Kind   string `json:"kind" enum:"column_added,column_dropped,type_changed,key_changed,identity_changed,table_renamed" doc:"A renamed column is one that was dropped and one that was added"`
	Column string `json:"column,omitempty"`
	Before string `json:"before,omitempty" doc:"The type, the key, the replica identity or the name"`
	After  string `json:"after,omitempty"`
}

// CapturedTableView is a table as the API shows it.
type CapturedTableView struct {
	Schema          string   `json:"schema"`
	Name            string   `json:"name"`
	Table           string   `json:"table" example:"public.orders" doc:"As patterns name it"`
	Kind            string   `json:"kind" doc:"table, partitioned table (which stands for its partitions), view, …"`
	KeyColumns      []string `json:"key_columns" doc:"In the order of the index; empty: the whole row"`
	KeyKind         string   `json:"key_kind" enum:"primary_key,replica_identity,row" doc:"What orders its changes"`
	ReplicaIdentity string   `json:"replica_identity" enum:"default,index,full,nothing" doc:"What old rows hold: the key, an index's columns, everything, or nothing, which is so for default without a primary key, too"`
	Published       string   `json:"published" enum:"full,inserts only,none"`
	EstimatedRows   *int64   `json:"estimated_rows" doc:"As Postgres estimates; null: not known now"`
	SizeBytes       *int64   `json:"size_bytes" doc:"With indexes and large values; null: not known now"`
	Reason          string   `json:"reason,omitempty" doc:"What is not as it should be"`
	Remedy          string   `json:"remedy,omitempty"`
	Note            string   `json:"note,omitempty" doc:"What its changes lack, or what to expect of them; nothing is wrong"`
}

// CapturedList is a page of tables, and what changed in them.
type CapturedList struct {
	List[CapturedTableView]
	Total         int            `json:"total" doc:"Tables on all pages"`
	Unmeasured    string         `json:"unmeasured,omitempty" doc:"Why rows and sizes are not known now"`
	SchemaChanges []SchemaChange `json:"schema_changes" doc:"Seen by capture since the node's start, newest first; the last 100 of the database. On the first page only"`
}

type (
	capturedInput struct {
		Name   string `path:"name" doc:"The database's name in the configuration"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
		Cursor string `query:"cursor" doc:"next_cursor of the page before"`
	}
	capturedOutput struct{ Body CapturedList }
)

// measureWithin bounds the look at sizes: the list is worth more than they are.
const measureWithin = 3 * time.Second

func (a *API) capturedRoutes() {
	typed(a, Route{Method: http.MethodGet, Path: "/v1/databases/{name}/tables", Need: auth.NeedRead},
		about{"list-tables", "List the tables that are captured, how, and their schema changes since the node's start", "databases", 200}, a.listTables)
}

func (a *API) listTables(ctx context.Context, in *capturedInput) (*capturedOutput, error) {
	db, err := a.database(in.Name)
	if err != nil {
		return nil, err
	}
	after, err := tablePlace(in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &capturedOutput{Body: CapturedList{List: List[CapturedTableView]{Data: []CapturedTableView{}}, SchemaChanges: []SchemaChange{}}}
	if db.Captured == nil {
		return out, nil
	}
	all := db.Captured.Tables()
	out.Body.Total = len(all)
	if in.Cursor == "" {
		out.Body.SchemaChanges = append(out.Body.SchemaChanges, db.Captured.Changes()...)
	} else {
		from, found := slices.BinarySearchFunc(all, after, compareTables)
		if found {
			from++
		}
		all = all[from:]
	}
	page := all[:min(len(all), in.Limit)]
	if len(page) < len(all) {
		next := cursorOf(page[len(page)-1])
		out.Body.NextCursor = &next
	}
	sizes, err := measured(ctx, db.Captured, page)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out.Body.Unmeasured = obs.Scrub(err.Error())
	}
	for _, t := range page {
		out.Body.Data = append(out.Body.Data, viewOfTable(t, sizes))
	}
	return out, nil
}

func measured(ctx context.Context, c Captured, page []CapturedTable) (map[uint32]TableSize, error) {
	if len(page) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, measureWithin)
	defer cancel()
	oids := make([]uint32, len(page))
	for i, t := range page {
		oids[i] = t.OID
	}
	return c.Measure(ctx, oids)
}

func viewOfTable(t CapturedTable, sizes map[uint32]TableSize) CapturedTableView {
	v := CapturedTableView{
		Schema: t.Schema, Name: t.Name, Table: t.Schema + "." + t.Name, Kind: t.Kind, KeyColumns: append([]string{}, t.KeyColumns...), KeyKind: t.KeyKind,
		ReplicaIdentity: t.ReplicaIdentity, Published: t.Published, Reason: obs.Scrub(t.Reason), Remedy: t.Remedy, Note: t.Note,
	}
	if size, known := sizes[t.OID]; known {
		v.EstimatedRows, v.SizeBytes = &size.Rows, &size.Bytes
	}
	return v
}

func compareTables(a, b CapturedTable) int {
	return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
}

// cursorOf names a table's place, which stays when tables come and go. No name holds
// a zero byte.
func cursorOf(t CapturedTable) string {
	return base64.RawURLEncoding.EncodeToString([]byte(t.Schema + "\x00" + t.Name))
}

func tablePlace(cursor string) (CapturedTable, error) {
	if cursor == "" {
		return CapturedTable{}, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	schema, name, ok := strings.Cut(string(text), "\x00")
	if err != nil || !ok {
		return CapturedTable{}, bad("query.cursor", "cursor must be the next_cursor of the page before")
	}
	return CapturedTable{Schema: schema, Name: name}, nil
}
