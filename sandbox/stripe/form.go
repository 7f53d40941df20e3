package stripe

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// decodeForm reads application/x-www-form-urlencoded with brackets into nested
// doc and []any of strings: a[b]=1, a[]=1, a[0]=1, a[][b]=1, a[0][b]=1. Order counts
// for a[]. Brackets may be escaped or not.
func decodeForm(text string) (doc, *Error) {
	root := doc{}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(name)
		if err != nil {
			return nil, invalid("", "", "Invalid request: the body could not be decoded.")
		}
		text, err := url.QueryUnescape(value)
		if err != nil {
			return nil, invalid(key, "", "Invalid request: the value of "+key+" could not be decoded.")
		}
		if err := put(root, segments(key), text); err != nil {
			return nil, err
		}
	}
	return lists(root).(doc), nil
}

// segments splits a[b][] into a, b and "".
func segments(key string) []string {
	head, rest, found := strings.Cut(key, "[")
	if !found || head == "" {
		return []string{key}
	}
	return append([]string{head}, strings.Split(strings.TrimSuffix(rest, "]"), "][")...)
}

// deepest is how many brackets Stripe takes at most.
const deepest = 12

func put(at doc, path []string, value string) *Error {
	if len(path) > deepest {
		return invalid(path[0], "", "Invalid request: too many levels of parameters.")
	}
	name := path[0]
	if name == "" {
		name = next(at, path)
	}
	if len(path) == 1 {
		at[name] = value
		return nil
	}
	below, ok := at[name].(doc)
	if !ok {
		below = doc{}
		at[name] = below
	}
	return put(below, path[1:], value)
}

// next names the element of a list that a[]… means: the last one, or a new one when
// that has the key already.
func next(at doc, path []string) string {
	n := len(at)
	if n == 0 || len(path) == 1 {
		return strconv.Itoa(n)
	}
	last, ok := at[strconv.Itoa(n-1)].(doc)
	if !ok || last[path[1]] != nil {
		return strconv.Itoa(n)
	}
	return strconv.Itoa(n - 1)
}

// lists turns objects whose keys are numbers into lists.
func lists(v any) any {
	d, ok := v.(doc)
	if !ok {
		return v
	}
	var order []int
	for key, below := range d {
		d[key] = lists(below)
		if n, err := strconv.Atoi(key); err == nil && n >= 0 {
			order = append(order, n)
		}
	}
	if len(d) == 0 || len(order) != len(d) {
		return d
	}
	slices.Sort(order)
	list := make([]any, 0, len(order))
	for _, n := range order {
		list = append(list, d[strconv.Itoa(n)])
	}
	return list
}
