package obs

// The keys of log attributes. One idea has one key in every stage, so that logs
// can be searched; a key says what the value is, not who logs it.
const (
	KeyDatabase   = "database"    // name of a database in the configuration
	KeyTable      = "table"       // schema.name, unquoted
	KeySlot       = "slot"        // name of a replication slot
	KeyStage      = "stage"       // part of the engine: capture, stream, deliver, api
	KeyConsumer   = "consumer"    // a consumer's name
	KeyConsumerID = "consumer_id" // a consumer's id
	KeySync       = "sync"        // name of a sync
	KeyCollection = "collection"  // an API's collection
	KeyRow        = "key"         // hash of a row's key, never its values
	KeySeq        = "seq"         // a change's place in the stream
	KeyLSN        = "lsn"         // a place in the write-ahead log, as 0/16B3748
	KeyAttempt    = "attempt"     // how often a change was handed out
	KeyReason     = "reason"      // why something was refused or parked
	KeyRemedy     = "remedy"      // what a person can do about it
	KeyError      = "error"       // an error's text
	KeyCount      = "count"       // how many
	KeyBytes      = "bytes"       // a size
	KeyDuration   = "duration"    // how long it took
	KeyPath       = "path"        // a file or directory
	KeyAddress    = "address"     // where something listens or connects to
	KeyRoute      = "route"       // a route's pattern, never the path that was asked for
	KeyMethod     = "method"      // HTTP method
	KeyStatus     = "status"      // HTTP status code
	KeyRequest    = "request_id"  // id of one HTTP request
	KeyActor      = "actor"       // name of the API token that acted
	KeyAction     = "action"      // what an audited call did
	KeyTarget     = "target"      // what an audited call did it to
	KeyVersion    = "version"     // version of this binary
)
