package rest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

const kindScalar = yaml.ScalarNode

// Match is what the values at some paths must be, all of them. A value is matched by
// a text in which * stands for anything, or by a list of such texts; ! before it
// turns the meaning round, and "" matches what is absent or null.
type Match map[string]Words

// Words are alternatives.
type Words []string

// read implements reads.
func (w *Words) read(r *reader, v value) {
	if v.node.Kind == yaml.SequenceNode {
		for _, n := range v.node.Content {
			if text, ok := r.text(value{node: n, path: v.path}, "a word"); ok {
				*w = append(*w, text)
			}
		}
		return
	}
	if text, ok := r.text(v, "a word or a list of words"); ok {
		*w = Words{text}
	}
}

func (w Words) match(text string) bool {
	return slices.ContainsFunc(w, func(word string) bool {
		if not, ok := strings.CutPrefix(word, "!"); ok {
			return !glob(not, text)
		}
		return glob(word, text)
	})
}

// of reports whether data has all that is asked for. An empty match has nothing.
func (m Match) of(data json.RawMessage) bool {
	for path, words := range m {
		if !words.match(parsePath(path).text(data)) {
			return false
		}
	}
	return len(m) > 0
}

// glob matches a text with a pattern in which * stands for anything, but for nothing
// at all when it is the whole pattern.
func glob(pattern, text string) bool {
	if pattern == "*" {
		return text != ""
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	last := parts[len(parts)-1]
	if !strings.HasPrefix(text, parts[0]) || !strings.HasSuffix(text, last) || len(text) < len(parts[0])+len(last) {
		return false
	}
	text = text[len(parts[0]) : len(text)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return true
}

// parseTime reads an API's time. It returns the zero time and an error for what is
// none; empty text is the zero time.
func parseTime(text, form string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	switch form {
	case "unix", "unix_ms":
		var part int64
		var digits int
		number, fraction, _ := strings.Cut(text, ".")
		whole, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("%q is not a number of seconds", text)
		}
		for digits = range 9 {
			part *= 10
			if digits < len(fraction) && fraction[digits] >= '0' && fraction[digits] <= '9' {
				part += int64(fraction[digits] - '0')
			}
		}
		if form == "unix_ms" {
			return time.UnixMilli(whole).UTC(), nil
		}
		return time.Unix(whole, part).UTC(), nil
	case "date":
		return time.Parse(time.DateOnly, text)
	}
	return time.Parse(time.RFC3339Nano, text)
}
