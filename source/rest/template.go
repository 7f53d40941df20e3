package rest

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Template is text with places to fill: {root.path} or {root.path:format}. {{ and }}
// are braces.
//
// The roots are credential (the sync's properties), record and parent (paths in their
// data), known (what was seen of a record that is fetched), id, after (the cursor of a page), since and until (times; format unix,
// unix_ms, rfc3339 (default) or date) and key (of a write). In a path everything is
// escaped but with the format path, which keeps slashes.
type Template struct {
	parts []part
}

// part is text, or a place when root is set.
type part struct {
	text   string
	root   string
	path   Path
	format string
}

func formats() []string {
	return []string{"", "path", "unix", "unix_ms", "rfc3339", "date", "json"}
}

// read implements reads.
func (t *Template) read(r *reader, v value) {
	text, ok := r.text(v, "text")
	if !ok {
		return
	}
	parsed, err := parseTemplate(text)
	if err != nil {
		r.wrong(v.place(), err.Error(), "write {root.path}, or {{ and }} for braces")
		return
	}
	r.roots(v.place(), parsed)
	*t = parsed
}

// roots checks that a template uses only what is known where it stands.
func (r *reader) roots(at place, t Template) {
	for _, p := range t.parts {
		if p.root == "credential" {
			r.use(p.path.String(), at)
		}
		if p.root != "" && p.root != "credential" && !slices.Contains(r.scope, p.root) {
			r.wrong(at, fmt.Sprintf("{%s} is not known here", p.root), "use "+strings.Join(append([]string{"credential"}, r.scope...), ", "))
		}
	}
}

func (r *reader) use(property string, at place) {
	if r.used == nil {
		r.used = map[string]place{}
	}
	if first, ok := r.used[property]; !ok || at.line < first.line {
		r.used[property] = at
	}
}

func parseTemplate(text string) (Template, error) {
	var t Template
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '{' && c != '}' {
			plain.WriteByte(c)
			continue
		}
		if i+1 < len(text) && text[i+1] == c {
			plain.WriteByte(c)
			i++
			continue
		}
		end := strings.IndexByte(text[i:], '}')
		if c == '}' || end < 0 {
			return Template{}, fmt.Errorf("%q has a brace without its other one", text)
		}
		p, err := parsePart(text[i+1 : i+end])
		if err != nil {
			return Template{}, err
		}
		if plain.Len() > 0 {
			t.parts = append(t.parts, part{text: plain.String()})
			plain.Reset()
		}
		t.parts = append(t.parts, p)
		i += end
	}
	if plain.Len() > 0 {
		t.parts = append(t.parts, part{text: plain.String()})
	}
	return t, nil
}

func parsePart(inner string) (part, error) {
	name, format, _ := strings.Cut(inner, ":")
	root, path, _ := strings.Cut(name, ".")
	if root == "" || strings.ContainsAny(inner, "{ \t\n") {
		return part{}, fmt.Errorf("{%s} is not a place to fill", inner)
	}
	if !slices.Contains(formats(), format) {
		return part{}, fmt.Errorf("{%s}: unknown format %s", inner, format)
	}
	return part{root: root, path: parsePath(path), format: format}, nil
}

// empty reports whether the template was not written at all.
func (t Template) empty() bool { return len(t.parts) == 0 }

// uses reports whether the template has a place with that root.
func (t Template) uses(root string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.root == root })
}

// scope is what templates are filled from.
type scope struct {
	credential  map[string]string
	record      json.RawMessage
	parent      json.RawMessage
	known       json.RawMessage // what is known of the record that is fetched
	id, after   string
	key         string
	ids         []string // of a batch
	since, till time.Time
}

// raw returns the JSON that a place stands for; nil when there is none.
func (s *scope) raw(p part) json.RawMessage {
	switch p.root {
	case "record":
		return p.path.in(s.record)
	case "parent":
		return p.path.in(s.parent)
	case "known":
		return p.path.in(s.known)
	case "ids":
		b, err := json.Marshal(s.ids)
		if err != nil {
			return nil
		}
		return b
	}
	if text := s.text(p); text != "" {
		if p.format == "unix" || p.format == "unix_ms" {
			return json.RawMessage(text)
		}
		return quote(text)
	}
	return nil
}

func (s *scope) text(p part) string {
	switch p.root {
	case "credential":
		return s.credential[p.path.String()]
	case "record":
		return p.path.text(s.record)
	case "parent":
		return p.path.text(s.parent)
	case "known":
		return p.path.text(s.known)
	case "id":
		return s.id
	case "ids":
		return strings.Join(s.ids, ",")
	case "after":
		return s.after
	case "key":
		return s.key
	case "since":
		return formatTime(s.since, p.format)
	case "until":
		return formatTime(s.till, p.format)
	}
	return ""
}

func formatTime(t time.Time, format string) string {
	if t.IsZero() {
		return ""
	}
	switch format {
	case "unix":
		return strconv.FormatInt(t.Unix(), 10)
	case "unix_ms":
		return strconv.FormatInt(t.UnixMilli(), 10)
	case "date":
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// fill returns the text. When a place has no value the whole text is empty: a
// parameter is left out then.
func (t Template) fill(s *scope) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.root == "" {
			b.WriteString(p.text)
			continue
		}
		text := s.text(p)
		if text == "" {
			return ""
		}
		b.WriteString(text)
	}
	return b.String()
}

// fillPath returns the text with values escaped as parts of a URL's path.
func (t Template) fillPath(s *scope) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.root == "" {
			b.WriteString(p.text)
			continue
		}
		text := s.text(p)
		if text == "" || text == "." || text == ".." {
			return "", fmt.Errorf("{%s.%s} has no usable value for the path", p.root, p.path)
		}
		if p.format == "path" {
			b.WriteString(strings.ReplaceAll(url.PathEscape(text), "%2F", "/"))
			continue
		}
		b.WriteString(url.PathEscape(text))
	}
	return b.String(), nil
}

// Body is JSON whose texts are templates. A text that is one place and nothing else
// becomes the value's own JSON: a number stays a number.
type Body struct {
	kind  yaml.Kind
	text  Template
	plain json.RawMessage
	keys  []string
	items []Body
}

// read implements reads.
func (b *Body) read(r *reader, v value) {
	v, ok := r.resolve(v)
	if !ok {
		return
	}
	b.kind = v.node.Kind
	switch {
	case v.node.Kind == yaml.MappingNode:
		given := r.pairs(v, func(string) string { return "" }, 0)
		b.keys = sortedKeys(given)
		for _, name := range b.keys {
			var item Body
			item.read(r, given[name])
			b.items = append(b.items, item)
		}
	case v.node.Kind == yaml.SequenceNode:
		for _, n := range v.node.Content {
			var item Body
			item.read(r, value{node: n, path: v.path})
			b.items = append(b.items, item)
		}
	case v.node.ShortTag() == "!!str":
		b.text.read(r, v)
	case !json.Valid([]byte(v.node.Value)):
		r.wrong(v.place(), fmt.Sprintf("%q is not a value of JSON", v.node.Value), "put it in quotes")
	default:
		b.plain = json.RawMessage(v.node.Value)
	}
}

// fill appends the JSON. Members of an object without a value are left out.
func (b *Body) fill(out []byte, s *scope) []byte {
	switch {
	case b.kind == yaml.MappingNode:
		out = append(out, '{')
		first := true
		for i, item := range b.items {
			if item.missing(s) {
				continue
			}
			if !first {
				out = append(out, ',')
			}
			first = false
			out = append(append(out, quote(b.keys[i])...), ':')
			out = item.fill(out, s)
		}
		return append(out, '}')
	case b.kind == yaml.SequenceNode:
		out = append(out, '[')
		for i, item := range b.items {
			if i > 0 {
				out = append(out, ',')
			}
			out = item.fill(out, s)
		}
		return append(out, ']')
	case b.plain != nil:
		return append(out, b.plain...)
	case len(b.text.parts) == 1 && b.text.parts[0].root != "":
		if v := s.raw(b.text.parts[0]); v != nil {
			return append(out, v...)
		}
		return append(out, "null"...)
	}
	return append(out, quote(b.text.fill(s))...)
}

func (b *Body) missing(s *scope) bool {
	return b.kind == yaml.ScalarNode && b.plain == nil && len(b.text.parts) == 1 && b.text.parts[0].root != "" && s.raw(b.text.parts[0]) == nil
}
