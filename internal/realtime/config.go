package realtime

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"lockstep"
)

// Log is one database's changes.
type Log interface {
	// Last is the end of what is durable; First the oldest seq that is there.
	Last() lockstep.Mark
	First() uint64
	// SeqAt returns the first seq whose transaction committed at or after t.
	SeqAt(ctx context.Context, t time.Time) (uint64, error)
	// Reader returns the batches from the one holding seq on, and waits at the end.
	Reader(from uint64) Reader
}

// Reader gives batches in order: *lockstep.RetentionError when the place was removed,
// *DamageError when it cannot be read. It is used by one goroutine.
type Reader interface {
	Next(ctx context.Context) (*lockstep.Batch, error)
	Close()
}

// DamageError says that the stored changes First to Last are damaged.
type DamageError struct {
	First, Last uint64
	Err         error
}

// Error implements error.
func (e *DamageError) Error() string {
	return fmt.Sprintf("changes %d to %d are damaged: %v", e.First, e.Last, e.Err)
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// Claims is what a token allows.
type Claims struct {
	Name    string    // for the log
	Read    bool      // may join, broadcast and be present; without it the token is refused
	Expires time.Time // zero: never
}

// Config is what a [Server] works with. Functions are called concurrently.
type Config struct {
	// Log returns the log of a database, an error that wraps lockstep.ErrNotFound for
	// one that is not there. Required.
	Log func(database string) (Log, error)
	// Database tells which database a socket is for, by the parameters of its URL: always
	// by the same name, since everything is kept by it. Default: the parameter database.
	Database func(params url.Values) string
	// Types returns the name in pg_type of each column's type (for a domain that of its
	// base type). It is asked once a minute for each table in use. No columns, or an
	// error that wraps lockstep.ErrNotFound, mean that there is no such table. Nil:
	// messages name no columns, and filters guess types by the values.
	Types func(ctx context.Context, database, schema, table string) (map[string]string, error)
	// Keys returns the key's columns, for old_record where the old row is not known.
	// Nil: old_record is then empty.
	Keys func(ctx context.Context, database, schema, table string) ([]string, error)
	// Moving answers when capture is certain from a seq on: everything committed after
	// it returned will have a higher one. Nil: the log's end, at once.
	Moving func(ctx context.Context, database string) (seq uint64, err error)
	// Authorize checks an apikey or access token; without one the token is empty. An
	// error that wraps lockstep.ErrUnavailable says that it cannot be told now. Nil: the
	// node is open, and answers its own machine only.
	Authorize func(ctx context.Context, token string) (Claims, error)
	// Open reports whether anybody may come in without a token, which may change as tokens
	// are made; the node then answers its own machine only, and Authorize is asked with
	// what the caller shows, if anything. Nil: as long as Authorize is nil.
	Open func() bool
	// AllowedOrigins are the origins of pages that may connect besides the node's own,
	// such as https://app.example.com; a * stands for any characters of a name. A lone *
	// allows every page, where tokens are asked for.
	AllowedOrigins []string
	Logger         *slog.Logger
	Limits         Limits
}

// Limits bounds what clients can use up. Zeros are replaced by the defaults.
type Limits struct {
	Sockets         int           // on the node: 10,000
	Channels        int           // of one socket: 100
	MessageBytes    int64         // one message of a client: 1 MiB
	RecordBytes     int           // one row sent as a whole: 1 MiB
	QueueBytes      int           // waiting for one socket: 4 MiB
	TotalQueueBytes int64         // waiting for all sockets; beyond it each may have a sixteenth of QueueBytes: 256 MiB
	Messages        float64       // broadcasts a second and channel, twice that at once: 100
	Frames          float64       // messages of any kind a second and socket, twice that at once: 2,000
	HTTPMessages    float64       // broadcasts by HTTP a second, on the node: 1,000
	PresenceCalls   int           // within PresenceWindow and channel: 30
	PresenceWindow  time.Duration // 30s
	PresenceBytes   int           // of one presence: 16 KiB
	Replays         int           // that read the log at a time: 4
	JoinWait        time.Duration // for capture, before a join is refused: 8s
	Idle            time.Duration // without any message, before a socket is closed: 70s
	WriteWait       time.Duration // for one message to be taken: 20s
	Reauthorize     time.Duration // how often tokens are checked again: 30s
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Sockets:         cmp.Or(l.Sockets, 10_000),
		Channels:        cmp.Or(l.Channels, 100),
		MessageBytes:    cmp.Or(l.MessageBytes, 1<<20),
		RecordBytes:     cmp.Or(l.RecordBytes, 1<<20),
		QueueBytes:      cmp.Or(l.QueueBytes, 4<<20),
		TotalQueueBytes: cmp.Or(l.TotalQueueBytes, 256<<20),
		Messages:        cmp.Or(l.Messages, 100),
		Frames:          cmp.Or(l.Frames, 2000),
		HTTPMessages:    cmp.Or(l.HTTPMessages, 1000),
		PresenceCalls:   cmp.Or(l.PresenceCalls, 30),
		PresenceWindow:  cmp.Or(l.PresenceWindow, 30*time.Second),
		PresenceBytes:   cmp.Or(l.PresenceBytes, 16<<10),
		Replays:         cmp.Or(l.Replays, 4),
		JoinWait:        cmp.Or(l.JoinWait, 8*time.Second),
		Idle:            cmp.Or(l.Idle, 70*time.Second),
		WriteWait:       cmp.Or(l.WriteWait, 20*time.Second),
		Reauthorize:     cmp.Or(l.Reauthorize, 30*time.Second),
	}
}

func (c Config) withDefaults() Config {
	if c.Database == nil {
		c.Database = func(params url.Values) string { return params.Get("database") }
	}
	if c.Open == nil {
		authorize := c.Authorize
		c.Open = func() bool { return authorize == nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Moving == nil {
		c.Moving = func(_ context.Context, database string) (uint64, error) {
			log, err := c.Log(database)
			if err != nil {
				return 0, err
			}
			return log.Last().Seq, nil
		}
	}
	c.Limits = c.Limits.withDefaults()
	return c
}
