package sandbox

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"sync"
)

// The kinds of faults that any API obeys.
const (
	FaultStatus   = "status"   // an error with Status, worded as the vendor does, or Body; default 500
	FaultHTML     = "html"     // a page of HTML with Status, default 200
	FaultEmpty    = "empty"    // Status, default 204, and no body
	FaultRedirect = "redirect" // Status, default 302, to Location
	FaultTruncate = "truncate" // the head promises all of the body, the connection ends after Bytes, default half
	FaultLength   = "length"   // the head promises less than there is: the body ends early without an error
	FaultReset    = "reset"    // the connection is reset before the head
	FaultHang     = "hang"     // nothing comes until the client gives up
	FaultSlow     = "slow"     // BytesPerSecond, default 1
	FaultGzip     = "gzip"     // a body said to be gzip that breaks off
	FaultType     = "type"     // the right body with the wrong Content-Type
	FaultDelay    = "delay"    // nothing but the delay
)

// Fault says which answers to spoil and how. The zero values of what it matches
// match everything.
type Fault struct {
	ID   int    `json:"id"` // set by Add
	Kind string `json:"kind"`

	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`  // regular expression
	Query  string `json:"query,omitempty"` // a part of the query as sent

	// Nth is the matching request, from 1, at which the fault begins; 0: the first.
	Nth int `json:"nth,omitempty"`
	// Times is how many matching requests it meets; 0: all, but with Nth one.
	Times int `json:"times,omitempty"`
	// Probability is by which each of them is met; 0: always.
	Probability float64 `json:"probability,omitempty"`

	// After lets the request have its effect first; what only concerns the answer
	// (truncate, slow, …) always does.
	After bool `json:"after,omitempty"`

	Status         int               `json:"status,omitempty"`
	Body           string            `json:"body,omitempty"`
	Headers        map[string]string `json:"headers,omitempty"`
	Location       string            `json:"location,omitempty"`
	Bytes          int               `json:"bytes,omitempty"`
	BytesPerSecond int               `json:"bytes_per_second,omitempty"`
	Delay          Duration          `json:"delay,omitempty"` // before anything else
	// N is for kinds of the vendor's own.
	N int `json:"n,omitempty"`

	Seen int `json:"seen"` // matching requests so far
	Met  int `json:"met"`  // of them spoiled
}

// Faults is the script of what goes wrong.
type Faults struct {
	mu    sync.Mutex
	seed  Seed
	kinds map[string]string
	list  []*scripted
	last  int
}

type scripted struct {
	Fault
	path *regexp.Regexp
	dice Dice
}

func newFaults(seed Seed, kinds map[string]string) *Faults {
	return &Faults{seed: seed, kinds: kinds}
}

// Add adds faults. Of several that match a request the one added first meets it. An
// unknown kind, a path that is no regular expression and a status that is none are errors.
func (f *Faults) Add(faults ...Fault) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		if !f.known(fault.Kind) {
			return fmt.Errorf("fault: there is no kind %q; there are %s", fault.Kind, strings.Join(f.names(), ", "))
		}
		path, err := regexp.Compile(fault.Path)
		if err != nil {
			return fmt.Errorf("fault %s: path %q: %w", fault.Kind, fault.Path, err)
		}
		if fault.Status != 0 && (fault.Status < 200 || fault.Status > 599) {
			return fmt.Errorf("fault %s: status %d: must be 200 to 599", fault.Kind, fault.Status)
		}
		if fault.Probability < 0 || fault.Probability > 1 {
			return fmt.Errorf("fault %s: probability %v: must be 0 to 1", fault.Kind, fault.Probability)
		}
		f.last++
		fault.ID, fault.Seen, fault.Met = f.last, 0, 0
		f.list = append(f.list, &scripted{Fault: fault, path: path, dice: f.seed.Dice("fault", uint64(f.last))})
	}
	return nil
}

// Clear removes all faults.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// List returns the faults with how often they were met.
func (f *Faults) List() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Fault, 0, len(f.list))
	for _, s := range f.list {
		list = append(list, s.Fault)
	}
	return list
}

// pick returns the fault that meets a request, or nil.
func (f *Faults) pick(r *http.Request) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var picked *Fault
	for _, s := range f.list {
		if !s.matches(r) {
			continue
		}
		s.Seen++
		if picked != nil || !s.due() {
			continue
		}
		s.Met++
		one := s.Fault
		picked = &one
	}
	return picked
}

func (s *scripted) matches(r *http.Request) bool {
	return (s.Method == "" || strings.EqualFold(s.Method, r.Method)) && s.path.MatchString(r.URL.Path) &&
		(s.Query == "" || strings.Contains(r.URL.RawQuery, s.Query))
}

func (s *scripted) due() bool {
	times := s.Times
	if times == 0 && s.Nth > 0 {
		times = 1
	}
	if s.Seen < s.Nth || times > 0 && s.Met >= times {
		return false
	}
	return s.Probability == 0 || s.dice.Chance(s.Probability)
}

func (f *Faults) known(kind string) bool { _, ok := f.describe()[kind]; return ok }

// foreign says whether a kind is the vendor's own.
func (f *Faults) foreign(kind string) bool { _, ok := f.kinds[kind]; return ok }

func (f *Faults) names() []string {
	var names []string
	for name := range f.describe() {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// describe returns all kinds with what they mean.
func (f *Faults) describe() map[string]string {
	all := map[string]string{
		FaultStatus:   "an error with status (default 500), worded as the vendor does, or body",
		FaultHTML:     "a page of HTML with status (default 200)",
		FaultEmpty:    "status (default 204) and no body",
		FaultRedirect: "status (default 302) to location",
		FaultTruncate: "the connection ends after bytes (default half) of the body",
		FaultLength:   "Content-Length is too small: the body ends early without an error",
		FaultReset:    "the connection is reset before the head",
		FaultHang:     "nothing comes until the client gives up",
		FaultSlow:     "bytes_per_second (default 1)",
		FaultGzip:     "a gzip body that breaks off",
		FaultType:     "the right body with Content-Type text/plain",
		FaultDelay:    "delay and nothing else",
	}
	maps.Copy(all, f.kinds)
	return all
}
