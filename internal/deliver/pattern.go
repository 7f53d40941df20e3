package deliver

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"lockstep"
)

// patterns selects tables: "public.orders", "public.*", "*.orders", quoted parts
// such as "we.ird"."Ta.ble", a leading - to exclude. A pattern without a schema
// means the schema public. Empty, or only exclusions: every table else.
type patterns struct {
	include, exclude []pattern
}

type pattern struct{ schema, name glob }

// glob is a name in which, unless it was quoted, * stands for any text and ? for one
// character.
type glob struct {
	text   string
	quoted bool
}

func parsePatterns(texts []string) (patterns, error) {
	var p patterns
	for _, text := range texts {
		rest, excluded := strings.CutPrefix(strings.TrimSpace(text), "-")
		one, err := parsePattern(rest)
		if err != nil {
			return patterns{}, fmt.Errorf("%q is not a table pattern: %w", text, err)
		}
		if excluded {
			p.exclude = append(p.exclude, one)
		} else {
			p.include = append(p.include, one)
		}
	}
	return p, nil
}

func parsePattern(text string) (pattern, error) {
	first, rest, err := parseGlob(text)
	if err != nil {
		return pattern{}, err
	}
	if rest == "" {
		if first.text == "*" && !first.quoted {
			return pattern{schema: first, name: first}, nil
		}
		return pattern{schema: glob{text: "public", quoted: true}, name: first}, nil
	}
	if rest[0] != '.' {
		return pattern{}, fmt.Errorf("unexpected %q; write schema.table", rest)
	}
	second, rest, err := parseGlob(rest[1:])
	if err != nil {
		return pattern{}, err
	}
	if rest != "" {
		return pattern{}, fmt.Errorf("unexpected %q; quote a name that holds a dot", rest)
	}
	return pattern{schema: first, name: second}, nil
}

func parseGlob(text string) (g glob, rest string, err error) {
	if text == "" {
		return glob{}, "", fmt.Errorf("a name is missing; write schema.table")
	}
	if text[0] != '"' {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		if end == 0 || strings.ContainsRune(text[:end], '"') {
			return glob{}, "", fmt.Errorf("put the whole name in double quotes")
		}
		return glob{text: text[:end]}, text[end:], nil
	}
	var name strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			name.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '"' {
			name.WriteByte('"')
			i++
			continue
		}
		return glob{text: name.String(), quoted: true}, text[i+1:], nil
	}
	return glob{}, "", fmt.Errorf("a quote is not closed")
}

// match reports whether changes of the table are selected. A change of no single
// table concerns everybody.
func (p patterns) match(t *lockstep.Table) bool {
	if t.OID == 0 {
		return true
	}
	for _, e := range p.exclude {
		if e.match(t) {
			return false
		}
	}
	for _, i := range p.include {
		if i.match(t) {
			return true
		}
	}
	return len(p.include) == 0
}

func (p pattern) match(t *lockstep.Table) bool {
	return p.schema.match(t.Schema) && p.name.match(t.Name)
}

// match goes back only to the last *, so that no pattern takes longer than its
// length times the name's.
func (g glob) match(name string) bool {
	if g.quoted {
		return g.text == name
	}
	pat, star, mark, p, n := g.text, -1, 0, 0, 0
	for n < len(name) {
		_, width := utf8.DecodeRuneInString(name[n:])
		switch {
		case p < len(pat) && pat[p] == '*':
			star, mark = p, n
			p++
		case p < len(pat) && pat[p] == '?':
			p++
			n += width
		case p < len(pat) && strings.HasPrefix(pat[p:], name[n:n+width]):
			p += width
			n += width
		case star >= 0:
			_, skip := utf8.DecodeRuneInString(name[mark:])
			mark += skip
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pat[p:], "*") == ""
}
