package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"lockstep/internal/suggest"
)

const (
	// maxVisits bounds the work for one file: aliases may stand for the same nodes
	// many times over.
	maxVisits   = 200_000
	maxProblems = 200
	maxText     = 400
)

// place is where a part of the spec stands; parts that are checked against others
// carry it.
type place struct {
	line, column int
	path         string
}

// value is a node and its name.
type value struct {
	node *yaml.Node
	path string
}

func (v value) place() place { return place{line: v.node.Line, column: v.node.Column, path: v.path} }

func (v value) child(key string, n *yaml.Node) value {
	if v.path == "" {
		return value{node: n, path: key}
	}
	return value{node: n, path: v.path + "." + key}
}

// reads is a type that reads its own form.
type reads interface{ read(r *reader, v value) }

// reader fills structs from nodes by their tags and collects what is wrong, because
// the library's decoder stops at the first problem and knows no columns of keys.
//
// Tags: y:"name" or y:"name,required" or y:",inline"; oneof:"a b c" for words;
// min:"1" for numbers; scope:"id record" names what templates below may use.
type reader struct {
	file     string
	problems Problems
	visits   int
	scope    []string
	used     map[string]place // properties of the credential, where they are used first
}

func (r *reader) wrong(at place, message, remedy string) {
	if len(r.problems) == maxProblems {
		message, remedy = "there is more", "mend these first"
	}
	if len(r.problems) > maxProblems {
		return
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: at.line, Column: at.column, Path: shorten(at.path), Message: shorten(message), Remedy: shorten(remedy)})
}

func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// document returns the root of the file, or nil when there is none.
func (r *reader) document(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.syntax(err)
		return nil
	}
	var root, second yaml.Node
	if err := loader.Load(&root); err != nil {
		r.syntax(err)
		return nil
	}
	if err := loader.Load(&second); err == nil {
		r.wrong(place{line: second.Line, column: second.Column}, "a second document begins here", "keep one document per file")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	node := &root
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	return node
}

func (r *reader) syntax(err error) {
	if errors.Is(err, io.EOF) {
		r.wrong(place{}, "the file is empty", "begin with name: and base_url:")
		return
	}
	at, message := place{}, err.Error()
	if load, ok := errors.AsType[*yaml.LoadError](err); ok {
		at.line, at.column, message = load.Mark.Line, load.Mark.Column, load.Message
	}
	r.wrong(at, "not valid YAML: "+strings.ReplaceAll(message, "\n", " "), "mend it, then run again: nothing behind this place was checked")
}

// resolve follows an alias; false when the file's work is used up.
func (r *reader) resolve(v value) (value, bool) {
	if v.node.Kind == yaml.AliasNode && v.node.Alias != nil {
		v.node = v.node.Alias
	}
	if r.visits++; r.visits == maxVisits {
		r.wrong(v.place(), "the file's aliases repeat too much", "write less of it with aliases")
	}
	return v, r.visits < maxVisits && len(r.problems) <= maxProblems
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// into fills dst from v.
func (r *reader) into(v value, dst reflect.Value, tag reflect.StructTag) {
	v, ok := r.resolve(v)
	if !ok {
		return
	}
	if names := tag.Get("scope"); names != "" {
		before := r.scope
		r.scope = strings.Fields(names)
		defer func() { r.scope = before }()
	}
	if own, ok := reflect.TypeAssert[reads](dst.Addr()); ok {
		own.read(r, v)
		return
	}
	switch dst.Kind() {
	case reflect.Pointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		r.into(v, dst.Elem(), "")
	case reflect.Struct:
		r.structure(v, dst)
	case reflect.Map:
		r.mapping(v, dst)
	case reflect.Slice:
		r.list(v, dst)
	default:
		r.single(v, dst, tag)
	}
}

// key is one field of a struct with its tag.
type key struct {
	field    reflect.StructField
	at       reflect.Value
	required bool
}

// keys lists the fields of a struct by their names in the file.
func keys(dst reflect.Value, into map[string]key) map[string]key {
	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("y"), ",")
		switch {
		case option == "inline":
			keys(dst.Field(i), into)
		case name != "":
			into[name] = key{field: f, at: dst.Field(i), required: option == "required"}
		}
	}
	return into
}

func (r *reader) structure(v value, dst reflect.Value) {
	if v.node.Kind != yaml.MappingNode {
		r.wrong(v.place(), "expected keys and values, got "+describe(v.node), "write it as key: value")
		return
	}
	setPlace(dst, v.place())
	known := keys(dst, map[string]key{})
	values := r.pairs(v, func(name string) string {
		if _, ok := known[name]; ok || v.path == "" && strings.HasPrefix(name, "x-") {
			return ""
		}
		return suggest.Remedy(name, sortedKeys(known))
	}, 0)
	for _, name := range sortedKeys(known) {
		k := known[name]
		given, there := values[name]
		if !there || isNull(given.node) {
			if k.required {
				r.wrong(v.place(), name+" is missing", "add it")
			}
			continue
		}
		r.into(given, k.at, k.field.Tag)
	}
}

// setPlace tells a struct, and those that are part of it, where it stands.
func setPlace(dst reflect.Value, at place) {
	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		switch {
		case f.Name == "At":
			dst.Field(i).Set(reflect.ValueOf(at))
		case f.Anonymous:
			setPlace(dst.Field(i), at)
		}
	}
}

// pairs reads a mapping's keys, merged ones too; refuse returns the remedy for a key
// that is not known.
func (r *reader) pairs(v value, refuse func(string) string, depth int) map[string]value {
	out := map[string]value{}
	var merged []value
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k, n := v.node.Content[i], v.node.Content[i+1]
		if k.ShortTag() == "!!merge" {
			merged = append(merged, v.child("<<", n))
			continue
		}
		at := place{line: k.Line, column: k.Column, path: v.child(k.Value, k).path}
		if k.Kind != yaml.ScalarNode {
			r.wrong(at, "a key must be a word, got "+describe(k), "see the documentation for the keys")
			continue
		}
		if first, twice := out[k.Value]; twice {
			r.wrong(at, fmt.Sprintf("the key is already there in line %d", first.node.Line), "keep one of them")
			continue
		}
		if remedy := refuse(k.Value); remedy != "" {
			r.wrong(at, "unknown key", remedy)
			continue
		}
		out[k.Value] = v.child(k.Value, n)
	}
	for _, m := range merged {
		m, ok := r.resolve(m)
		if !ok {
			break
		}
		if m.node.Kind != yaml.MappingNode || depth > 8 {
			r.wrong(m.place(), "only keys and values can be merged", "let << name a mapping by its alias")
			continue
		}
		for name, given := range r.pairs(value{node: m.node, path: v.path}, refuse, depth+1) {
			if _, there := out[name]; !there {
				out[name] = given
			}
		}
	}
	return out
}

func (r *reader) mapping(v value, dst reflect.Value) {
	if v.node.Kind != yaml.MappingNode {
		r.wrong(v.place(), "expected keys and values, got "+describe(v.node), "write it as key: value")
		return
	}
	dst.Set(reflect.MakeMap(dst.Type()))
	given := r.pairs(v, func(string) string { return "" }, 0)
	for _, name := range sortedKeys(given) {
		item := reflect.New(dst.Type().Elem()).Elem()
		r.into(given[name], item, "")
		dst.SetMapIndex(reflect.ValueOf(name), item)
	}
}

func (r *reader) list(v value, dst reflect.Value) {
	nodes := []*yaml.Node{v.node}
	switch {
	case v.node.Kind == yaml.SequenceNode:
		nodes = v.node.Content
	case v.node.Kind == yaml.MappingNode && dst.Type().Elem().Kind() != reflect.Struct:
		r.wrong(v.place(), "expected a list, got "+describe(v.node), "write it as [a, b] or as lines beginning with -")
		return
	}
	for i, n := range nodes {
		item := reflect.New(dst.Type().Elem()).Elem()
		r.into(value{node: n, path: fmt.Sprintf("%s[%d]", v.path, i)}, item, "")
		dst.Set(reflect.Append(dst, item))
	}
}

// text returns a scalar as it is written.
func (r *reader) text(v value, expected string) (string, bool) {
	if v.node.Kind != yaml.ScalarNode || isNull(v.node) {
		r.wrong(v.place(), "expected "+expected+", got "+describe(v.node), "write one value")
		return "", false
	}
	return v.node.Value, true
}

func (r *reader) single(v value, dst reflect.Value, tag reflect.StructTag) {
	text, ok := r.text(v, "one value")
	if !ok {
		return
	}
	switch at := v.place(); {
	case dst.Type() == reflect.TypeFor[time.Duration]():
		d, err := parseDuration(text)
		if err != nil {
			r.wrong(at, err.Error(), "write a number with its unit, such as 500ms, 30s, 10m, 24h or 7d")
		}
		dst.SetInt(int64(d))
	case dst.Kind() == reflect.String:
		if words := strings.Fields(tag.Get("oneof")); len(words) > 0 && !slices.Contains(words, text) {
			r.wrong(at, fmt.Sprintf("unknown value %q", text), suggest.Remedy(text, words))
			return
		}
		dst.SetString(text)
	case dst.Kind() == reflect.Bool:
		if v.node.ShortTag() != "!!bool" {
			r.wrong(at, fmt.Sprintf("%q is neither true nor false", text), "write true or false")
		}
		dst.SetBool(strings.EqualFold(text, "true"))
	default:
		r.number(at, text, dst, tag)
	}
}

func (r *reader) number(at place, text string, dst reflect.Value, tag reflect.StructTag) {
	low, _ := strconv.ParseFloat(tag.Get("min"), 64)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= low && n <= 1e12) {
		r.wrong(at, fmt.Sprintf("%q is not a number of at least %v", text, low), "change it")
		return
	}
	if dst.CanFloat() {
		dst.SetFloat(n)
		return
	}
	if n != float64(int64(n)) {
		r.wrong(at, fmt.Sprintf("%q is not a whole number", text), "change it")
		return
	}
	dst.SetInt(int64(n))
}

// parseDuration reads a duration as Go writes it, or a whole number of days as 7d.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration", text)
	}
	return d, nil
}
