package arch_test

// The rules of the house, as data. A border that turns out to lie wrong is moved
// here, with the reason in docs/decisions.

const (
	longestFile     = 500 // lines, tests included
	longestFunction = 70  // lines from func to the closing brace
)

// borders says which of our packages the code in a folder may import. A folder
// stands for itself and everything below it; the longest match counts. "" is the
// root package. Everything may import the root, a folder may import itself, and
// tests may import what they like.
//
// internal/obs is the vocabulary of logs and metrics, as the root is that of
// changes: whoever logs takes the keys from there.
func borders() map[string][]string {
	return map[string][]string{
		"":                     {},
		"client":               {},
		"source":               {"internal/suggest"},
		"sandbox":              {},
		"locksteptest":         {"sink", "source"},
		"internal/mirror":      {"internal/obs", "internal/pgdb", "source"},
		"internal/pull":        {"internal/mirror", "internal/obs", "internal/pgdb", "source"},
		"internal/arch":        {},
		"examples":             {"client"}, // as a user's program would be
		"internal/auth":        {"internal/obs", "internal/pgdb"},
		"internal/capture":     {"internal/obs", "internal/pattern", "internal/pgdb"},
		"internal/torture":     {},
		"internal/chaos":       {},
		"internal/doctor":      {"internal/capture", "internal/config", "internal/obs", "internal/pattern", "internal/pgdb"},
		"internal/config":      {"internal/suggest"},
		"internal/connect":     {"internal/pull/limit", "internal/suggest", "source"},
		"internal/secret":      {},
		"internal/syncs":       {"internal/mirror", "internal/obs", "internal/pull", "source"},
		"sink":                 {},
		"internal/pump":        {"internal/deliver", "internal/obs", "sink"},
		"internal/kinds":       {"internal/filter", "internal/pump", "sink"},
		"internal/deliver":     {"internal/filter", "internal/obs", "internal/pattern"},
		"internal/filter":      {},
		"internal/pattern":     {},
		"internal/plan":        {"client", "internal/config"},
		"internal/obs":         {},
		"internal/suggest":     {},
		"internal/pgdb":        {"internal/dirlock", "internal/obs"},
		"internal/realtime":    {"internal/obs"},
		"internal/events":      {"internal/obs"},
		"internal/tail":        {"internal/filter"},
		"internal/dirlock":     {},
		"internal/stage":       {},
		"internal/outlet":      {"internal/obs"},
		"internal/stream":      {"internal/dirlock", "internal/obs"},
		"internal/api":         {"internal/auth", "internal/deliver", "internal/events", "internal/filter", "internal/history", "internal/obs", "internal/pull", "internal/suggest", "internal/syncs", "internal/tail", "source"},
		"internal/history":     {},
		"internal/console":     {"client", "internal/obs", "internal/pattern"},
		"internal/demo":        {"client", "internal/pgdb"},
		"internal/pgdb/pgtest": {"internal/obs", "internal/pgdb"},
		"engine":               {"internal"},
		"bench":                {"client", "engine", "internal"},
		"cmd":                  {"bench", "client", "engine", "internal", "sandbox", "sink", "source"}, // sink: lockstep listen
	}
}

// testOnly are packages that only tests may import.
func testOnly() []string {
	return []string{"internal/pgdb/pgtest", "internal/arch"}
}

// owners says which folders alone may import a module, tests aside: its types stay
// behind that border, so that it can be replaced there. No folder: tests only.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/nats-io/":             {"bench", "examples", "internal/outlet", "internal/stream", "sink/nats"}, // bench: the library alone is the limit
		"github.com/twmb/franz-go":        {"bench", "examples", "sink/kafka"},
		"github.com/redis/go-redis":       {"bench", "sink/redis"},
		"github.com/alicebob/miniredis":   {}, // a Redis for tests
		"github.com/standard-webhooks/":   {"sink/webhook"},
		"github.com/cloudevents/":         {"sink/webhook"},
		"github.com/danielgtaylor/huma":   {"internal/api"},
		"github.com/coder/websocket":      {"internal/realtime"},
		"github.com/minio/highwayhash":    {"internal/stream"}, // checksums of JetStream's files
		"github.com/alecthomas/kong":      {"cmd"},
		"github.com/expr-lang/expr":       {"internal/filter"},
		"github.com/pressly/goose":        {"internal/pgdb"},
		"github.com/prometheus/":          {"internal/obs", "internal/api", "engine"}, // the registry is made in engine and shown by api
		"go.yaml.in/yaml":                 {"internal/config", "source/rest", "cmd"},
		"golang.org/x/term":               {"cmd"},
		"github.com/vbauerster/":          {"cmd"}, // progress bars
		"github.com/jackc/pglogrepl":      {},      // the oracle of tests
		"github.com/chromedp/":            {},      // a browser for tests
		"github.com/google/go-cmp":        {},
		"go.uber.org/goleak":              {},
		"pgregory.net/rapid":              {},
		"github.com/rogpeppe/go-internal": {},
	}
}

// constructors make values that nobody changes; Go has no constants of their types.
func constructors() []string {
	return []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "crc32.MakeTable", "base32.StdEncoding.WithPadding", "uuid.MustParse"}
}

// state lists the package-level variables that are allowed besides errors, regular
// expressions, embedded files and interface checks: file and name, with the reason.
func state() map[string]string {
	return map[string]string{
		"cmd/lockstep/version.go released":      "the linker sets it (-X); nothing else writes it",
		"internal/pgdb/pgtest/pgtest.go shared": "a test binary has one cluster, and its tests meet nowhere else",
	}
}

// exits lists the functions outside cmd that may end the process.
func exits() map[string]string {
	return map[string]string{
		"internal/pgdb/pgtest/pgtest.go Main":    "it is the body of a TestMain",
		"examples/kafka-go/main.go main":         "it is a program",
		"examples/nats-go/main.go main":          "it is a program",
		"examples/postgres-upsert/main.go main":  "it is a program",
		"examples/pull-go/main.go main":          "it is a program",
		"examples/sse-browser/main.go main":      "it is a program",
		"examples/webhook-receiver/main.go main": "it is a program",
	}
}

// vagueNames are package names that say nothing about what is in them.
func vagueNames() []string {
	return []string{"util", "utils", "helper", "helpers", "common", "manager", "models", "types", "misc", "base", "shared"}
}
