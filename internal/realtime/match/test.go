package match

import (
	"fmt"
	"regexp"
	"strings"
)

// Test is a condition bound to the type of its column. It is immutable and safe for
// concurrent use.
type Test struct {
	column  string
	kind    kind
	negated bool
	check   func(v value) truth // of a value that is not NULL
	null    truth               // of NULL
	keys    []string            // see Keys
}

// truth is SQL's: false, true, or neither.
type truth int8

const (
	no truth = iota
	yes
	unknown
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// Compile binds the condition to the type of its column, by the type's name in
// pg_type (for a domain that of its base type). An empty name means that the type is
// not known: numbers are then compared as numbers, anything else as text.
func (c Condition) Compile(typname string) (*Test, error) {
	t := &Test{column: c.Column, kind: kindOf(typname), negated: c.Negated, null: unknown}
	var err error
	switch c.Operator {
	case "is":
		err = t.compileIs(c.Value.Text)
	case "in":
		err = t.compileIn(c.List)
	case "isdistinct":
		err = t.compileDistinct(c.Value)
	case "like", "ilike", "match", "imatch":
		err = t.compilePattern(c.Operator, c.Value.Text)
	default:
		err = t.compileComparison(c.Operator, c.Value.Text)
	}
	if err != nil {
		return nil, fmt.Errorf("operator %s is not possible on column %s of type %s: %w", c.Operator, c.Column, t.kind.name, err)
	}
	return t, nil
}

// Match decides for a row. Neither true nor false is no match.
func (t *Test) Match(row *Row) bool {
	json, ok := row.Find(t.column)
	if !ok {
		return false
	}
	return t.matchValue(json)
}

func (t *Test) matchValue(json []byte) bool {
	text, null := textOf(json)
	result := t.null
	if !null {
		if t.check == nil {
			result = no // is.null: the value does not matter
		} else {
			v, err := t.kind.read(text, json)
			if err != nil {
				return false
			}
			result = t.check(v)
		}
	}
	if t.negated {
		return result == no
	}
	return result == yes
}

// Column returns the column that is tested.
func (t *Test) Column() string { return t.column }

// Keys returns the keys of which a row's value must have one for the condition to
// hold, and whether that is so: the condition is an equality. A row's key comes from
// [Test.AppendKey].
func (t *Test) Keys() ([]string, bool) {
	return t.keys, !t.negated && len(t.keys) > 0
}

// AppendKey appends the key of a column's value in a row, given as JSON; false when it
// has none, and no equality holds. Tests of the same column and type make the same key.
func (t *Test) AppendKey(dst, json []byte) ([]byte, bool) {
	text, null := textOf(json)
	if null {
		return dst, false
	}
	if t.kind.plain {
		return append(dst, text...), true
	}
	v, err := t.kind.read(text, json)
	if err != nil {
		return dst, false
	}
	return t.kind.key(dst, v), true
}

func (t *Test) compileIs(word string) error {
	word = strings.ToLower(word)
	switch word {
	case "null":
		t.null = yes
		return nil
	case "true", "false", "unknown":
	default:
		return fmt.Errorf("%q is not one of null, true, false and unknown", word)
	}
	if t.kind.name != "bool" && t.kind.name != "unknown" {
		return fmt.Errorf("is.%s needs a column of type bool", word)
	}
	t.null = truthOf(word == "unknown")
	t.check = func(v value) truth {
		on := v.number == 1
		if t.kind.name == "unknown" {
			on = v.text == "true"
		}
		return truthOf(on && word == "true" || !on && word == "false")
	}
	return nil
}

// equality returns whether values are equal to one of the texts.
func (t *Test) equality(texts ...string) (func(value) bool, error) {
	if t.kind.parse == nil {
		return nil, fmt.Errorf("values of type %s are not compared; is.null is possible", t.kind.name)
	}
	var values []value
	for _, text := range texts {
		v, err := t.kind.parse(text)
		if err != nil {
			return nil, fmt.Errorf("%q is %w", text, err)
		}
		values = append(values, v)
		if t.kind.key != nil {
			t.keys = append(t.keys, string(t.kind.key(nil, v)))
		}
	}
	equal := func(a, b value) bool { return a.text == b.text }
	if t.kind.order != nil {
		equal = func(a, b value) bool { return t.kind.order(a, b) == 0 }
	}
	return func(v value) bool {
		for i := range values {
			if equal(v, values[i]) {
				return true
			}
		}
		return false
	}, nil
}

func (t *Test) compileIn(list []Element) error {
	var texts []string
	null := false
	for _, e := range list {
		if e.Null {
			null = true
			continue
		}
		texts = append(texts, e.Text)
	}
	equal, err := t.equality(texts...)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		t.null = no // = ANY of nothing is false, even of NULL
	}
	t.check = func(v value) truth {
		switch {
		case equal(v):
			return yes
		case null:
			return unknown
		}
		return no
	}
	return nil
}

func (t *Test) compileDistinct(e Element) error {
	if e.Null {
		t.null = no
		t.check = func(value) truth { return yes }
		if t.kind.read == nil {
			t.kind.read = func(_, _ []byte) (value, error) { return value{}, nil }
		}
		return nil
	}
	equal, err := t.equality(e.Text)
	if err != nil {
		return err
	}
	t.keys = nil
	t.null = yes
	t.check = func(v value) truth { return truthOf(!equal(v)) }
	return nil
}

func (t *Test) compileComparison(operator, text string) error {
	if operator == "eq" || operator == "neq" {
		equal, err := t.equality(text)
		if err != nil {
			return err
		}
		if operator == "neq" {
			t.keys = nil
		}
		t.check = func(v value) truth { return truthOf(equal(v) == (operator == "eq")) }
		return nil
	}
	if t.kind.order == nil {
		return fmt.Errorf("values of type %s are not ordered here", t.kind.name)
	}
	limit, err := t.kind.parse(text)
	if err != nil {
		return fmt.Errorf("%q is %w", text, err)
	}
	order := t.kind.order
	t.check = map[string]func(value) truth{
		"lt":  func(v value) truth { return truthOf(order(v, limit) < 0) },
		"lte": func(v value) truth { return truthOf(order(v, limit) <= 0) },
		"gt":  func(v value) truth { return truthOf(order(v, limit) > 0) },
		"gte": func(v value) truth { return truthOf(order(v, limit) >= 0) },
	}[operator]
	if t.check == nil {
		return fmt.Errorf("there is no operator %q", operator)
	}
	return nil
}

func (t *Test) compilePattern(operator, pattern string) error {
	if !t.kind.text {
		return fmt.Errorf("it needs a column of text")
	}
	// The text as it is: like and ~ of char(n) see its spaces, citext folds by itself.
	fold := operator == "ilike" || operator == "imatch" || t.kind.name == "citext"
	t.kind.read = func(text, _ []byte) (value, error) { return value{text: string(text)}, nil }
	var holds func(string) bool
	switch operator {
	case "like", "ilike":
		l, err := parseLike(pattern, fold)
		if err != nil {
			return err
		}
		holds = l.matches
	default:
		source, err := translate(pattern, fold)
		if err != nil {
			return fmt.Errorf("invalid regular expression %q: %w", pattern, err)
		}
		re, err := regexp.Compile(source)
		if err != nil {
			return fmt.Errorf("invalid regular expression %q", pattern)
		}
		holds = re.MatchString
	}
	t.check = func(v value) truth { return truthOf(holds(v.text)) }
	return nil
}
