// Package postgres sends changes into tables of any Postgres: as a replica of the
// tables they come from, column by column, or into one table for records of all kinds.
//
// # Guarantees
//
//  1. A change is delivered when its transaction has committed. A transaction holds
//     whole messages: their rows and how far each row has come.
//  2. Newest wins: every row remembers the seq that it was written by, deleted ones for
//     [Config.KeepDeleted]. What is older or equal changes nothing, whether it was lost
//     on the way back, is replayed, or comes from a process that should be dead. So
//     what is delivered several times has the effect of one. See [Guard].
//  3. A change that Postgres refuses for what it is (a violated constraint, a value that
//     does not fit) is found and rejected; no other is held by it but later ones of its
//     key in the same call.
//  4. Columns that a change does not carry (an unchanged TOAST value) stay as they are.
//  5. Values arrive as Postgres wrote them at the source, for every type whose text the
//     message carries. README.md has the exceptions.
//  6. Objects of users are never dropped or narrowed: tables are created and columns
//     added only with [Config.Create].
//  7. Errors name the host, the table, a constraint or a column and the SQLSTATE; never
//     a value, a statement or a password.
package postgres

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"lockstep/sink"
)

// Form says what the rows of the target look like.
type Form string

// The forms.
const (
	// Mapped writes the columns of the record into the columns of the same names.
	Mapped Form = "mapped"
	// Generic writes every record into one table, as JSON in the column data. Deleted
	// ones stay, with deleted = true.
	Generic Form = "generic"
)

// Guard says where the seq of each row is kept.
type Guard string

// The guards.
const (
	// GuardColumn keeps it in a column of the table, which is added when it is missing;
	// the side table then holds deleted rows only. The fastest.
	GuardColumn Guard = "column"
	// GuardTable keeps it in a side table; the target stays as it is.
	GuardTable Guard = "table"
)

// Unknown says what to do about members of a record that are no columns of the target.
type Unknown string

// What may be done about them.
const (
	Refuse Unknown = "refuse" // nothing is written until the column is there
	Ignore Unknown = "ignore"
)

// The values that are used unless Config says otherwise.
const (
	DefaultSeqColumn      = "_seq"
	DefaultPositions      = "lockstep_sink_position"
	DefaultRecords        = "lockstep_records"
	DefaultKeepDeleted    = 8 * 24 * time.Hour
	DefaultConnections    = 4
	DefaultConnectTimeout = 10 * time.Second
)

// Config is a database and how changes become rows of it.
type Config struct {
	// URL is a connection string as libpq takes it, with several hosts too:
	// postgres://user:password@a,b/app?target_session_attrs=read-write
	URL string `yaml:"url" json:"url" secret:"yes"`
	// Form default: Mapped.
	Form Form `yaml:"form" json:"form"`
	// Table is the target, quoted where SQL would need it, "we.ird" included. {schema},
	// {table} and {database} stand for those of the change. Default: {schema}.{table},
	// for Generic public.lockstep_records.
	Table string `yaml:"table" json:"table"`
	// Key are the target's columns that identify a row, in any order; they need a unique
	// index. Default: the target's primary key.
	Key []string `yaml:"key" json:"key"`
	// Rename gives members of the record other names in the target; an empty one leaves
	// the member out. For Generic it renames the columns of the generic table.
	Rename map[string]string `yaml:"rename" json:"rename"`
	// Columns are the target's columns and their types. With it, only these are written.
	// The types are used by Create; an empty one is taken from the first value.
	Columns map[string]string `yaml:"columns" json:"columns"`
	// Unknown default: Refuse.
	Unknown Unknown `yaml:"unknown" json:"unknown"`
	// Create makes the table when it is missing, and adds columns that it lacks.
	Create bool `yaml:"create" json:"create"`
	// Guard default: GuardColumn for tables that have SeqColumn or are created here,
	// else GuardTable. Generic uses its column updated_idx.
	Guard Guard `yaml:"guard" json:"guard"`
	// SeqColumn is the bigint column of GuardColumn; default _seq.
	SeqColumn string `yaml:"seq_column" json:"seq_column"`
	// Positions is the side table; default lockstep_sink_position in the target's schema.
	// It is created when it is missing.
	Positions string `yaml:"positions" json:"positions"`
	// KeepDeleted is how long the seq of deleted rows is kept: longer than anything can
	// be replayed. Default 8 days; below 0: for ever.
	KeepDeleted time.Duration `yaml:"keep_deleted" json:"keep_deleted"`
	// SoftDelete is a column of the target that a delete sets, instead of deleting the
	// row: boolean, or a timestamp.
	SoftDelete string `yaml:"soft_delete" json:"soft_delete"`
	// Truncate lets a truncate empty the target; else it is counted and ignored.
	Truncate bool `yaml:"truncate" json:"truncate"`
	// Connections is how many calls of Write can work at the same time; default 4.
	Connections int `yaml:"connections" json:"connections"`
	// ConnectTimeout default: the URL's connect_timeout, else 10 s.
	ConnectTimeout time.Duration `yaml:"connect_timeout" json:"connect_timeout"`
	// Settings are set in each session: statement_timeout, or session_replication_role
	// for a replica without foreign keys and triggers.
	Settings map[string]string `yaml:"settings" json:"settings"`
}

// Counts are how many changes came to what, since New.
type Counts struct {
	Written uint64 // rows that were written or deleted
	Stale   uint64 // changes that were there already, in this or a newer state
	Merged  uint64 // changes that a newer one of the same call covered
	Ignored uint64 // truncates and gaps
}

// Postgres is a [sink.Sink]. Its methods may be called concurrently.
type Postgres struct {
	config  Config
	pool    *pool
	targets *targets

	written, stale, merged, ignored atomic.Uint64
}

var _ sink.Sink = (*Postgres)(nil)

// New checks the configuration; it does not connect: a database that is away when a
// node starts is away like any other time. Errors wrap lockstep.ErrInvalid and name all
// that is wrong. ctx is not used.
func New(_ context.Context, config Config) (*Postgres, error) {
	connect, err := configure(&config)
	if err != nil {
		return nil, err
	}
	p := &Postgres{config: config, pool: newPool(connect, config)}
	p.targets = newTargets(&p.config, p.pool.name)
	return p, nil
}

// Write implements [sink.Sink]. The changes of a call are one transaction, unless they
// are many (see README.md), a whole table is concerned, or one of them is refused.
func (p *Postgres) Write(ctx context.Context, messages []sink.Message) (int, error) {
	if len(messages) == 0 {
		return 0, nil
	}
	w := &writing{p: p, messages: messages, errs: make([]error, len(messages)), failed: map[uint64]int{}}
	defer w.release(ctx)
	w.run(ctx)
	return w.result()
}

// Check connects and looks whether the target is as it must be, when Table names one.
// Errors are those of Write.
func (p *Postgres) Check(ctx context.Context) error {
	c, err := p.pool.take(ctx)
	if err != nil {
		return err
	}
	defer p.pool.give(ctx, c)
	if templated(p.config.Table) {
		return nil
	}
	if _, err = p.targets.of(ctx, c, &sink.Message{}); errors.Is(err, errAbsent) && p.config.Create {
		return nil
	}
	return err
}

// Counts returns what became of the changes so far.
func (p *Postgres) Counts() Counts {
	return Counts{Written: p.written.Load(), Stale: p.stale.Load(), Merged: p.merged.Load(), Ignored: p.ignored.Load()}
}

// Close waits for calls of Write that are under way, until ctx ends, and disconnects.
func (p *Postgres) Close(ctx context.Context) error { return p.pool.close(ctx) }
