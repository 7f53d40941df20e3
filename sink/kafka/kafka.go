// Package kafka sends changes to topics of Kafka, and of what speaks its protocol.
//
// # Guarantees
//
//  1. A change is delivered when all in-sync replicas have it (acks=all).
//  2. Changes of one key go to one partition, in their order, also when requests are
//     repeated: the producer is idempotent, and a record that fails takes those behind
//     it in its partition with it.
//  3. What a broker received while its answer was lost, and what a process wrote before
//     it was killed, comes twice, in order: K1 K2, then K1 K2 again. The header ce_id
//     is equal then. Nothing else comes twice.
//  4. A change that is larger than its topic takes is rejected; no other is held by it
//     but later ones of its key in the same call.
//  5. Topics are created when they are missing and never changed.
//  6. Errors name the brokers, the topic and Kafka's name of the error; never data of a
//     record or a credential.
//
// README.md has topics, headers and what the errors mean.
package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lockstep"
	"lockstep/sink"
)

// Compression is how batches are compressed.
type Compression string

// The compressions. Gzip is what every client understands.
const (
	Gzip   Compression = "gzip"
	None   Compression = "none"
	Snappy Compression = "snappy"
	LZ4    Compression = "lz4"
	Zstd   Compression = "zstd"
)

// Key says what a record's key is. Its hash decides the partition.
type Key string

// The keys.
const (
	// KeyPrimary is the row's key as text; of several columns a JSON array of texts.
	KeyPrimary Key = "primary"
	// KeyOrder is a number for what orders changes: for consumers with order_by.
	KeyOrder Key = "order"
)

// Create says whether topics are made.
type Create string

// When topics are made.
const (
	Missing Create = "missing"
	Never   Create = "never"
)

// The values that are used unless Config says otherwise.
const (
	DefaultTopic   = "{database}.{schema}.{table}"
	DefaultTimeout = 30 * time.Second
	DefaultMaximum = 1_000_000 // bytes of a batch; brokers take 1,048,588 unless told otherwise
)

// Config is a cluster and how changes become records of it.
type Config struct {
	// Brokers are some of the cluster's, host:port.
	Brokers []string `yaml:"brokers" json:"brokers"`
	// Topic is a template of {database}, {schema}, {table}, {action}, {provider} and
	// {collection}; default {database}.{schema}.{table}, and for records in the API's
	// view {database}.{provider}.{collection}.
	Topic string `yaml:"topic" json:"topic"`
	// Key default: KeyPrimary.
	Key Key `yaml:"key" json:"key"`
	// Tombstones makes the value of a deleted row null, for compacted topics.
	Tombstones bool `yaml:"tombstones" json:"tombstones"`
	// Compression default: Gzip.
	Compression Compression `yaml:"compression" json:"compression"`
	// Create default: Missing. Partitions and Replication are of topics that are
	// created; 0: the broker's default.
	Create      Create `yaml:"create" json:"create"`
	Partitions  int    `yaml:"partitions" json:"partitions"`
	Replication int    `yaml:"replication" json:"replication"`
	// Linger is how long a record waits for others that go with it; default 0.
	Linger time.Duration `yaml:"linger" json:"linger"`
	// Timeout is how long a record may take; default 30 s.
	Timeout time.Duration `yaml:"timeout" json:"timeout"`
	// Secure speaks TLS, with the system's roots unless TLS says otherwise.
	Secure bool `yaml:"tls" json:"tls"`
	// Mechanism is of SASL: plain, scram-sha-256 or scram-sha-512; empty: none.
	Mechanism string `yaml:"mechanism" json:"mechanism"`
	User      string `yaml:"user" json:"user"`
	Password  string `yaml:"password" json:"password" secret:"yes"`

	// TopicFor takes the place of Topic. An error rejects the change.
	TopicFor func(sink.Message) (string, error) `yaml:"-" json:"-"`
	// TLS is used when Secure is set.
	TLS *tls.Config `yaml:"-" json:"-"`
	// Dial takes the place of the network: for tests, and for brokers that name
	// addresses of themselves which are not reachable from here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error) `yaml:"-" json:"-"`
}

// Kafka is a [sink.Sink]. Its methods may be called concurrently.
type Kafka struct {
	config Config
	name   string // of the brokers in errors
	client *kgo.Client

	mu     sync.Mutex
	topics map[string]int   // the largest batch of topics that are known
	names  map[place]string // of topics
	closed bool
}

var _ sink.Sink = (*Kafka)(nil)

// New checks the configuration; it does not connect: brokers that are away when a node
// starts are away like any other time. Errors wrap lockstep.ErrInvalid and name all
// that is wrong. ctx is not used.
func New(_ context.Context, config Config) (*Kafka, error) {
	k := &Kafka{config: config, topics: map[string]int{}, names: map[place]string{}}
	options, err := k.configure()
	if err != nil {
		return nil, err
	}
	if k.client, err = kgo.NewClient(options...); err != nil {
		return nil, fmt.Errorf("kafka: %w: the options do not go together", lockstep.ErrInvalid)
	}
	return k, nil
}

// Write implements [sink.Sink]. All records of a call are on their way at once.
func (k *Kafka) Write(ctx context.Context, messages []sink.Message) (int, error) {
	if len(messages) == 0 {
		return 0, nil
	}
	k.mu.Lock()
	closed := k.closed
	k.mu.Unlock()
	if closed {
		return 0, k.refusal(sink.Retry, "the sink is closed", lockstep.ErrUnavailable)
	}
	w := &writing{k: k, messages: messages, errs: make([]error, len(messages)), failed: map[uint64]bool{}}
	w.run(ctx)
	return w.result()
}

// Close disconnects. Records of calls that are under way fail.
func (k *Kafka) Close(context.Context) error {
	k.mu.Lock()
	closed := k.closed
	k.closed = true
	k.mu.Unlock()
	if !closed {
		k.client.Close()
	}
	return nil
}

// refusal makes an error.
func (k *Kafka) refusal(kind sink.Kind, text string, cause error) *sink.Error {
	return &sink.Error{Kind: kind, Message: "kafka " + k.name + ": " + text, Err: cause}
}
