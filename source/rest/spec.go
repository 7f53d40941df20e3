package rest

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"lockstep/source"
)

// MaxSpecBytes is the largest spec that is read.
const MaxSpecBytes = 1 << 20

// Spec describes an API. Make it with [Parse]; it is not changed afterwards and may
// be used by any number of sources.
type Spec struct {
	At         place
	Name       string              `y:"name,required"`
	Title      string              `y:"title"`
	Docs       string              `y:"docs"`
	BaseURL    Template            `y:"base_url,required"`
	Credential map[string]Property `y:"credential"`
	Auth       []Auth              `y:"auth"` // the first whose when is given counts
	Headers    map[string]Template `y:"headers"`
	Check      *Check              `y:"check"`
	Timeout    time.Duration       `y:"timeout"`          // of one request with its body; default 60s
	MaxBody    int64               `y:"max_body" min:"1"` // bytes; default 64 MiB
	Message    Path                `y:"error_message"`
	Errors     []Rule              `y:"errors"`
	Limits     map[string]*Bucket  `y:"limits"`
	Buckets    []string            `y:"buckets"` // of every request that names none
	Records    Path                `y:"records"` // of every list that says nothing else
	Page       *Pager              `y:"page"`    // likewise

	Feeds       map[string]*Feed       `y:"feeds" scope:"after since until"`
	Collections map[string]*Collection `y:"collections,required"`
	Webhook     *Webhook               `y:"webhook" scope:""`
}

// Property is something that the user gives: a key, an organisation's name.
type Property struct {
	About   string `y:"about"`
	Secret  bool   `y:"secret"`
	Default string `y:"default"`
	// Optional ones may be missing; Pattern is what a value must match as a whole.
	Optional bool   `y:"optional"`
	Pattern  string `y:"pattern"`
}

// Check is the request that tells whether a credential works.
type Check struct {
	Request `y:",inline"`
	Account Path `y:"account"` // who it is, in the answer
}

// Request is one call.
type Request struct {
	At       place
	Method   string              `y:"method" oneof:"GET POST PUT PATCH DELETE"`
	Path     Template            `y:"path"`
	Query    map[string]Template `y:"query"`
	Headers  map[string]Template `y:"headers"`
	JSON     *Body               `y:"json"`
	Form     map[string]Template `y:"form"`
	GraphQL  *GraphQL            `y:"graphql"`
	Buckets  []string            `y:"buckets"`
	Cost     float64             `y:"cost" min:"0"`
	Errors   []Rule              `y:"errors"`
	Encoding string              `y:"encoding" oneof:"json form"` // of a write's data; default json
}

// GraphQL is a query with its variables, sent as POST to the request's path.
type GraphQL struct {
	Query     string `y:"query,required"`
	Variables *Body  `y:"variables"`
}

// Pager says how a list goes on.
type Pager struct {
	At    place
	Kind  string `y:"kind,required" oneof:"next_url link_header last_id token offset page graphql none"`
	Path  Path   `y:"path"`  // of the next URL, the token, pageInfo; in the answer
	Param string `y:"param"` // that carries the place: in the query, the form or the variables
	More  Path   `y:"more"`  // of a boolean in the answer; without it a short page ends the list
	Size  *Size  `y:"size"`
	First int    `y:"first" min:"0"` // number of the first page; default 1
	ID    Path   `y:"id"`            // last_id: of the id in a record, default that of the collection
}

// Size is how many records a page has.
type Size struct {
	Param string `y:"param,required"`
	Count int    `y:"count,required" min:"1"`
}

// List is a request whose answer holds records.
type List struct {
	Request `y:",inline"`
	Records Path   `y:"records"`
	Page    *Pager `y:"page"`
	// Passes are several goes at one list, for APIs that hide rows unless they are
	// asked for: each adds its parameters.
	Passes []map[string]Template `y:"passes"`
}

// Get is a request for records by id: one, or up to Batch of them.
type Get struct {
	Request `y:",inline"`
	Record  Path `y:"record"`  // in the answer; default all of it
	Records Path `y:"records"` // of a batch
	Batch   int  `y:"batch" min:"1"`
	// Form is what an id looks like, a regular expression; other ids do not exist. Its
	// named groups are known of the record.
	Form string `y:"form"`
	// Within is a list that holds the record, instead of a request for it.
	Within *List `y:"within"`
	// Parent is what {parent.…} means for a fetched record.
	Parent *Body `y:"parent"`
	// Confirm is asked when the record is not there: unless it succeeds, access was lost.
	Confirm *Request `y:"confirm"`

	form  *regexp.Regexp
	known []string // members of the record that must be known before
}

// When is a time in a record.
type When struct {
	At   place
	Path Path   `y:"path,required"`
	Type string `y:"type" oneof:"rfc3339 unix unix_ms date"`
}

// Parent is the collection over whose records a list is asked for.
type Parent struct {
	At         place
	Collection string `y:"collection,required"`
	Where      Match  `y:"where"`
}

// Nested is a list inside a record that may be cut off.
type Nested struct {
	At      place
	Field   Path `y:"field,required"` // of the list's envelope in the record
	List    `y:",inline"`
	Records Path `y:"items"` // in the envelope; default data
	// Envelope is where the answer of the list's own request has it; default: all of it.
	Envelope Path `y:"envelope"`
}

// Collection is one kind of records.
type Collection struct {
	At     place
	ID     ID    `y:"id" scope:"record parent"` // default {record.id}
	Where  Match `y:"where"`                    // others are left out
	Object Match `y:"object"`                   // what a feed's entry matches when it is about this collection

	Version *When `y:"version"`
	Created *When `y:"created"`
	Deleted Match `y:"deleted"`

	Parent *Parent             `y:"parent"`
	Add    map[string]Template `y:"add" scope:"record parent"` // members added to a record's data
	List   *List               `y:"list,required" scope:"after parent"`
	IDs    *List               `y:"ids" scope:"after parent"` // cheaper, for sweeps; default list
	Get    *Get                `y:"get" scope:"id ids known after"`
	Nested []Nested            `y:"nested" scope:"after id record"`

	Feed    string                   `y:"feed"`
	Changes *Feed                    `y:"changes" scope:"after since until parent"`
	Write   map[string]*WriteRequest `y:"write" scope:"id record key"`

	Volatile []string          `y:"volatile"`
	Fields   map[string]Column `y:"fields"`
	Every    time.Duration     `y:"every"`
	Settle   time.Duration     `y:"settle"`
	Trailing time.Duration     `y:"trailing"`
	Sweep    *Sweep            `y:"sweep"`
	Virtual  bool              `y:"virtual"`

	name string
}

// Sweep says how often all ids are listed to find deletions.
type Sweep struct {
	Every time.Duration `y:"every,required"`
}

// Feed is a way to find changes.
//
// log: entries that name the records that changed. updated: the list itself, ordered
// by the time of change. created: the list by the time of creation, for records that
// never change. etag: the whole list, whenever its first page is another one.
type Feed struct {
	At   place
	Kind string `y:"kind,required" oneof:"log updated created etag"`
	List `y:",inline"`

	Order     string        `y:"order" oneof:"newest_first oldest_first"`
	ID        Path          `y:"id"`   // log: of an entry
	Time      *When         `y:"time"` // log: of an entry; default the collection's version or creation
	Record    Path          `y:"record"`
	RecordID  Path          `y:"record_id"` // log: default the collection's id within record
	Deletes   Match         `y:"deletes"`   // log: entries that say that the record is gone
	Hydrate   bool          `y:"hydrate"`
	Overlap   time.Duration `y:"overlap"`
	Retention time.Duration `y:"retention"`
	Pages     int           `y:"pages" min:"1"` // etag: how many are read at most; default all
	Every     time.Duration `y:"every"`
	Settle    time.Duration `y:"settle"`
	Trailing  time.Duration `y:"trailing"`

	name string
}

// WriteRequest is one kind of write.
type WriteRequest struct {
	Request        `y:",inline"`
	Record         Path   `y:"record"`
	IdempotencyKey string `y:"idempotency_header"`
}

// Bucket is one limit of an account.
type Bucket struct {
	At          place
	Rate        float64       `y:"rate" min:"0"` // cost per Per; 0: no limit
	Per         time.Duration `y:"per"`          // default 1s
	Burst       float64       `y:"burst" min:"0"`
	Concurrency int           `y:"concurrency" min:"0"`
	// Each makes one bucket of it per path of a request: its name is bucket:path.
	Each    string        `y:"each" oneof:"path"`
	Penalty time.Duration `y:"penalty"`         // pause after a refusal that says no time
	Reserve float64       `y:"reserve" min:"0"` // share left to others, 0 to 1
	// Headers of answers that say what is left.
	LimitHeader     string `y:"limit_header"`
	RemainingHeader string `y:"remaining_header"`
	ResetHeader     string `y:"reset_header"`
	ResetFormat     string `y:"reset_format" oneof:"epoch seconds"`
}

// Column is a typed column: its type alone, or keys and values.
type Column struct {
	At   place
	Type string `y:"type,required" oneof:"text boolean bigint numeric double timestamptz unix unix_ms date jsonb text[]"`
	Path string `y:"path"`
	Key  string `y:"key"`
}

// read implements reads.
func (c *Column) read(r *reader, v value) {
	type plain Column
	if v.node.Kind != kindScalar {
		r.into(v, reflect.ValueOf((*plain)(c)).Elem(), "")
		return
	}
	c.At = v.place()
	f, _ := reflect.TypeFor[Column]().FieldByName("Type")
	r.single(v, reflect.ValueOf(&c.Type).Elem(), f.Tag)
}

func (c Column) sourceType() source.Type {
	if c.Type == "double" {
		return source.Double
	}
	return source.Type(c.Type)
}

// ID is where a record's id is: a path, or a template of several.
type ID struct{ t Template }

// read implements reads.
func (id *ID) read(r *reader, v value) {
	if v.node.Kind == kindScalar && !strings.Contains(v.node.Value, "{") {
		id.t = Template{parts: []part{{root: "record", path: parsePath(v.node.Value)}}}
		return
	}
	id.t.read(r, v)
}

// read implements reads.
func (p *Path) read(r *reader, v value) {
	if text, ok := r.text(v, "a path"); ok {
		*p = parsePath(text)
	}
}

// read implements reads: a time may be written as its path alone.
func (w *When) read(r *reader, v value) {
	type plain When
	if v.node.Kind != kindScalar {
		r.into(v, reflect.ValueOf((*plain)(w)).Elem(), "")
		return
	}
	w.At = v.place()
	w.Path = parsePath(v.node.Value)
}

func (w *When) of(data []byte) time.Time {
	if w == nil {
		return time.Time{}
	}
	t, _ := parseTime(w.Path.text(data), w.Type)
	return t
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// Parse reads a spec. What is wrong is returned as [Problems], all of it; name stands
// in them.
func Parse(name string, data []byte) (*Spec, error) {
	r := &reader{file: name}
	if len(data) > MaxSpecBytes {
		r.wrong(place{}, fmt.Sprintf("the file is larger than %d bytes", MaxSpecBytes), "is it really a spec?")
		return nil, r.problems
	}
	s := &Spec{}
	if root := r.document(data); root != nil {
		r.into(value{node: root}, reflect.ValueOf(s).Elem(), "")
	}
	// What names what is checked even when something else is wrong, so that
	// everything is told in one run.
	if r.visits < maxVisits && (s.Name != "" || s.Collections != nil) {
		c := &checker{r: r, spec: s}
		c.check()
	}
	if len(r.problems) > 0 {
		return nil, r.problems.tidy()
	}
	return s, nil
}

// Bucket returns the limit that a bucket's name stands for.
func (s *Spec) Bucket(name string) (Bucket, bool) {
	base, _, _ := strings.Cut(name, ":")
	b, ok := s.Limits[base]
	if !ok {
		return Bucket{}, false
	}
	return *b, true
}

// CollectionNames returns the names of the collections in the order of the file.
func (s *Spec) CollectionNames() []string {
	names := sortedKeys(s.Collections)
	slices.SortStableFunc(names, func(a, b string) int {
		x, y := s.Collections[a].At, s.Collections[b].At
		if x.line != y.line {
			return x.line - y.line
		}
		return x.column - y.column
	})
	return names
}
