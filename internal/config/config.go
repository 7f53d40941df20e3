// Package config reads lockstep.yml: text in, typed and checked values out.
//
// # Guarantees
//
//  1. Every error of a file is found in one run, and each says file, line,
//     column, path in the document, what is wrong and what to do. Only a file that
//     is not YAML at all stops at its first error.
//  2. A [Config] that was returned is complete: defaults are filled in, names are
//     unique and refer to something, expressions and patterns have been checked.
//  3. Variables are put in after the document was parsed, so that a variable's
//     value is never read as YAML: it cannot add keys, lists or types.
//  4. Secrets ([Secret], [URL]) do not show in any form of printing or logging;
//     only Reveal gives them away, and no error of this package quotes one.
//  5. Work and memory are bounded by the file's size, which is limited to
//     [MaxFileBytes]; no input makes the package panic. The same bound holds for each
//     file that the configuration names: the specs of syncs, which lie relative to it.
package config

import (
	"time"

	"lockstep"
)

// DefaultFile is the file that is read when none is named.
const DefaultFile = "lockstep.yml"

// MaxFileBytes limits the size of a configuration file.
const MaxFileBytes = 1 << 20

// Config is a whole configuration with its defaults filled in. It is not changed
// after it was read and may be shared between goroutines.
type Config struct {
	File      string // where it was read; empty when there is no file
	DataDir   string // the embedded stream, the embedded Postgres and keys lie below; as given, so relative to the working directory
	Listen    string // host:port of the HTTP API
	Tokens    []Token
	Stream    Stream
	Database  string // the name of the database that holds the schema lockstep
	Databases []Database
	Syncs     []Sync
	Consumers []Consumer
	Events    Events   `json:",omitzero"`
	CORS      []string `json:",omitempty"` // origins of pages that may follow events; * stands for all

	Key   Secret // 32 bytes, from LOCKSTEP_KEY; empty: none was given
	PGBin string // from LOCKSTEP_PG_BIN: where the Postgres binaries are; empty: search
}

// Token lets a caller of the HTTP API in.
type Token struct {
	Name   string
	Token  Secret
	Scopes []string // of [Scopes], or consume:<consumer>
}

// Stream says where the durable stream is kept, and for how long.
type Stream struct {
	URL       URL // of a NATS server; empty: embedded
	Retention Retention
	// Listen is host:port where the node's own NATS server is open to clients, which is
	// where consumers of kind nats without a url publish; empty: there is none.
	Listen string `json:",omitempty"`
}

// Retention bounds what the stream keeps. Zero means without limit.
type Retention struct {
	Age   time.Duration
	Bytes int64
}

// Capture is a way in which changes are taken from a database.
type Capture string

// The ways of capture of this version.
const (
	CaptureWAL  Capture = "wal"
	CaptureNone Capture = "none"
)

// Database is a Postgres database whose changes are captured.
type Database struct {
	Name         string
	URL          URL // empty: a private Postgres in the data directory
	Capture      Capture
	Slot         string
	Publication  string
	Tables       []string // patterns; empty: everything but system schemas
	Int8AsString bool     // int8: string
	// RetainWAL is how many bytes of write-ahead log the slot may hold back before it
	// is given up rather than the database's disk. 0: without limit.
	RetainWAL int64
}

// The bounds of [Database.RetainWAL]: less than a segment of the log cannot be kept.
const (
	DefaultRetainWAL = 50_000_000_000
	MinRetainWAL     = 16 << 20
)

// Kind says how a consumer gets its changes.
type Kind string

// The kinds of consumer of this version.
const (
	KindHTTP    Kind = "http"    // calls next, ack and nack
	KindWebhook Kind = "webhook" // an HTTP endpoint
	KindStdout  Kind = "stdout"  // one line per change on the node's standard output
)

// OnExhausted says what becomes of a change after its last attempt.
type OnExhausted string

// What becomes of a change after its last attempt.
const (
	Park    OnExhausted = "park"     // it goes to the dead letters, its key goes on
	ParkKey OnExhausted = "park_key" // it and all later ones of its key go there
	Block   OnExhausted = "block"    // its key waits for a person
)

// Consumer is somebody who reads changes.
type Consumer struct {
	Name        string
	Kind        Kind
	Database    string
	Tables      []string          // patterns; empty: every captured table
	Collections []string          // in the place of Tables: stripe:customer, stripe:* or *
	Sync        string            // of Collections; empty: every sync
	Actions     []lockstep.Action // empty: every action. Otherwise read is always among them
	Filter      string            // an expression; empty: everything passes
	Transform   string            // an expression; empty: the row as it is
	Start       Start
	Backfill    bool // the rows that exist come first, as action read
	OrderBy     OrderBy
	AckWait     time.Duration
	MaxInFlight int
	MaxAttempts int // 0: for ever
	OnExhausted OnExhausted
	Backoff     Backoff
	Batch       Batch
	// Settings is what stands under the kind's name, as a JSON object with its variables
	// put in; empty: nothing does. Options.CheckKind has looked at it.
	Settings Secret
}

// Backoff says how long a refused change waits: First, doubled by each attempt up
// to Max, each time changed at random by up to the share Jitter (0 to 1).
type Backoff struct {
	First, Max time.Duration
	Jitter     float64
}

// Batch says how changes are put together for kinds that send.
type Batch struct {
	Size int           // at most so many changes
	Wait time.Duration // at most so long after the first
}

// OrderBy says which changes wait for each other.
type OrderBy struct {
	Unordered bool     // none: no change waits for another
	Columns   []string // those with equal values in these; empty: those of one key
}

// Default returns the configuration of an empty file: one private database named
// app, everything below .lockstep, listening on loopback only.
func Default() *Config {
	c := &Config{DataDir: ".lockstep", Listen: "127.0.0.1:7300"}
	c.Databases = []Database{defaultDatabase("app")}
	c.Database = "app"
	return c
}

func defaultDatabase(name string) Database {
	slot := slotName(name)
	return Database{Name: name, Capture: CaptureWAL, Slot: slot, Publication: slot, RetainWAL: DefaultRetainWAL}
}

// DefaultConsumer returns a consumer with everything at its default but for Name
// and Database, which have none.
func DefaultConsumer() Consumer {
	return Consumer{
		Kind:        KindHTTP,
		Start:       Start{Kind: StartNow},
		AckWait:     30 * time.Second,
		MaxInFlight: 1000,
		OnExhausted: Park,
		Backoff:     Backoff{First: time.Second, Max: 10 * time.Minute, Jitter: 0.15},
		Batch:       Batch{Size: 1},
	}
}
