package match

import (
	"errors"
	"fmt"
	"strings"
)

// The limits of a filter.
const (
	maxConditions = 100
	maxElements   = 100 // of in
	maxLength     = 64 << 10
)

// Element is a value of a list.
type Element struct {
	Text string
	Null bool // an unquoted null
}

// Condition is one condition of a filter, not yet bound to the column's type.
type Condition struct {
	Column   string
	Operator string // eq, neq, lt, lte, gt, gte, in, like, ilike, is, match, imatch or isdistinct
	Negated  bool
	Value    Element
	List     []Element // of in
}

// Parse reads a filter. Its conditions all have to hold; none match everything. An
// error's text is what the protocol tells behind "Error parsing `filter` params: ".
func Parse(filter string) ([]Condition, error) {
	filter = strings.TrimSpace(filter)
	if filter == "" {
		return nil, nil
	}
	if len(filter) > maxLength {
		return nil, fmt.Errorf("the filter has more than %d bytes", maxLength)
	}
	var conditions []Condition
	for _, part := range split(filter) {
		if len(conditions) == maxConditions {
			return nil, fmt.Errorf("more than %d conditions", maxConditions)
		}
		c, err := parseCondition(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		conditions = append(conditions, c)
	}
	return conditions, nil
}

// split cuts a filter at its commas, but not within quotes or parentheses. A quote
// opens only where a value may begin.
func split(filter string) []string {
	var parts []string
	depth, start, quoted := 0, 0, false
	before := byte(0)
	for i := 0; i < len(filter); i++ {
		c := filter[i]
		switch {
		case quoted && c == '\\':
			i++
		case quoted:
			quoted = c != '"'
		case c == '"':
			quoted = before == '.' || before == '(' || before == ',' && depth > 0
		case c == '(':
			depth++
		case c == ')':
			depth = max(0, depth-1)
		case c == ',' && depth == 0:
			parts = append(parts, filter[start:i])
			start = i + 1
		}
		before = c
	}
	return append(parts, filter[start:])
}

func parseCondition(text string) (Condition, error) {
	if text == "" {
		return Condition{}, errors.New("filter must not contain empty segments (check for extra commas)")
	}
	column, rest, ok := strings.Cut(text, "=")
	if !ok {
		return Condition{}, fmt.Errorf("[%q]", text)
	}
	c := Condition{Column: strings.TrimSpace(column)}
	rest, c.Negated = strings.CutPrefix(rest, "not.")
	operator, value, ok := strings.Cut(rest, ".")
	if !ok {
		return Condition{}, fmt.Errorf("[%q]", rest)
	}
	if !known(operator) {
		return Condition{}, fmt.Errorf("[%q, %q]", operator, value)
	}
	if c.Column == "" {
		return Condition{}, fmt.Errorf("[%q]: there is no column before the =", text)
	}
	c.Operator = operator
	if operator != "in" {
		c.Value = unquote(value)
		return c, nil
	}
	var err error
	c.List, err = parseList(value)
	return c, err
}

func known(operator string) bool {
	switch operator {
	case "eq", "neq", "lt", "lte", "gt", "gte", "in", "like", "ilike", "is", "match", "imatch", "isdistinct":
		return true
	}
	return false
}

// unquote takes the quotes off a value. A value that is not quoted as a whole is
// taken as it stands.
func unquote(value string) Element {
	if len(value) < 2 || value[0] != '"' {
		return Element{Text: value, Null: value == "null"}
	}
	text, rest, ok := cutQuoted(value)
	if !ok || rest != "" {
		return Element{Text: value}
	}
	return Element{Text: text}
}

// cutQuoted takes a quoted text off the front of s.
func cutQuoted(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			i++
			if i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// parseList reads (a,"b,c",d).
func parseList(value string) ([]Element, error) {
	if len(value) < 2 || value[0] != '(' || value[len(value)-1] != ')' {
		return nil, errors.New("`in` filter value must be wrapped by parentheses")
	}
	rest := strings.TrimSpace(value[1 : len(value)-1])
	if rest == "" {
		return nil, nil
	}
	var list []Element
	for {
		if len(list) == maxElements {
			return nil, fmt.Errorf("too many values for `in` filter. Maximum %d", maxElements)
		}
		e, after, err := cutElement(rest)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		if after == "" {
			return list, nil
		}
		rest = strings.TrimLeft(after[1:], " \t")
	}
}

// cutElement takes one value off a list; what is left begins with a comma.
func cutElement(s string) (e Element, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		text, after, ok := cutQuoted(s)
		after = strings.TrimLeft(after, " \t")
		if !ok || after != "" && after[0] != ',' {
			return Element{}, "", fmt.Errorf("the quotes of `in` filter value %q are not closed", s)
		}
		return Element{Text: text}, after, nil
	}
	var b strings.Builder
	i := 0
	for ; i < len(s) && s[i] != ','; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	text := strings.TrimSpace(b.String())
	if text == "" {
		return Element{}, "", errors.New("`in` filter has an empty value: write \"\" for an empty text")
	}
	return Element{Text: text, Null: strings.EqualFold(text, "null")}, s[i:], nil
}
