package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"lockstep"
	"lockstep/internal/suggest"
)

// Scopes returns what a token may be allowed: read looks, write changes consumers'
// definitions, consume takes and acks changes, admin may do everything. The form
// consume:<consumer> is for one consumer only.
func Scopes() []string { return []string{"read", "consume", "write", "admin"} }

const maxAge = 100 * 365 * 24 * time.Hour

// namePattern is what databases, syncs and tokens may be called: a name stands in
// addresses, in metrics and in the names of slots.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// config reads the document's root into c, which holds the defaults.
func (r *reader) config(root value, c *Config) {
	f, ok := r.mapping(root, "data_dir", "listen", "tokens", "stream", "database", "databases", "syncs", "consumers", "events", "cors")
	if !ok {
		return
	}
	if r.options.Remote != nil {
		r.definitions(f, c)
		return
	}
	r.text(f.get("data_dir"), &c.DataDir)
	r.listenAt = f.get("listen")
	r.text(r.listenAt, &c.Listen)
	c.Tokens = r.tokens(f.get("tokens"))
	r.stream(f.get("stream"), &c.Stream)
	known := r.databases(f.get("databases"), c)
	c.Database = c.Databases[0].Name
	r.reference(f.get("database"), &c.Database, known)
	c.Syncs = r.syncs(f.get("syncs"), known)
	c.Consumers = r.consumers(f.get("consumers"), c.Databases, known)
	r.events(f.get("events"), &c.Events, known)
	c.CORS = r.cors(f.get("cors"))
}

// definitions reads what is meant for a node elsewhere.
func (r *reader) definitions(f fields, c *Config) {
	known := r.databaseNames(f.get("databases"), c)
	c.Database = known[0]
	c.Syncs = r.syncs(f.get("syncs"), known)
	c.Consumers = r.consumers(f.get("consumers"), c.Databases, known)
}

func (r *reader) tokens(v value) []Token {
	var out []Token
	names, secrets := map[string]value{}, map[Secret]value{}
	for _, item := range r.list(v) {
		f, ok := r.mapping(item, "name", "token", "scopes")
		if !ok {
			continue
		}
		var t Token
		r.name(f, &t.Name, names)
		secret, ok := r.scalar(f.get("token"), "text")
		if at := f.get("token"); at.node == nil || ok && secret == "" {
			r.missing(f, "token", "give it a long random text, best by a variable: token: ${LOCKSTEP_TOKEN}")
		} else if ok && strings.ContainsFunc(secret, func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.wrong(at, "the token holds a character that cannot travel in a header", "use letters, digits and ASCII punctuation without spaces")
		}
		t.Token = Secret(secret)
		if first, twice := secrets[t.Token]; twice && secret != "" {
			r.wrong(f.get("token"), fmt.Sprintf("the same token is already there in line %d", first.node.Line), "give each name a token of its own")
		} else {
			secrets[t.Token] = item
		}
		t.Scopes = r.scopes(f)
		out = append(out, t)
	}
	return out
}

func (r *reader) scopes(f fields) []string {
	items := r.list(f.get("scopes"))
	if kindOf(f.get("scopes")) != yaml.ScalarNode && len(items) == 0 {
		r.missing(f, "scopes", "say what the token allows, such as scopes: [admin]")
	}
	var out []string
	for _, item := range items {
		text, ok := r.scalar(item, "a scope")
		if !ok {
			continue
		}
		if consumer, ok := strings.CutPrefix(text, "consume:"); ok && consumer != "" {
			out = append(out, text)
			continue
		}
		scope := ""
		word(r, item, &scope, Scopes()...)
		out = append(out, scope)
	}
	return out
}

func (r *reader) stream(v value, s *Stream) {
	if v.node == nil {
		return
	}
	f, ok := r.mapping(v, "url", "listen", "retention")
	if !ok {
		return
	}
	address := ""
	r.text(f.get("url"), &address)
	s.URL = URL(address)
	if p, err := url.Parse(address); address != "" && (err != nil || p.Host == "" || p.Scheme != "nats" && p.Scheme != "tls" && p.Scheme != "ws" && p.Scheme != "wss") {
		r.wrong(f.get("url"), "not the address of a NATS server", "write nats://host:4222, or leave it out for the embedded stream")
	}
	r.natsAt = f.get("listen")
	r.text(r.natsAt, &s.Listen)
	if !f.has("retention") {
		return
	}
	if keep, ok := r.mapping(f.get("retention"), "age", "bytes"); ok {
		r.duration(keep.get("age"), &s.Retention.Age, 0, maxAge)
		r.size(keep.get("bytes"), &s.Retention.Bytes)
	}
}

// nameRule says which names are well formed.
type nameRule struct {
	allows func(string) bool
	remedy string
}

// strictNames are those of everything that has a slot, a schema or a token.
func strictNames() nameRule {
	return nameRule{namePattern.MatchString, "use 1 to 63 of A-Z a-z 0-9 _ . - and not the form of a uuid; the first is a letter, digit or _"}
}

// maxConsumerName is in bytes.
const maxConsumerName = 200

// consumerNames are what the API takes: they stand in addresses only.
func consumerNames() nameRule {
	return nameRule{func(name string) bool {
		return name != "" && len(name) <= maxConsumerName && strings.TrimSpace(name) == name && utf8.ValidString(name) &&
			!strings.ContainsRune(name, '/') && !strings.ContainsFunc(name, unicode.IsControl)
	}, "use 1 to 200 bytes without a slash, control characters and space around them, and not the form of a uuid"}
}

// name reads the field name, which must be there, well formed and new in seen.
func (r *reader) name(f fields, dst *string, seen map[string]value) {
	r.named(f, dst, seen, strictNames())
}

func (r *reader) named(f fields, dst *string, seen map[string]value, rule nameRule) {
	v := f.get("name")
	if v.node == nil {
		r.missing(f, "name", "add one")
		return
	}
	text, ok := r.scalar(v, "text")
	if !ok {
		return
	}
	if !rule.allows(text) || uuidPattern.MatchString(text) {
		r.wrong(v, fmt.Sprintf("%q cannot be a name", text), rule.remedy)
		return
	}
	if first, twice := seen[text]; twice {
		r.wrong(v, fmt.Sprintf("the name %s is already taken in line %d", text, first.node.Line), "choose another one")
		return
	}
	seen[text] = v
	*dst = text
}

// reference reads the name of a database that must exist.
func (r *reader) reference(v value, dst *string, known []string) {
	text := ""
	r.text(v, &text)
	if text == "" {
		return
	}
	if slices.Contains(known, text) {
		*dst = text
		return
	}
	r.wrong(v, fmt.Sprintf("there is no database %q", text), suggest.Remedy(text, known))
}

func (r *reader) missing(f fields, key, remedy string) {
	r.wrong(value{node: f.self.node, path: f.self.child(key, nil).path}, "missing", remedy)
}

// checkListen refuses addresses that others can reach while anybody may come in.
func (r *reader) checkListen(c *Config) {
	r.checkAddress(c, r.listenAt, c.Listen, "127.0.0.1:7300")
	if c.Stream.Listen != "" {
		r.checkAddress(c, r.natsAt, c.Stream.Listen, "127.0.0.1:7422")
	}
}

func (r *reader) checkAddress(c *Config, at value, address, example string) {
	loopback, err := Loopback(address)
	if err != nil {
		r.wrong(at, err.Error(), "write host:port, such as "+example)
		return
	}
	if !loopback && len(c.Tokens) == 0 {
		r.wrong(at, fmt.Sprintf("%s can be reached from outside and no token is configured", address), "add one under tokens, or listen on 127.0.0.1")
	}
}

// CheckListen returns an error that wraps [lockstep.ErrInvalid] when others than
// this machine can reach the address while the configuration has no token. It is
// for an address that did not come from the file.
func (c *Config) CheckListen(address string) error {
	loopback, err := Loopback(address)
	if err != nil {
		return fmt.Errorf("listen: %w, write host:port, such as 127.0.0.1:7300: %w", err, lockstep.ErrInvalid)
	}
	if !loopback && len(c.Tokens) == 0 {
		return fmt.Errorf("listen: %s can be reached from outside and no token is configured, add one under tokens, or listen on 127.0.0.1: %w", address, lockstep.ErrInvalid)
	}
	return nil
}

// Loopback reports whether only programs on this machine can reach the address
// host:port. A host's name other than localhost counts as reachable from outside:
// what it stands for may change.
func Loopback(address string) (bool, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("%q is not an address", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > math.MaxUint16 {
		return false, fmt.Errorf("%q is not a port", port)
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback(), nil
}
