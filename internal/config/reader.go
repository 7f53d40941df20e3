package config

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"lockstep/internal/suggest"
)

const (
	// maxVisits bounds the work for one file: aliases may stand for the same nodes
	// many times over. A file of the largest size without aliases stays below it.
	maxVisits = 2 * MaxFileBytes
	// maxProblems and maxText bound what is told about one file.
	maxProblems = 1000
	maxText     = 400
)

// reader walks the document and collects what is wrong. It decodes by hand rather
// than into structs, because the decoder stops at the first wrong value of a kind
// and knows no columns of keys.
type reader struct {
	file     string
	options  Options
	lookup   func(string) (string, bool)
	problems Problems
	visits   int
	listenAt value // where the listen address stands, for its check at the end
	natsAt   value // and that of the NATS server
}

func newReader(name string, o Options) *reader {
	r := &reader{file: name, options: o, lookup: o.Lookup}
	if r.file == "" {
		r.file = "configuration"
	}
	if r.lookup == nil {
		r.lookup = os.LookupEnv
	}
	return r
}

func (r *reader) add(p Problem) {
	if len(r.problems) > maxProblems {
		return
	}
	if len(r.problems) == maxProblems {
		p = Problem{Line: math.MaxInt, Message: "there is more", Remedy: "mend these first"}
	}
	if p.File == "" {
		p.File = r.file
	}
	p.Path, p.Message, p.Remedy = shorten(p.Path), shorten(p.Message), shorten(p.Remedy)
	r.problems = append(r.problems, p)
}

func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// value is a node and where it stands in the document.
type value struct {
	node *yaml.Node
	path string
}

// at returns the value with its path, for a list's element.
func (v value) at(i int, node *yaml.Node) value {
	return value{node: node, path: fmt.Sprintf("%s[%d]", v.path, i)}
}

func (v value) child(key string, node *yaml.Node) value {
	if v.path == "" {
		return value{node: node, path: key}
	}
	return value{node: node, path: v.path + "." + key}
}

func (r *reader) wrong(v value, message, remedy string) {
	p := Problem{Path: v.path, Message: message, Remedy: remedy}
	if v.node != nil {
		p.Line, p.Column = v.node.Line, v.node.Column
	}
	r.add(p)
}

// resolve follows an alias and counts the visit. It returns false when the budget
// of the file is used up.
func (r *reader) resolve(v value) (value, bool) {
	if r.visits > maxVisits || len(r.problems) > maxProblems {
		return v, false
	}
	if v.node.Kind == yaml.AliasNode && v.node.Alias != nil {
		v.node = v.node.Alias
	}
	r.visits++
	if r.visits > maxVisits {
		r.wrong(v, "the file's aliases repeat too much", "write less of it with aliases")
		return v, false
	}
	return v, true
}

// absent reports whether the value is missing or null, which are the same here.
func absent(v value) bool {
	return v.node == nil || v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null"
}

// fields is a mapping whose keys are known.
type fields struct {
	self   value
	values map[string]value
}

// get returns a field's value; its node is nil when the field is absent.
func (f fields) get(key string) value {
	if v, ok := f.values[key]; ok && !absent(v) {
		return v
	}
	return value{path: f.self.child(key, nil).path}
}

// has reports whether the field is there and not null.
func (f fields) has(key string) bool { return f.get(key).node != nil }

// mapping reads a mapping and reports every key that is not in known, or twice. When
// none is known every key is taken.
func (r *reader) mapping(v value, known ...string) (fields, bool) {
	f := fields{self: v, values: map[string]value{}}
	v, ok := r.resolve(v)
	if !ok {
		return f, false
	}
	if v.node.Kind != yaml.MappingNode {
		r.wrong(v, "expected keys and values, got "+describe(v.node), "write it as key: value")
		return f, false
	}
	f.self = v
	r.collect(&f, v, known)
	r.merge(&f, v, known, 0)
	return f, true
}

// collect takes the keys that stand in the mapping itself.
func (r *reader) collect(f *fields, v value, known []string) {
	seen := map[string]int{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, val := v.node.Content[i], v.node.Content[i+1]
		if key.ShortTag() == "!!merge" {
			continue
		}
		keyAt := value{node: key, path: v.path}
		if key.Kind != yaml.ScalarNode {
			r.wrong(keyAt, "a key must be a word, got "+describe(key), "see the documentation for the keys")
			continue
		}
		keyAt = v.child(key.Value, key)
		if line, twice := seen[key.Value]; twice {
			r.wrong(keyAt, fmt.Sprintf("the key is already there in line %d", line), "keep one of them")
			continue
		}
		seen[key.Value] = key.Line
		if len(known) > 0 && !slices.Contains(known, key.Value) {
			r.wrong(keyAt, "unknown key", suggest.Remedy(key.Value, known))
			continue
		}
		f.values[key.Value] = v.child(key.Value, val)
	}
}

// merge takes the keys of mappings that are merged in with <<, which yield to those
// that are there already.
func (r *reader) merge(f *fields, v value, known []string, depth int) {
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if v.node.Content[i].ShortTag() != "!!merge" {
			continue
		}
		from, ok := r.resolve(v.child("<<", v.node.Content[i+1]))
		if !ok {
			return
		}
		sources := []*yaml.Node{from.node}
		if from.node.Kind == yaml.SequenceNode {
			sources = from.node.Content
		}
		for _, n := range sources {
			src, ok := r.resolve(value{node: n, path: v.path})
			if !ok {
				return
			}
			if src.node.Kind != yaml.MappingNode || depth > 8 {
				r.wrong(from, "only keys and values can be merged", "let << name a mapping by its alias")
				continue
			}
			part := fields{self: src, values: map[string]value{}}
			r.collect(&part, src, known)
			r.merge(&part, src, known, depth+1)
			for key, val := range part.values {
				if _, there := f.values[key]; !there {
					f.values[key] = val
				}
			}
		}
	}
}

// list reads a sequence; an absent one is empty.
func (r *reader) list(v value) []value {
	if v.node == nil {
		return nil
	}
	v, ok := r.resolve(v)
	if !ok {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		r.wrong(v, "expected a list, got "+describe(v.node), "write it as [a, b] or as lines beginning with -")
		return nil
	}
	out := make([]value, 0, len(v.node.Content))
	for i, n := range v.node.Content {
		out = append(out, v.at(i, n))
	}
	return out
}

// describe names what a node is, for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!null":
		return "nothing"
	case "!!str":
		return "text"
	}
	return "a value tagged " + n.ShortTag()
}

// kindOf returns what kind of node the value is, behind its alias; 0 when absent.
func kindOf(v value) yaml.Kind {
	if v.node == nil {
		return 0
	}
	if v.node.Kind == yaml.AliasNode && v.node.Alias != nil {
		return v.node.Alias.Kind
	}
	return v.node.Kind
}
