package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// writer writes YAML of the kind that people write: one key per line, lists in brackets.
type writer struct {
	text  strings.Builder
	names map[string]bool // variables that are used
	list  []string        // the same, in their order
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

// comment writes a line of a comment, whatever is in the text.
func (w *writer) comment(indent, format string, args ...any) {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...))
	w.text.WriteString(indent + "# " + text + "\n")
}

// variable returns a name for a secret that no other one has.
func (w *writer) variable(parts ...string) string {
	name := strings.Trim(strings.ToUpper(notOfAName.ReplaceAllString(strings.Join(parts, "_"), "_")), "_")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "SECRET_" + name
	}
	unique := name
	for n := 2; w.names[unique]; n++ {
		unique = fmt.Sprintf("%s_%d", name, n)
	}
	w.names[unique] = true
	w.list = append(w.list, unique)
	return unique
}

var (
	notOfAName = regexp.MustCompile(`[^A-Za-z0-9]+`)
	// plainText needs no quotes wherever it stands.
	plainText = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./-]*(:[A-Za-z][A-Za-z0-9_./-]*)*$`)
	// wordOfYAML is plain and means something else.
	wordOfYAML = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
)

// scalar writes a text so that it is read as itself: ${ does not begin a variable.
func scalar(text string) string { return quoted(strings.ReplaceAll(text, "${", "$${")) }

func quoted(text string) string {
	if plainText.MatchString(text) && !wordOfYAML.MatchString(text) {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// block writes a text of several lines below its key, or quoted where a block would
// change it.
func (w *writer) block(indent, name, text string) {
	text = strings.ReplaceAll(text, "${", "$${")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	plain := strings.Contains(text, "\n") && strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\n\n")
	for i, line := range lines {
		odd := strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) })
		plain = plain && !odd && strings.TrimRight(line, " ") == line && (i > 0 || strings.TrimLeft(line, " ") == line && line != "")
	}
	if !plain {
		w.line("%s%s: %s", indent, name, quoted(text))
		return
	}
	w.line("%s%s: |", indent, name)
	for _, line := range lines {
		w.line("%s", strings.TrimRight(indent+"  "+line, " "))
	}
}

func texts(list []string) string {
	quoted := make([]string, len(list))
	for i, text := range list {
		quoted[i] = scalar(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// settings writes a member of settings as a flow value, with variables in the place of
// what the node hides.
func (w *writer) settings(raw json.RawMessage, path ...string) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return "null"
	}
	return w.flow(v, path)
}

func (w *writer) flow(v any, path []string) string {
	switch v := v.(type) {
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, name := range sortedKeys(v) {
			parts = append(parts, scalarKey(name)+": "+w.flow(v[name], append(slices.Clip(path), name)))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = w.flow(v[i], append(slices.Clip(path), fmt.Sprint(i+1)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		if v == hidden || strings.HasSuffix(v, "/…") {
			return `"${` + w.variable(path...) + `}"`
		}
		return scalar(v)
	case json.Number:
		return v.String()
	}
	return canonical(v)
}

// scalarKey writes a key, in which no variables are put.
func scalarKey(name string) string { return quoted(name) }
