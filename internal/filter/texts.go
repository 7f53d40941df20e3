package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

func textFunctions() map[string]function {
	return map[string]function{
		"string":     {1, 1, resultString, func(r *run, a []any) (any, error) { return toString(r, a[0]) }},
		"toJSON":     {1, 1, resultString, func(r *run, a []any) (any, error) { return toJSON(r, a[0]) }},
		"fromJSON":   {1, 1, resultAny, func(r *run, a []any) (any, error) { return fromJSON(r, a[0]) }},
		"type":       {1, 1, resultString, func(_ *run, a []any) (any, error) { return typeName(a[0]), nil }},
		"upper":      onText(1, 1, func(s []string) any { return strings.ToUpper(s[0]) }),
		"lower":      onText(1, 1, func(s []string) any { return strings.ToLower(s[0]) }),
		"trim":       onText(1, 2, trim),
		"trimPrefix": onText(2, 2, func(s []string) any { return strings.TrimPrefix(s[0], s[1]) }),
		"trimSuffix": onText(2, 2, func(s []string) any { return strings.TrimSuffix(s[0], s[1]) }),
		"hasPrefix":  onText(2, 2, func(s []string) any { return strings.HasPrefix(s[0], s[1]) }),
		"hasSuffix":  onText(2, 2, func(s []string) any { return strings.HasSuffix(s[0], s[1]) }),
		"indexOf":    onText(2, 2, indexOf),
		"split":      {2, 2, resultArray, func(r *run, a []any) (any, error) { return split(r, a) }},
		"replace":    {3, 3, resultString, func(r *run, a []any) (any, error) { return replace(r, a) }},
	}
}

// onText makes a function of strings that is nil when its first argument is.
func onText(least, most int, do func(s []string) any) function {
	return function{least, most, resultAny, func(r *run, a []any) (any, error) {
		s, err := texts(r, a)
		if s == nil || err != nil {
			return nil, err
		}
		return do(s), nil
	}}
}

// texts returns the arguments as strings; nothing when the first one is nil.
func texts(r *run, args []any) ([]string, error) {
	if args[0] == nil {
		return nil, nil
	}
	s := make([]string, len(args))
	for i, v := range args {
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("a string is needed here, not %s", typeName(v))
		}
		if err := r.spend(len(text)); err != nil {
			return nil, err
		}
		s[i] = text
	}
	return s, nil
}

func trim(s []string) any {
	if len(s) == 1 {
		return strings.TrimSpace(s[0])
	}
	return strings.Trim(s[0], s[1])
}

// indexOf counts characters, as slices do; nil when the part is not there.
func indexOf(s []string) any {
	i := strings.Index(s[0], s[1])
	if i < 0 {
		return nil
	}
	return utf8.RuneCountInString(s[0][:i])
}

func split(r *run, args []any) (any, error) {
	s, err := texts(r, args)
	if s == nil || err != nil {
		return []any{}, err
	}
	parts := strings.Split(s[0], s[1])
	items := make([]any, len(parts))
	for i, part := range parts {
		items[i] = part
	}
	return items, r.spend(opWork * len(items))
}

func replace(r *run, args []any) (any, error) {
	s, err := texts(r, args)
	if s == nil || err != nil {
		return nil, err
	}
	// Counted first: the result may be far longer than what went in.
	n := strings.Count(s[0], s[1])
	if err := r.spend(len(s[0]) + n*len(s[2])); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(s[0], s[1], s[2]), nil
}

// toString returns the text of a value; objects and arrays become JSON.
func toString(r *run, v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return v, nil
	case json.Number:
		return string(v), nil
	}
	return toJSON(r, v)
}

func toJSON(r *run, v any) (any, error) {
	w := encoder{limit: r.left}
	if err := w.value(v, maxDepth); err != nil {
		return nil, err
	}
	return string(w.buf), r.spend(2 * len(w.buf))
}

func fromJSON(r *run, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	s, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("a string is needed here, not %s", typeName(v))
	}
	if err := r.spend(4 * len(s)); err != nil {
		return nil, err
	}
	if !json.Valid([]byte(s)) {
		return nil, errors.New("the string is not JSON")
	}
	return decode(bytes.TrimSpace([]byte(s))), nil
}
