package events

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"lockstep"
)

// Log is one database's changes; [LogOf] makes one of a *stream.Log.
type Log interface {
	// Last is the end of what is durable; First the oldest seq that is there.
	Last() lockstep.Mark
	First() uint64
	// ReadFrom returns the batches from the one holding seq on, and waits at the end.
	ReadFrom(seq uint64) Reader
}

// Reader gives batches in order: *lockstep.RetentionError when the place was removed.
// It is used by one goroutine.
type Reader interface {
	Next(ctx context.Context) (*lockstep.Batch, error)
	Close()
}

// streamLog is what a log of package stream offers: readers of its own type.
type streamLog[R Reader] interface {
	Last() lockstep.Mark
	First() uint64
	Reader(from uint64) R
}

// LogOf makes a [Log] of a *stream.Log.
func LogOf[R Reader](l streamLog[R]) Log { return logOf[R]{l} }

type logOf[R Reader] struct{ streamLog[R] }

// ReadFrom implements [Log].
func (l logOf[R]) ReadFrom(seq uint64) Reader { return l.Reader(seq) }

// Config is what a [Server] works with. Functions are called concurrently.
type Config struct {
	// Log returns the log of a database, an error that wraps lockstep.ErrNotFound for one
	// that is not there. Required.
	Log func(database string) (Log, error)
	// Damage tells of an error of a Reader that changes up to last are damaged, so that
	// reading goes on behind them. Nil: no error does.
	Damage func(err error) (last uint64, damaged bool)
	Logger *slog.Logger // default: nothing is logged
	Limits Limits
}

// Limits bounds what clients can use up. Zeros are replaced by the defaults.
type Limits struct {
	Sessions   int           // on the node: 20,000
	QueueBytes int           // waiting for one session; one event always fits: 128 KiB
	Readers    int           // that are behind the end of the log and read at a time: 4
	Tables     int           // that are followed at a time: 64
	Stretches  int           // that a table's index remembers: 16,384
	Stretch    uint64        // changes that one stretch spans at first: 256
	Stride     uint64        // changes that a search reads backwards at a time: 65,536
	Pause      time.Duration // before a log that cannot be read is tried again: 200ms
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Sessions:   cmp.Or(l.Sessions, 20_000),
		QueueBytes: cmp.Or(l.QueueBytes, 128<<10),
		Readers:    cmp.Or(l.Readers, 4),
		Tables:     cmp.Or(l.Tables, 64),
		Stretches:  cmp.Or(l.Stretches, 16<<10),
		Stretch:    cmp.Or(l.Stretch, 256),
		Stride:     cmp.Or(l.Stride, 64<<10),
		Pause:      cmp.Or(l.Pause, 200*time.Millisecond),
	}
}
