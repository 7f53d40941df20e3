package backfill

import (
	"time"

	"lockstep/internal/obs"
)

// State says how a job, or one of its tables, stands.
type State string

// The states. A job that runs or waits goes on by itself; a paused one after Resume;
// the last three are final.
const (
	Running   State = "running"
	Waiting   State = "waiting" // the reason says for what; of a table: its turn has not come
	Paused    State = "paused"
	Completed State = "completed"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Ended reports whether the state is final.
func (s State) Ended() bool { return s == Completed || s == Failed || s == Cancelled }

// The origins of jobs.
const (
	OriginAPI        = "api"
	OriginDefinition = "definition" // backfill: true in a consumer's definition
)

// Job is one backfill, as it is at one moment.
type Job struct {
	ID         string // a uuid of version 7
	N          int    // per consumer from 1; for gaps per database
	Consumer   string // its name; empty for a gap
	ConsumerID string
	Database   string
	Where      string // an SQL expression; empty: all rows
	Origin     string
	Gap        bool // rows for everybody, and deletes, to repair gaps
	State      State
	Reason     string // why it waits or failed, with what to do
	Tables     []TableProgress

	Rows       uint64 // put into the log
	Total      uint64 // an estimate; 0: unknown
	Overridden uint64 // left out, because the log has a newer change
	Deletes    uint64 // of a repair
	// RowsPerSecond is what was put into the log lately.
	RowsPerSecond float64
	Left          time.Duration // an estimate; -1: unknown

	CreatedAt, StartedAt, EndedAt time.Time // zero: not yet
}

// TableProgress is one table of a job.
type TableProgress struct {
	Name        string // schema.name, unquoted
	State       State
	Reason      string
	Rows, Total uint64
}

// Request asks for a backfill.
type Request struct {
	Consumer string // id or name; empty with Gap
	// Tables are exact names, schema.table, each part in double quotes where it needs
	// them. None: every table that the consumer selects.
	Tables   []string
	Where    string // an SQL expression over the tables' columns
	Gap      bool   // repair the open gaps of Database
	Database string // with Gap
	Origin   string // OriginAPI or OriginDefinition; empty: OriginAPI
}

// Filter chooses jobs; the zero value chooses all.
type Filter struct {
	Consumer string // id or name
	Database string
	Gap      bool // only repairs of gaps
	Active   bool // only those that have not ended
}

func (f Filter) matches(j *Job) bool {
	return (f.Consumer == "" || f.Consumer == j.ConsumerID || f.Consumer == j.Consumer) &&
		(f.Database == "" || f.Database == j.Database) && (!f.Gap || j.Gap) && (!f.Active || !j.State.Ended())
}

// attrs names the job in logs.
func (j *Job) attrs(more ...any) []any {
	attrs := []any{"backfill", j.ID, obs.KeyDatabase, j.Database}
	if !j.Gap {
		attrs = append(attrs, obs.KeyConsumer, j.Consumer)
	}
	return append(attrs, more...)
}
