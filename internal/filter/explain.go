package filter

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/file"
)

// compileError puts what expr says into our words, with what to write instead.
func compileError(kind Kind, err error) error {
	var at *file.Error
	if !errors.As(err, &at) {
		return &Error{Kind: kind, Message: firstLine(err.Error())}
	}
	message := plainTokens(firstLine(at.Message))
	if strings.Contains(message, "value out of range") {
		message = "the number is too large to be written as it is"
	}
	return &Error{Kind: kind, Line: at.Line, Column: at.Column + 1, Message: message, Hint: hint(message)}
}

func checkSource(kind Kind, source string) error {
	switch {
	case kind != Filter && kind != Transform:
		return &Error{Kind: kind, Message: "is no kind of expression", Hint: "use filter or transform"}
	case strings.TrimSpace(source) == "":
		return &Error{Kind: kind, Message: "is empty", Hint: "leave the key out to have none"}
	case len(source) > maxSource:
		return &Error{Kind: kind, Message: "is longer than 64 KB"}
	case strings.ToValidUTF8(source, "") != source:
		return &Error{Kind: kind, Message: "is not UTF-8"}
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// plainTokens writes Operator("=") as =, and the end as such.
func plainTokens(message string) string {
	message = regexp.MustCompile(`\b(?:Operator|Identifier|Bracket|Number|String)\("(.*?)"\)`).ReplaceAllString(message, "$1")
	return strings.ReplaceAll(message, "unexpected token EOF", "ends too early")
}

// hint returns what to write instead, for the mistakes that people who know SQL
// or JavaScript make.
func hint(message string) string {
	if name, ok := strings.CutPrefix(message, "unknown name "); ok {
		if h := keywordHint(name); h != "" {
			return h
		}
		return "a column is written record." + name + "; there are record, changes, action and metadata"
	}
	if name, ok := strings.CutPrefix(message, "there is no function "); ok {
		return functionHint(name)
	}
	if token, ok := strings.CutPrefix(message, "unexpected token "); ok {
		return keywordHint(token)
	}
	if strings.HasPrefix(message, "the number is too large") {
		return `write number("…")`
	}
	if strings.Contains(message, "unrecognized character") {
		return "text stands in quotes, names without"
	}
	return ""
}

func keywordHint(word string) string {
	switch strings.ToLower(word) {
	case "=", "===":
		return "compare by =="
	case ">", "<>", "!==":
		return "compare by !="
	case "and", "or", "not", "in":
		return "write " + strings.ToLower(word) + " in small letters"
	case "is", "null", "none", "undefined":
		return "write == nil or != nil"
	case "like", "ilike", "~":
		return "use contains, startsWith, endsWith or matches"
	case ":":
		return "an object inside map, filter and the like stands in parentheses: map(list, ({…}))"
	case "between":
		return "write a <= x and x <= b"
	case "true", "false":
		return "write " + strings.ToLower(word) + " in small letters"
	case "old", "before", "previous":
		return "old values are in changes"
	case "new", "after", "row", "data":
		return "the row is record"
	}
	return ""
}

func functionHint(name string) string {
	switch strings.ToLower(name) {
	case "now", "date", "timestamp", "duration", "timezone", "today":
		return "expressions have no clock; timestamps compare as text: record.created_at >= \"2026-01-01\""
	case "float", "decimal", "numeric":
		return "use number"
	case "tostring", "str", "text":
		return "use string"
	case "length", "lenght", "size":
		return "use len"
	case "coalesce", "ifnull", "nvl":
		return "write a ?? b"
	case "lowercase", "tolower":
		return "use lower"
	case "uppercase", "toupper":
		return "use upper"
	case "sortby", "groupby":
		return "use sort, or do it where the changes arrive"
	}
	names := slices.Collect(maps.Keys(functions()))
	names = append(names, "all", "none", "any", "one", "filter", "map", "find", "findIndex", "count", "reduce")
	slices.Sort(names)
	return "there are " + strings.Join(names, ", ")
}
