// Package redis sends changes to Redis, and to what speaks its protocol: into streams,
// or as strings that hold the newest state of each row.
//
// # Guarantees
//
//  1. A change is delivered when Redis has answered to its command. How durable that is
//     is up to the server's configuration (appendfsync, replicas).
//  2. Changes of one key are applied in their order, and, unless [Config.Guard] says
//     otherwise, none twice: beside the data
//     lies the seq of the last one of its key, for [Config.Window]. The script that
//     writes compares and sets it, so nothing comes between, and what comes again is
//     counted as delivered. A later change of a call is not applied when the one before
//     it was not.
//  3. Of a string, newest wins, also over what comes late out of the dead letters. Into
//     a stream that is appended, as everything that was not there yet.
//  4. Errors name the server and the kind of Redis' error; never a key, a value or a
//     credential.
//
// README.md has keys, fields and what the errors mean.
package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"lockstep"
	"lockstep/sink"
)

// Mode says what becomes of a change.
type Mode string

// The modes.
const (
	Stream Mode = "stream" // an entry of a stream
	String Mode = "string" // SET of the row's key, DEL when the row is deleted
)

// Guard says whether seqs lie beside the data.
type Guard string

// The guards.
const (
	GuardSeq Guard = "seq"
	// GuardNone writes plain commands: several times as fast, and what comes again is
	// written again. Changes of one key still keep their order.
	GuardNone Guard = "none"
)

// Value says what a string holds.
type Value string

// What a string may hold.
const (
	Record  Value = "record"  // the record alone
	Message Value = "message" // the whole message
)

// The values that are used unless Config says otherwise.
const (
	DefaultStream      = "lockstep:{database}:{schema}.{table}"
	DefaultKey         = "{database}:{schema}.{table}:{pk}"
	DefaultWindow      = 8 * 24 * time.Hour
	DefaultTimeout     = 10 * time.Second
	DefaultConnections = 4
)

// Config is a server and how changes become data of it.
type Config struct {
	// URL is redis://user:password@host:6379/0, rediss:// for TLS; several hosts with
	// commas for Cluster and Master.
	URL string `yaml:"url" json:"url" secret:"yes"`
	// Cluster says that the hosts are some of a Redis Cluster.
	Cluster bool `yaml:"cluster" json:"cluster"`
	// Master says that the hosts are sentinels, and is the name of what they watch.
	Master string `yaml:"master" json:"master"`
	// Mode default: Stream.
	Mode Mode `yaml:"mode" json:"mode"`
	// Stream and Key are templates of {database}, {schema}, {table}, {action} (Stream)
	// and {pk}: the row's key, parts of which have colons between. In what is put in,
	// braces become %7B and %7D: they decide where a cluster keeps a key.
	Stream string `yaml:"stream" json:"stream"`
	Key    string `yaml:"key" json:"key"`
	// MaxLen cuts streams to about so many entries; 0: they grow.
	MaxLen int64 `yaml:"maxlen" json:"maxlen"`
	// Value is what strings hold; default Record.
	Value Value `yaml:"value" json:"value"`
	// TTL is when strings expire by themselves; 0: never.
	TTL time.Duration `yaml:"ttl" json:"ttl"`
	// Guard default: GuardSeq.
	Guard Guard `yaml:"guard" json:"guard"`
	// Window is how long the seq of a key is remembered after its last change: longer
	// than anything can come again. Default 8 days.
	Window time.Duration `yaml:"window" json:"window"`
	// Timeout is how long a server may not answer; default 10 s.
	Timeout time.Duration `yaml:"timeout" json:"timeout"`
	// Connections is how many calls of Write can work at the same time; default 4.
	Connections int `yaml:"connections" json:"connections"`

	// TargetFor takes the place of Stream or Key. An error rejects the change.
	TargetFor func(sink.Message) (string, error) `yaml:"-" json:"-"`
}

// Counts are how many changes came to what, since New.
type Counts struct {
	Written uint64
	Stale   uint64 // were there already, in this or a newer state
	Ignored uint64 // truncates and gaps, in mode String
}

// Redis is a [sink.Sink]. Its methods may be called concurrently.
type Redis struct {
	config Config
	name   string // of the server in errors
	make   func() *line
	free   chan struct{}
	closed atomic.Bool

	mu    sync.Mutex
	idle  []*line // the last used at the end
	every []*line

	written, stale, ignored atomic.Uint64
}

var _ sink.Sink = (*Redis)(nil)

// New checks the configuration; it does not connect: a server that is away when a node
// starts is away like any other time. Errors wrap lockstep.ErrInvalid and name all that
// is wrong. ctx is not used.
func New(_ context.Context, config Config) (*Redis, error) {
	r := &Redis{config: config}
	if err := r.configure(); err != nil {
		return nil, err
	}
	r.free = make(chan struct{}, r.config.Connections)
	return r, nil
}

// Write implements [sink.Sink]: one pipeline for all messages.
func (r *Redis) Write(ctx context.Context, messages []sink.Message) (int, error) {
	if len(messages) == 0 {
		return 0, nil
	}
	l, err := r.take(ctx)
	if err != nil {
		return 0, err
	}
	defer r.give(l)
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { l.abort(); close(aborted) })
	defer func() {
		if !stop() {
			<-aborted // the next call has the line for itself
		}
	}()
	w := newWriting(r, messages)
	w.run(ctx, l)
	return w.result()
}

// Counts returns what became of the changes so far.
func (r *Redis) Counts() Counts {
	return Counts{Written: r.written.Load(), Stale: r.stale.Load(), Ignored: r.ignored.Load()}
}

// Close waits for calls of Write that are under way, until ctx ends, and disconnects.
func (r *Redis) Close(ctx context.Context) error {
	if r.closed.Swap(true) {
		return nil
	}
	var err error
	for range cap(r.free) {
		select {
		case r.free <- struct{}{}:
			continue
		case <-ctx.Done():
			err = r.refusal(sink.Retry, "closed while a call was under way", context.Cause(ctx))
		}
		break
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.every {
		l.abort()
		_ = l.client.Close() // its connections are closed
	}
	if err == nil {
		for range cap(r.free) { // calls that wait see that the sink is closed
			<-r.free
		}
	}
	return err
}

// take returns a line, which must be given back.
func (r *Redis) take(ctx context.Context) (*line, error) {
	if ctx.Err() != nil {
		return nil, r.refusal(sink.Retry, "interrupted", context.Cause(ctx))
	}
	if r.closed.Load() {
		return nil, r.shut()
	}
	select {
	case r.free <- struct{}{}:
	case <-ctx.Done():
		return nil, r.refusal(sink.Retry, "no connection is free", context.Cause(ctx))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		<-r.free
		return nil, r.shut()
	}
	if n := len(r.idle); n > 0 {
		l := r.idle[n-1]
		r.idle = r.idle[:n-1]
		return l, nil
	}
	l := r.make()
	r.every = append(r.every, l)
	return l, nil
}

func (r *Redis) give(l *line) {
	r.mu.Lock()
	r.idle = append(r.idle, l)
	r.mu.Unlock()
	<-r.free
}

func (r *Redis) shut() error {
	return r.refusal(sink.Retry, "the sink is closed", lockstep.ErrUnavailable)
}

// refusal makes an error. What Redis says is not repeated: it may quote what was sent.
func (r *Redis) refusal(kind sink.Kind, text string, cause error) *sink.Error {
	return &sink.Error{Kind: kind, Message: "redis " + r.name + ": " + text, Err: cause}
}
