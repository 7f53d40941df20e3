package api

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"time"

	"lockstep/internal/obs"
)

// Backfills reads existing rows: to one consumer, or to everybody behind a gap. Its
// errors say what they are about: [lockstep.ErrInvalid] for what cannot be read (a
// view, a table without a usable key, a bad condition), [lockstep.ErrConflict] for
// what contradicts the state, [lockstep.ErrNotFound], [lockstep.ErrUnavailable].
type Backfills interface {
	// Start reads the rows of tables to a consumer. It returns before the first is read.
	Start(ctx context.Context, r BackfillRequest) (Backfill, error)
	// Ensure starts the backfill that a definition asks for, unless it was started
	// before: a consumer has one of that origin at most.
	Ensure(ctx context.Context, consumerID string) error
	// Repair reads the tables of a database's open gaps. [lockstep.ErrConflict]: none is
	// open, or they are being repaired already.
	Repair(ctx context.Context, database string) (Backfill, error)

	Get(ctx context.Context, id string) (Backfill, error)
	// ByNumber returns the n-th backfill of a consumer, from 1.
	ByNumber(ctx context.Context, consumerID string, n int) (Backfill, error)
	// List returns those that the filter lets pass, in any order.
	List(ctx context.Context, f BackfillFilter) ([]Backfill, error)

	// Pause, Resume and Cancel return the backfill as it is afterwards. To ask for the
	// state that it is in is no error; to change one that has ended is
	// [lockstep.ErrConflict].
	Pause(ctx context.Context, id string) (Backfill, error)
	Resume(ctx context.Context, id string) (Backfill, error)
	Cancel(ctx context.Context, id string) (Backfill, error)
}

// BackfillRequest asks for existing rows to one consumer.
type BackfillRequest struct {
	ConsumerID string
	Tables     []string // schema.table; none: every table that the consumer selects
	Where      string   // a condition in SQL; empty: every row
}

// BackfillFilter selects backfills. The zero value selects all.
type BackfillFilter struct {
	ConsumerID string
	Database   string
	Active     bool // those that have not ended
}

// Backfill is a reading of existing rows, as it stands.
type Backfill struct {
	ID         string // uuid
	N          int    // per consumer from 1; those of gaps per database
	ConsumerID string // empty: the repair of a gap
	Consumer   string // its name
	Database   string
	Gap        bool
	Where      string
	Origin     string // api or definition
	State      string // running, waiting, paused, completed, failed or cancelled
	Reason     string // why it waits or failed, with what to do
	Tables     []BackfillTable

	Rows, Total         uint64 // Total is an estimate; 0: unknown
	Overridden, Deletes uint64
	RowsPerSecond       float64
	Left                time.Duration // negative: unknown

	CreatedAt, StartedAt, EndedAt time.Time // zero: not yet
}

// BackfillTable is how far a backfill is with one table.
type BackfillTable struct {
	Name        string
	State       string
	Reason      string
	Rows, Total uint64
}

// BackfillView is a backfill as the API shows it.
type BackfillView struct {
	ID            string              `json:"id" format:"uuid"`
	N             int                 `json:"n" doc:"Counts the backfills of the consumer from 1; the repairs of gaps those of the database"`
	Consumer      *NamedView          `json:"consumer" doc:"Whom the rows are for; null: the repair of a gap, for everybody"`
	Database      string              `json:"database"`
	Gap           bool                `json:"gap" doc:"It repairs gaps: keys that are gone are sent as deletes, too"`
	Where         string              `json:"where" doc:"Only rows that fulfil this condition"`
	Origin        string              `json:"origin" doc:"api, or definition: the consumer has backfill: true"`
	State         string              `json:"state" enum:"running,waiting,paused,completed,failed,cancelled"`
	Reason        string              `json:"reason" doc:"Why it waits or failed, and what to do"`
	Tables        []BackfillTableView `json:"tables"`
	Rows          uint64              `json:"rows" doc:"Rows sent"`
	Total         uint64              `json:"total" doc:"Rows to send, by the database's statistics; 0: unknown"`
	Overridden    uint64              `json:"overridden" doc:"Rows left out, because a newer change of the row was sent before"`
	Deletes       uint64              `json:"deletes" doc:"Repair of a gap: keys that are gone"`
	RowsPerSecond float64             `json:"rows_per_second"`
	SecondsLeft   *int64              `json:"seconds_left" doc:"null: unknown"`
	CreatedAt     time.Time           `json:"created_at"`
	StartedAt     *time.Time          `json:"started_at"`
	EndedAt       *time.Time          `json:"ended_at"`
}

// BackfillTableView is how far a backfill is with one table.
type BackfillTableView struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Rows   uint64 `json:"rows"`
	Total  uint64 `json:"total" doc:"An estimate; 0: unknown"`
}

// NamedView names a resource.
type NamedView struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func viewOfBackfill(b Backfill) BackfillView {
	v := BackfillView{
		ID: b.ID, N: b.N, Database: b.Database, Gap: b.Gap, Where: b.Where, Origin: b.Origin, State: b.State, Reason: obs.Scrub(b.Reason),
		Tables: []BackfillTableView{}, Rows: b.Rows, Total: b.Total, Overridden: b.Overridden, Deletes: b.Deletes,
		CreatedAt: b.CreatedAt.UTC(), StartedAt: timeOrNull(b.StartedAt), EndedAt: timeOrNull(b.EndedAt),
	}
	if b.ConsumerID != "" {
		v.Consumer = &NamedView{ID: b.ConsumerID, Name: b.Consumer}
	}
	if !math.IsNaN(b.RowsPerSecond) && !math.IsInf(b.RowsPerSecond, 0) {
		v.RowsPerSecond = math.Round(b.RowsPerSecond*10) / 10
	}
	if b.Left >= 0 {
		left := int64((b.Left + time.Second - 1) / time.Second)
		v.SecondsLeft = &left
	}
	for _, t := range b.Tables {
		v.Tables = append(v.Tables, BackfillTableView{Name: t.Name, State: t.State, Reason: obs.Scrub(t.Reason), Rows: t.Rows, Total: t.Total})
	}
	return v
}

// BackfillBody starts a backfill.
type BackfillBody struct {
	Tables []string `json:"tables,omitempty" doc:"Tables by their names. Default: every table that the consumer selects" example:"[\"public.orders\"]"`
	Table  string   `json:"table,omitempty" doc:"The same, for one table"`
	Where  string   `json:"where,omitempty" doc:"A condition in SQL on the table's columns: only rows that fulfil it" example:"amount > 100"`
}

// tables returns the tables that the body names.
func (b BackfillBody) tables() ([]string, error) {
	var f faults
	if b.Table != "" && b.Tables != nil {
		f.add("table", "it means the same as tables: give one of them")
	}
	if b.Tables != nil && len(b.Tables) == 0 {
		f.add("tables", "the list names no table; leave it out for every table that the consumer selects")
	}
	all := b.Tables
	if b.Table != "" {
		all = []string{b.Table}
	}
	for i, name := range all {
		if name == "" {
			f.add("tables["+strconv.Itoa(i)+"]", "the name is empty")
		}
	}
	return all, f.problem()
}

// SteerBody changes what a backfill does.
type SteerBody struct {
	State  string `json:"state,omitempty" doc:"The state to be in" enum:"paused,running,cancelled"`
	Action string `json:"action,omitempty" doc:"The same, as what to do" enum:"pause,resume,cancel"`
}

// verb returns what the body asks for: pause, resume or cancel.
func (b SteerBody) verb() (string, error) {
	verbs := map[string]string{"paused": "pause", "running": "resume", "cancelled": "cancel"}
	switch {
	case b.State != "" && b.Action != "" && verbs[b.State] != b.Action:
		return "", problem(http.StatusUnprocessableEntity, "state and action contradict each other: give one of them",
			Fault{Message: "it contradicts state", Location: "body.action"})
	case b.State != "":
		return verbs[b.State], nil
	case b.Action != "":
		return b.Action, nil
	}
	return "", problem(http.StatusUnprocessableEntity, "say what the backfill is to do: state is paused, running or cancelled",
		Fault{Message: "state is missing", Location: "body.state"})
}

// noBackfills is an API that nobody gave a runner of backfills.
func noBackfills() error {
	return problem(http.StatusServiceUnavailable, "this node runs no backfills: it captures no database, or is still starting").header("Retry-After", "1")
}

// steer does to a backfill what the verb says.
func (a *API) steer(ctx context.Context, id, verb string) (Backfill, error) {
	switch verb {
	case "pause":
		return a.backfills.Pause(ctx, id)
	case "resume":
		return a.backfills.Resume(ctx, id)
	}
	return a.backfills.Cancel(ctx, id)
}
