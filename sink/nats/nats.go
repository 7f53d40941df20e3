// Package nats sends changes to subjects of NATS JetStream.
//
// # Guarantees
//
//  1. A change is delivered when JetStream has acknowledged that it is stored.
//  2. Changes of one key are stored in their order: none is published before the one
//     before it is acknowledged, also within one call, and never twice at a time.
//     Different keys are published at the same time.
//  3. Nats-Msg-Id is the change's idempotency key: what comes again within the stream's
//     duplicate window ([Config.Duplicates]) is stored once, whatever process it comes
//     from. Behind that window it may be stored again.
//  4. Streams are created when they are missing and never changed.
//  5. A change whose message is too large is rejected; no other is held by it but later
//     ones of its key in the same call.
//  6. Errors name the server, the stream and what JetStream's code means; never a
//     subject, data of a record, or a credential.
//
// README.md has subjects, headers and what the errors mean.
package nats

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"lockstep"
	"lockstep/sink"
)

// Storage is where a created stream keeps its messages.
type Storage string

// The storages.
const (
	File   Storage = "file"
	Memory Storage = "memory"
)

// Create says whether streams are made.
type Create string

// When streams are made.
const (
	Missing Create = "missing"
	Never   Create = "never"
)

// The values that are used unless Config says otherwise.
const (
	DefaultWindow         = 256
	DefaultAckTimeout     = 10 * time.Second
	DefaultConnectTimeout = 5 * time.Second
	DefaultDuplicates     = 2 * time.Minute
)

// Config is a server and how changes become messages of it.
type Config struct {
	// URL is nats://host:4222, tls://…, ws://…; several with commas.
	URL string `yaml:"url" json:"url" secret:"yes"`
	// User and Password, or Token, or the path of a .creds file.
	User        string `yaml:"user" json:"user"`
	Password    string `yaml:"password" json:"password" secret:"yes"`
	Token       string `yaml:"token" json:"token" secret:"yes"`
	Credentials string `yaml:"credentials" json:"credentials"`
	// Name is {name} in streams and subjects; default: the sync's name for records in the
	// API's view, else the database's.
	Name string `yaml:"name" json:"name"`
	// Stream default: lockstep-{name}.
	Stream string `yaml:"stream" json:"stream"`
	// Subject default: lockstep.{name}.{schema}.{table}.{action}, and for records in the
	// API's view lockstep.{name}.{provider}.{collection}.{outcome}, which is upserted or
	// deleted. What is put in for a placeholder is one token: see [Token].
	Subject string `yaml:"subject" json:"subject"`
	// Create default: Missing.
	Create Create `yaml:"create" json:"create"`
	// The following are of streams that are created. Subjects default: what Subject
	// gives, with > for all behind the name. Age and Bytes 0: unlimited.
	Subjects   []string      `yaml:"subjects" json:"subjects"`
	Age        time.Duration `yaml:"age" json:"age"`
	Bytes      int64         `yaml:"bytes" json:"bytes"`
	Replicas   int           `yaml:"replicas" json:"replicas"`
	Storage    Storage       `yaml:"storage" json:"storage"`
	Duplicates time.Duration `yaml:"duplicates" json:"duplicates"`
	// Window is how many messages of one call wait for their acknowledgments at a time;
	// default 256.
	Window int `yaml:"window" json:"window"`
	// AckTimeout is how long JetStream may acknowledge nothing; default 10 s.
	AckTimeout     time.Duration `yaml:"ack_timeout" json:"ack_timeout"`
	ConnectTimeout time.Duration `yaml:"connect_timeout" json:"connect_timeout"`

	// SubjectFor takes the place of Subject. An error rejects the change. Streams that
	// are created then need Subjects.
	SubjectFor func(sink.Message) (string, error) `yaml:"-" json:"-"`
	// Server is an embedded server, instead of URL.
	Server InProcess `yaml:"-" json:"-"`
	// TLS default: the system's roots.
	TLS *tls.Config `yaml:"-" json:"-"`
}

// InProcess is a server of the same process.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// NATS is a [sink.Sink]. Its methods may be called concurrently.
type NATS struct {
	config Config
	name   string // of the server in errors
	life   context.Context
	end    context.CancelFunc

	mu   sync.Mutex
	link *link // nil: not connected yet
	aims map[place]aimed
}

var _ sink.Sink = (*NATS)(nil)

// New checks the configuration; it does not connect: a server that is away when a node
// starts is away like any other time. Errors wrap lockstep.ErrInvalid and name all that
// is wrong. The sink outlives ctx.
func New(ctx context.Context, config Config) (*NATS, error) {
	name, err := configure(&config)
	if err != nil {
		return nil, err
	}
	n := &NATS{config: config, name: name, aims: map[place]aimed{}}
	n.life, n.end = context.WithCancel(context.WithoutCancel(ctx))
	return n, nil
}

// Write implements [sink.Sink].
func (n *NATS) Write(ctx context.Context, messages []sink.Message) (int, error) {
	if len(messages) == 0 {
		return 0, nil
	}
	l, err := n.connected(ctx)
	if err != nil {
		return 0, err
	}
	w := newWriting(n, l, messages)
	defer w.release()
	if err := w.run(ctx); err != nil {
		l.leave()
	}
	return w.result()
}

// Close disconnects and waits until it is done, at most until ctx ends.
func (n *NATS) Close(ctx context.Context) error {
	n.end()
	n.mu.Lock()
	l := n.link
	n.mu.Unlock()
	if l == nil {
		return nil
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		return n.refusal(sink.Retry, "closed while it was connecting", context.Cause(ctx))
	}
	l.leave()
	return nil
}

// refusal makes an error. What the server says is not repeated.
func (n *NATS) refusal(kind sink.Kind, text string, cause error) *sink.Error {
	return &sink.Error{Kind: kind, Message: "nats " + n.name + ": " + text, Err: cause}
}

func (n *NATS) shut() error {
	return n.refusal(sink.Retry, "the sink is closed", lockstep.ErrUnavailable)
}
