package tail

import (
	"cmp"
	"context"

	"lockstep"
	"lockstep/internal/filter"
)

// Log is one database's changes. It is comparable: sessions of the same Log share.
type Log interface {
	// Last is the end of what is durable; First the oldest seq that is there.
	Last() lockstep.Mark
	First() uint64
	// ReadFrom returns the batches from the one holding seq on, and waits at the end.
	ReadFrom(seq uint64) Reader
}

// Reader reads a log batch by batch; *stream.Reader is one. It is used by one goroutine.
type Reader interface {
	// Next returns the next batch, waiting for one at the end of the log. A
	// [lockstep.RetentionError] says that the place was removed; Seek goes on.
	Next(ctx context.Context) (*lockstep.Batch, error)
	Seek(from uint64)
	Close()
}

// Selection says which changes a session gets.
type Selection struct {
	// Tables selects by schema and name, which is all that it looks at. Nil: all.
	Tables  func(*lockstep.Table) bool
	Actions []lockstep.Action // empty: all. Gaps come in any case
	Filter  *filter.Program   // not asked about truncate and gap; nil: every change
}

// Limits bounds what sessions use up. Zeros are replaced by the defaults.
type Limits struct {
	QueueBytes int   // waiting for one session; one event always fits: 128 KiB
	TotalBytes int64 // waiting in all, before a session may have a sixteenth only: 64 MiB
	Readers    int   // shared ones that are behind the end of the log and read at a time: 4
	Lanes      int   // readers that sessions share whose filters are not looked up, for each log: 4
	FilterWork int   // of one filter on one change while others wait; see filter.MatchWithin: 16,384
}

func (l Limits) withDefaults() Limits {
	return Limits{
		QueueBytes: cmp.Or(l.QueueBytes, 128<<10),
		TotalBytes: cmp.Or(l.TotalBytes, 64<<20),
		Readers:    cmp.Or(l.Readers, 4),
		Lanes:      cmp.Or(l.Lanes, 4),
		FilterWork: cmp.Or(l.FilterWork, 16<<10),
	}
}
