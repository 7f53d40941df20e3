package filter

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

func listFunctions() map[string]function {
	return map[string]function{
		"len":     {1, 1, resultNumber, func(r *run, a []any) (any, error) { return length(r, a[0]) }},
		"first":   {1, 1, resultAny, func(r *run, a []any) (any, error) { return access(r, a[0], 0) }},
		"last":    {1, 1, resultAny, func(r *run, a []any) (any, error) { return access(r, a[0], -1) }},
		"concat":  {1, variadic, resultArray, func(r *run, a []any) (any, error) { return concat(r, a) }},
		"reverse": {1, 1, resultArray, func(r *run, a []any) (any, error) { return reverse(r, a[0]) }},
		"sort":    {1, 1, resultArray, func(r *run, a []any) (any, error) { return sorted(r, a[0]) }},
		"uniq":    {1, 1, resultArray, func(r *run, a []any) (any, error) { return uniq(r, a[0]) }},
		"join":    {1, 2, resultString, func(r *run, a []any) (any, error) { return join(r, a) }},
	}
}

// length counts characters, elements or members; nil has none.
func length(r *run, v any) (any, error) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), r.spend(len(v))
	case object:
		members, err := membersOf(r, v)
		return len(members), err
	}
	items, err := listOf(r, v)
	return len(items), err
}

func concat(r *run, args []any) (any, error) {
	all := []any{}
	for _, v := range args {
		items, err := listOf(r, v)
		if err != nil {
			return nil, err
		}
		if err := r.spend(opWork * len(items)); err != nil {
			return nil, err
		}
		all = append(all, items...)
	}
	return all, nil
}

// copied returns the elements of v in a list that may be changed.
func copied(r *run, v any) ([]any, error) {
	items, err := listOf(r, v)
	if err != nil {
		return nil, err
	}
	return append([]any{}, items...), r.spend(opWork * len(items))
}

func reverse(r *run, v any) (any, error) {
	items, err := copied(r, v)
	slices.Reverse(items)
	return items, err
}

// sorted returns the elements in ascending order, nil last.
func sorted(r *run, v any) (any, error) {
	items, err := copied(r, v)
	if err != nil {
		return nil, err
	}
	var failed error
	slices.SortStableFunc(items, func(a, b any) int {
		switch {
		case failed != nil || a == nil && b == nil:
			return 0
		case a == nil:
			return 1
		case b == nil:
			return -1
		}
		c, err := compare(r, a, b)
		if err == nil {
			err = r.spend(0)
		}
		failed = err
		return c
	})
	return items, failed
}

// uniq returns the elements without those that equal an earlier one.
func uniq(r *run, v any) (any, error) {
	items, err := listOf(r, v)
	if err != nil {
		return nil, err
	}
	kept := []any{}
	for _, item := range items {
		known, err := contains(r, kept, item)
		if err != nil {
			return nil, err
		}
		if !known {
			kept = append(kept, item)
		}
	}
	return kept, nil
}

func join(r *run, args []any) (any, error) {
	items, err := listOf(r, args[0])
	if err != nil {
		return nil, err
	}
	separator := ""
	if len(args) == 2 {
		var ok bool
		if separator, ok = args[1].(string); !ok {
			return nil, fmt.Errorf("a string is needed here, not %s", typeName(args[1]))
		}
	}
	parts := make([]string, 0, len(items))
	for _, item := range items {
		text, err := toString(r, item)
		if err != nil {
			return nil, err
		}
		part, _ := text.(string)
		if err := r.spend(len(part) + len(separator)); err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, separator), nil
}
