package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/auth"
)

// ManagedDatabases makes, changes and deletes databases while the node runs. Errors of all
// methods: [*DatabaseError] for a definition that is wrong, [lockstep.ErrNotFound],
// [lockstep.ErrConflict] for a name that is taken, for a database of the configuration and
// for one that is in use, [lockstep.ErrUnavailable] while the control plane or the database
// is away. When there is an error, nothing has changed.
type ManagedDatabases interface {
	// Loaded reports whether all that were made are known. Until then, after a start, one
	// that is not found may be there.
	Loaded() bool
	// Create stores a database and begins to capture it.
	Create(ctx context.Context, d DatabaseDefinition) error
	// Change gives a database other patterns of tables.
	Change(ctx context.Context, name string, tables []string) error
	// Delete ends the capture of a database and drops what was made for it there. What the
	// stream has of its changes stays until retention takes it.
	Delete(ctx context.Context, name string, leave LeaveSlot) (DatabaseRemoval, error)
}

// LeaveSlot says what becomes of a deleted database's slot and publications.
type LeaveSlot int

// What becomes of them.
const (
	DropSlot LeaveSlot = iota
	KeepSlot
)

// DatabaseDefinition is a database that is to be made. The URL is secret.
type DatabaseDefinition struct {
	Name, URL                  string
	Capture, Slot, Publication string // empty: the default
	Tables                     []string
	Int8, RetainWAL            string // empty: the default
	Unchecked                  bool   // it is not connected to before it is stored
}

// DatabaseError says what is wrong with a definition.
type DatabaseError struct {
	Name  string
	Wrong []DatabaseFault
}

// DatabaseFault is one thing that is wrong: the body's field, and what to do.
type DatabaseFault struct{ Field, Message string }

// Error implements error.
func (e *DatabaseError) Error() string {
	parts := make([]string, len(e.Wrong))
	for i, w := range e.Wrong {
		parts[i] = w.Field + ": " + w.Message
	}
	return fmt.Sprintf("database %q: %s", e.Name, strings.Join(parts, "; "))
}

// Unwrap returns [lockstep.ErrInvalid].
func (e *DatabaseError) Unwrap() error { return lockstep.ErrInvalid }

// DatabaseBody defines a database: the keys of the configuration as JSON.
type DatabaseBody struct {
	Name        string    `json:"name" doc:"Unique: 1 to 63 of A-Z a-z 0-9 _ . -" example:"shop"`
	URL         string    `json:"url" doc:"Sealed when stored, and never shown" example:"postgres://lockstep:password@db.example.com:5432/shop"`
	Capture     string    `json:"capture,omitempty" doc:"wal (default) or none"`
	Slot        string    `json:"slot,omitempty" doc:"Made when it is missing. Default: lockstep_ and the name"`
	Publication string    `json:"publication,omitempty" doc:"Made when it is missing, and a second one of this name and _inserts. Default: lockstep_ and the name"`
	Tables      []string  `json:"tables,omitempty" doc:"Patterns: schema.table, schema.* or -schema.table. Default: everything but system schemas" example:"[\"public.*\"]"`
	Int8        string    `json:"int8,omitempty" doc:"number (default) or string"`
	RetainWAL   string    `json:"retain_wal,omitempty" doc:"How much write-ahead log the slot may hold back before it is given up; 0: no limit" example:"50GB"`
	Poll        *Anything `json:"poll,omitempty" doc:"Refused: capture: poll is not available in this version"`
}

// DatabaseChange is what can be changed of a database that is captured.
type DatabaseChange struct {
	Tables []string `json:"tables" doc:"Patterns, in the place of those that it has; []: everything but system schemas"`
}

// DatabaseRemoval is what became of a deleted database.
type DatabaseRemoval struct {
	Name    string   `json:"name"`
	Dropped []string `json:"dropped" doc:"What was dropped in the database" example:"[\"slot lockstep_shop\"]"`
	Left    []string `json:"left" doc:"What is still there, why, and how to drop it. A slot that nobody reads keeps write-ahead log until the disk is full"`
}

// Connection says where a database is, without what lets one in.
type Connection struct {
	Host     string `json:"host" doc:"Or the folder of its socket"`
	Port     uint16 `json:"port"`
	Database string `json:"database"`
	User     string `json:"user"`
}

type (
	databaseInput struct {
		Check string `query:"check" enum:"true,false" default:"true" doc:"false: it is stored without connecting to it"`
		Body  DatabaseBody
	}
	databaseChangeInput struct {
		Name string `path:"name" doc:"The database's name"`
		Body DatabaseChange
	}
	databaseEndInput struct {
		Name     string `path:"name" doc:"The database's name"`
		KeepSlot bool   `query:"keep_slot" doc:"Leaves slot and publications where they are: nobody connects to the database"`
	}
	databaseMade struct {
		Location string `header:"Location"`
		Body     DatabaseStatus
	}
	databaseEnded struct{ Body DatabaseRemoval }
)

// auditOfDatabase is what the audit keeps of a database.
type auditOfDatabase struct {
	Connection  *Connection `json:"connection,omitempty"`
	Capture     string      `json:"capture"`
	Slot        string      `json:"slot,omitempty"`
	Publication string      `json:"publication,omitempty"`
	Patterns    []string    `json:"tables"`
}

// createWithin bounds the making of a database, most of which is the look at it.
const createWithin = 30 * time.Second

func (a *API) databaseRoutes() {
	at := func(method, path, action string) Route {
		return Route{Method: method, Path: "/v1/databases" + path, Need: auth.NeedAdmin, Audit: "database." + action, Waits: true}
	}
	typedAudited(a, at(http.MethodPost, "", "create"), about{"create-database", "Capture another database, until it is deleted", "databases", 201}, a.createDatabase)
	typedAudited(a, at(http.MethodPatch, "/{name}", "change"), about{"change-database", "Give a database made by API other tables to capture", "databases", 200}, a.changeDatabase)
	typedAudited(a, at(http.MethodDelete, "/{name}", "delete"), about{"delete-database", "End the capture of a database made by API, and drop its slot and publications", "databases", 200}, a.deleteDatabase)
}

func (a *API) managedDatabases() (ManagedDatabases, error) {
	if a.managed == nil {
		return nil, fmt.Errorf("this node's databases are those of its configuration: %w", lockstep.ErrUnavailable)
	}
	return a.managed, nil
}

func (a *API) createDatabase(ctx context.Context, in *databaseInput) (*databaseMade, note, error) {
	set, err := a.managedDatabases()
	if err != nil {
		return nil, note{}, err
	}
	b := in.Body
	if b.Poll != nil {
		return nil, note{}, invalidDatabase(&DatabaseError{b.Name, []DatabaseFault{{"poll", "it belongs to capture: poll, which is not available in this version: leave it out"}}})
	}
	bound, cancel := context.WithTimeout(ctx, createWithin)
	defer cancel()
	err = set.Create(bound, DatabaseDefinition{
		Name: b.Name, URL: b.URL, Capture: b.Capture, Slot: b.Slot, Publication: b.Publication, Tables: b.Tables, Int8: b.Int8, RetainWAL: b.RetainWAL, Unchecked: in.Check == "false",
	})
	if err != nil {
		return nil, note{}, invalidDatabase(err)
	}
	db, err := a.database(b.Name)
	if err != nil {
		return nil, note{}, err
	}
	v := db.view()
	return &databaseMade{Location: "/v1/databases/" + v.Name, Body: v}, note{target: v.Name, after: v.audit()}, nil
}

func (a *API) changeDatabase(ctx context.Context, in *databaseChangeInput) (*databaseOutput, note, error) {
	set, err := a.managedDatabases()
	if err != nil {
		return nil, note{}, err
	}
	db, err := a.database(in.Name)
	if err != nil {
		return nil, note{}, err
	}
	before := db.view().audit()
	if err := set.Change(ctx, in.Name, in.Body.Tables); err != nil {
		return nil, note{}, invalidDatabase(err)
	}
	if db, err = a.database(in.Name); err != nil {
		return nil, note{}, err
	}
	v := db.view()
	return &databaseOutput{Body: v}, note{target: v.Name, before: before, after: v.audit()}, nil
}

func (a *API) deleteDatabase(ctx context.Context, in *databaseEndInput) (*databaseEnded, note, error) {
	set, err := a.managedDatabases()
	if err != nil {
		return nil, note{}, err
	}
	db, err := a.database(in.Name)
	if err != nil {
		return nil, note{}, err
	}
	before, leave := db.view().audit(), DropSlot
	if in.KeepSlot {
		leave = KeepSlot
	}
	gone, err := set.Delete(ctx, in.Name, leave)
	if err != nil {
		return nil, note{}, err
	}
	gone.Dropped, gone.Left = append([]string{}, gone.Dropped...), append([]string{}, gone.Left...)
	return &databaseEnded{Body: gone}, note{target: in.Name, before: before, after: map[string][]string{"dropped": gone.Dropped, "left": gone.Left}}, nil
}

func (s DatabaseStatus) audit() auditOfDatabase {
	out := auditOfDatabase{Connection: s.Connection, Capture: s.Capture, Publication: s.Publication, Patterns: s.Patterns}
	if s.Slot != nil {
		out.Slot = s.Slot.Name
	}
	return out
}

// invalidDatabase turns the faults of a definition into a problem.
func invalidDatabase(err error) error {
	var def *DatabaseError
	if !errors.As(err, &def) {
		return unprocessable(err)
	}
	var f faults
	for _, w := range def.Wrong {
		f.add(w.Field, "%s", w.Message)
	}
	return f.problem()
}
