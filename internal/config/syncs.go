package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lockstep/internal/suggest"
)

// The bounds of a sync's settings.
const (
	MinEvery             = 50 * time.Millisecond
	MaxEvery             = 30 * 24 * time.Hour
	MinRequestsPerSecond = 0.001
	MaxRequestsPerSecond = 10_000
	MaxConcurrent        = 1000
	MaxReserve           = 0.9 // the rest must be enough to get anywhere
)

// Sync mirrors an account of an API into tables.
type Sync struct {
	Name        string
	Provider    string
	BaseURL     string // empty: the API's own
	SpecFile    string // of provider rest: where the description was read; empty: it stood in the configuration
	Spec        string // and its text
	Credential  Credential
	Collections []string // with the provider, stripe:customer; empty: all
	Database    string
	Schema      string // the tables are made in it
	RateLimit   RateLimit
	Every       time.Duration // pause between two looks for changes; 0: what suits the API
	Paused      bool
}

// Credential lets a sync into an account.
type Credential struct {
	Kind       string // empty: the provider's usual one
	Properties map[string]Secret
}

// RateLimit narrows what an API's own limits allow. Zero fields leave those.
type RateLimit struct {
	RequestsPerSecond float64
	MaxConcurrent     int
	Reserve           float64 // the share that is left to others
}

// SyncCheck is what the owner of the providers says about a sync.
type SyncCheck struct {
	// Collections are the chosen ones in full, stripe:customer; none: all.
	Collections []string
	// Schema is the default of the field of that name; empty: the provider's name.
	Schema string
	Faults []SyncFault
}

// SyncFault is one thing that is wrong with a sync.
type SyncFault struct {
	// Field is the sync's, such as base_url, credential.properties.secret or
	// collections[0]; empty: the whole of it.
	Field   string
	Message string
	Remedy  string
	// In is the place in the spec when the fault lies there.
	In *Problem
}

// syncReader reads one sync and remembers where its fields stand.
type syncReader struct {
	*reader
	self    value
	places  map[string]value
	damaged map[string]bool // fields of which a fault is told already
}

func (r *reader) syncs(v value, known []string) []Sync {
	var out []Sync
	names, schemas := map[string]value{}, map[string]string{}
	for _, item := range r.list(v) {
		f, ok := r.mapping(item, "name", "provider", "base_url", "spec", "credential", "collections", "database", "schema", "rate_limit", "every", "paused")
		if !ok {
			continue
		}
		s := Sync{}
		r.name(f, &s.Name, names)
		sr := &syncReader{reader: r, self: f.self, places: map[string]value{}, damaged: map[string]bool{}}
		sr.account(f, &s)
		r.syncDatabase(f, &s, known)
		check := sr.check(&s)
		r.schema(f, &s, check, schemas)
		r.pace(f, &s)
		r.boolean(f.get("paused"), &s.Paused)
		out = append(out, s)
	}
	return out
}

// account reads what a sync is about: everything that the provider has a say in.
func (r *syncReader) account(f fields, s *Sync) {
	r.field(f, "provider", &s.Provider)
	if s.Provider == "" && !r.damaged["provider"] {
		r.damaged["provider"] = true
		r.missing(f, "provider", "say which API it is, such as provider: stripe")
	}
	r.field(f, "base_url", &s.BaseURL)
	r.field(f, "spec", &s.SpecFile)
	if strings.Contains(s.SpecFile, "\n") { // it is the description itself, and no file's name
		s.Spec, s.SpecFile = s.SpecFile, ""
	}
	if s.SpecFile != "" {
		r.spec(f.get("spec"), s)
	}
	r.credential(f.get("credential"), &s.Credential)
	for i, item := range r.list(f.get("collections")) {
		name := ""
		r.part(fmt.Sprintf("collections[%d]", i), item, &name)
		s.Collections = append(s.Collections, name)
	}
}

// field reads a text and remembers its place.
func (r *syncReader) field(f fields, key string, dst *string) {
	if f.has(key) {
		r.part(key, f.get(key), dst)
	}
}

// part reads a text, or a number or boolean as it is written.
func (r *syncReader) part(name string, v value, dst *string) {
	r.places[name] = v
	text, ok := r.scalar(v, "text", "!!int", "!!bool")
	r.damaged[name] = !ok
	*dst = text
}

func (r *syncReader) credential(v value, c *Credential) {
	if v.node == nil {
		return
	}
	r.places["credential"] = v
	f, ok := r.mapping(v, "kind", "properties")
	r.damaged["credential"] = !ok
	if !ok {
		return
	}
	if f.has("kind") {
		r.part("credential.kind", f.get("kind"), &c.Kind)
	}
	if !f.has("properties") {
		return
	}
	r.places["credential.properties"] = f.get("properties")
	properties, ok := r.mapping(f.get("properties"))
	r.damaged["credential.properties"] = !ok
	c.Properties = map[string]Secret{}
	for name := range properties.values {
		text := ""
		if v := properties.get(name); v.node != nil {
			r.part("credential.properties."+name, v, &text)
		}
		c.Properties[name] = Secret(text)
	}
}

// spec reads the description of an API, which lies beside the configuration.
func (r *syncReader) spec(v value, s *Sync) {
	path := s.SpecFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(r.file), path)
	}
	s.SpecFile = path
	data, err := readRegular(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.wrong(v, fmt.Sprintf("there is no file %s", path), "name one relative to the configuration's folder")
	case err != nil:
		r.wrong(v, fmt.Sprintf("%s cannot be read: %s", path, oneLine(err)), "")
	case len(data) > MaxFileBytes:
		r.wrong(v, fmt.Sprintf("%s is larger than %d bytes", path, MaxFileBytes), "is it really the description of an API?")
	default:
		s.Spec = string(data)
		return
	}
	r.damaged["spec"] = true
}

// readRegular reads a file, but waits for no pipe and no device.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no file")
	}
	return readFile(path)
}

// check has the provider's owner look at the sync, and takes what it completes.
func (r *syncReader) check(s *Sync) SyncCheck {
	if r.options.CheckSync == nil || r.damaged["provider"] {
		return SyncCheck{Collections: s.Collections}
	}
	found := r.options.CheckSync(*s)
	for _, fault := range found.Faults {
		if fault.In != nil && s.SpecFile != "" {
			r.add(*fault.In)
			continue
		}
		if fault.In != nil { // the lines are those of the text
			fault.Message = fmt.Sprintf("line %d: %s: %s", fault.In.Line, fault.In.Path, fault.In.Message)
			fault.Field, fault.Remedy = "spec", fault.In.Remedy
		}
		at, known := r.place(fault.Field)
		if !known {
			continue
		}
		r.wrong(at, fault.Message, fault.Remedy)
	}
	if len(found.Faults) == 0 {
		s.Collections = found.Collections
	}
	return found
}

// place finds where a field stands, or what it should stand in. It returns false for a
// field of which a fault is told already: what follows from that need not be told.
func (r *syncReader) place(field string) (value, bool) {
	at := value{node: r.self.node, path: r.self.path}
	if field != "" {
		at.path = r.self.child(field, nil).path
	}
	for name := field; name != ""; {
		if r.damaged[name] {
			return at, false
		}
		if v, there := r.places[name]; there {
			at.node = v.node
			return at, true
		}
		name = name[:max(strings.LastIndexAny(name, ".["), 0)]
	}
	return at, true
}

// syncDatabase reads which database the tables are made in.
func (r *reader) syncDatabase(f fields, s *Sync, known []string) {
	if len(known) == 1 {
		s.Database = known[0]
	} else if !f.has("database") && len(known) > 0 {
		r.missing(f, "database", "say which of "+suggest.Or(known))
		return
	}
	r.reference(f.get("database"), &s.Database, known)
}

// schema reads where in the database the tables are made. Two schemas whose names differ
// only by case are one to whoever writes them without quotes.
func (r *reader) schema(f fields, s *Sync, check SyncCheck, taken map[string]string) {
	s.Schema = cmp.Or(check.Schema, s.Provider)
	r.text(f.get("schema"), &s.Schema)
	at := f.get("schema")
	if at.node == nil {
		at.node = f.self.node
	}
	switch name := s.Schema; {
	case !f.has("schema") && check.Schema == "" && len(check.Faults) > 0 || name == "":
		return // the default is not known
	case len(name) > 63 || strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		r.wrong(at, fmt.Sprintf("%q cannot be the name of a schema", name), "use at most 63 bytes")
	case strings.HasPrefix(name, "pg_") || name == "information_schema" || name == "lockstep":
		r.wrong(at, fmt.Sprintf("the schema %s is not for mirrored tables", name), "choose another one")
	}
	key := s.Database + "\x00" + strings.ToLower(s.Schema)
	if other, twice := taken[key]; twice && s.Database != "" {
		r.wrong(at, fmt.Sprintf("the schema %s is already that of the sync %s", s.Schema, other), "give one of them a schema of its own")
		return
	}
	taken[key] = s.Name
}

// pace reads how fast the API is asked.
func (r *reader) pace(f fields, s *Sync) {
	r.duration(f.get("every"), &s.Every, MinEvery, MaxEvery)
	if !f.has("rate_limit") {
		return
	}
	limit, ok := r.mapping(f.get("rate_limit"), "requests_per_second", "max_concurrent", "reserve")
	if !ok {
		return
	}
	r.number(limit.get("requests_per_second"), &s.RateLimit.RequestsPerSecond, MinRequestsPerSecond, MaxRequestsPerSecond)
	r.integer(limit.get("max_concurrent"), &s.RateLimit.MaxConcurrent, 1, MaxConcurrent)
	r.number(limit.get("reserve"), &s.RateLimit.Reserve, 0, MaxReserve)
}

// number sets dst to a number from low to high.
func (r *reader) number(v value, dst *float64, low, high float64) {
	text, ok := r.bare(v, "a number", "!!int", "!!float")
	if !ok || text == "" {
		return
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n < low || n > high {
		r.wrong(v, fmt.Sprintf("%q is not a number from %v to %v", text, low, high), "change it")
		return
	}
	*dst = n
}
