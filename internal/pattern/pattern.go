// Package pattern selects tables by name: what is captured, what a consumer gets,
// what a tail shows.
//
//  1. A pattern is schema.table. A part without quotes matches names with the same
//     case; * stands for any characters and ? for one. A part in double quotes is
//     the name itself, with "" for a quote.
//  2. A leading - excludes; an exclusion always wins, wherever it stands in the
//     list. With no pattern, or only exclusions, everything is included.
//  3. The system's schemas (pg_*, information_schema) and lockstep never match.
//  4. Matching takes at most the pattern's length times the name's.
package pattern

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"lockstep"
)

// Own is the schema in which Lockstep keeps its own tables; see package pgdb.
const Own = "lockstep"

// Patterns says which tables are captured. The zero value matches every table
// outside of the system's schemas and Lockstep's own. Patterns is immutable and
// safe for concurrent use.
type Patterns struct {
	include []pattern
	exclude []pattern
}

type pattern struct {
	schema, table glob
}

// glob matches one part of a name.
type glob struct {
	text    string
	literal bool // the name itself: quoted, or without * and ?
}

// Parse reads patterns. All
// mistakes are reported in one error that wraps [lockstep.ErrInvalid].
func Parse(list []string) (Patterns, error) {
	var p Patterns
	var wrong []string
	for _, text := range list {
		rest, excluded := strings.CutPrefix(strings.TrimSpace(text), "-")
		one, err := parsePattern(rest)
		if err == nil && !excluded {
			err = one.check()
		}
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("pattern %q: %v", text, err))
		case excluded:
			p.exclude = append(p.exclude, one)
		default:
			p.include = append(p.include, one)
		}
	}
	if len(wrong) > 0 {
		return Patterns{}, fmt.Errorf("%w: %s", lockstep.ErrInvalid, strings.Join(wrong, "; "))
	}
	return p, nil
}

// Match reports whether a table is captured. Names are as in the catalog, without
// quotes. It takes no lock and looks at nothing but the names.
func (p Patterns) Match(schema, table string) bool {
	if neverCaptured(schema) || p.Excludes(schema, table) {
		return false
	}
	return len(p.include) == 0 || matchAny(p.include, schema, table)
}

// Names reports whether a pattern names this relation itself, without wildcards.
func (p Patterns) Names(schema, table string) bool {
	if !p.Match(schema, table) {
		return false
	}
	for _, one := range p.include {
		if one.schema.literal && one.table.literal && one.schema.text == schema && one.table.text == table {
			return true
		}
	}
	return false
}

// Excludes reports whether an exclusion matches the table.
func (p Patterns) Excludes(schema, table string) bool { return matchAny(p.exclude, schema, table) }

func neverCaptured(schema string) bool {
	return schema == Own || schema == "information_schema" || strings.HasPrefix(schema, "pg_")
}

func matchAny(list []pattern, schema, table string) bool {
	for _, one := range list {
		if one.schema.match(schema) && one.table.match(table) {
			return true
		}
	}
	return false
}

// check refuses what can never match, so that it is not waited for in vain.
func (p pattern) check() error {
	if p.schema.literal && neverCaptured(p.schema.text) {
		return fmt.Errorf("schema %s is never captured; remove the pattern", p.schema.text)
	}
	return nil
}

func parsePattern(text string) (pattern, error) {
	if text == "" {
		return pattern{}, fmt.Errorf("is empty; write schema.table, for example public.orders or public.*")
	}
	schema, rest, err := cutPart(text)
	if err != nil {
		return pattern{}, err
	}
	if rest == "" {
		return pattern{}, fmt.Errorf("has no schema; write public.%s", text)
	}
	table, rest, err := cutPart(rest[1:])
	if err != nil {
		return pattern{}, err
	}
	if rest != "" {
		return pattern{}, fmt.Errorf(`has more than two parts; write schema.table and put a name that holds a dot in double quotes, for example public."a.b"`)
	}
	return pattern{schema: schema, table: table}, nil
}

// cutPart reads one part and returns what follows it: nothing, or a dot and more.
func cutPart(text string) (part glob, rest string, err error) {
	if strings.HasPrefix(text, `"`) {
		return cutQuoted(text)
	}
	name := text
	if dot := strings.IndexByte(text, '.'); dot >= 0 {
		name, rest = text[:dot], text[dot:]
	}
	if name == "" {
		return glob{}, "", fmt.Errorf("has an empty part; write schema.table")
	}
	if strings.ContainsRune(name, '"') {
		return glob{}, "", fmt.Errorf(`has a quote in the middle of a part; put the whole name in double quotes and write "" for a quote`)
	}
	return glob{text: name, literal: !strings.ContainsAny(name, "*?")}, rest, nil
}

func cutQuoted(text string) (part glob, rest string, err error) {
	var name strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			name.WriteByte(text[i])
			continue
		}
		if strings.HasPrefix(text[i:], `""`) {
			name.WriteByte('"')
			i++
			continue
		}
		rest = text[i+1:]
		if name.Len() == 0 {
			return glob{}, "", fmt.Errorf("has an empty name in quotes; write schema.table")
		}
		if rest != "" && rest[0] != '.' {
			return glob{}, "", fmt.Errorf("has text after a closing quote; put the whole name in double quotes")
		}
		return glob{text: name.String(), literal: true}, rest, nil
	}
	return glob{}, "", fmt.Errorf("has no closing double quote")
}

// match compares by character. It goes back only to the last *, so that no pattern
// takes longer than its length times the name's.
func (g glob) match(name string) bool {
	if g.literal {
		return g.text == name
	}
	pat, star, mark := g.text, -1, 0
	p, n := 0, 0
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
