package kinds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hidden is what stands in the place of a secret.
const hidden = "[hidden]"

// The types of members of settings. A value that came out of a variable may be a text
// where a number is meant.

// span is a length of time: "15s", or a number of milliseconds.
type span time.Duration

// UnmarshalJSON implements [json.Unmarshaler].
func (s *span) UnmarshalJSON(data []byte) error {
	text := plain(data)
	if ms, err := strconv.ParseUint(text, 10, 40); err == nil {
		*s = span(time.Duration(ms) * time.Millisecond)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("expected a duration such as 15s")
	}
	*s = span(d)
	return nil
}

func (s span) duration() time.Duration { return time.Duration(s) }

// count is a whole number.
type count int

// UnmarshalJSON implements [json.Unmarshaler].
func (c *count) UnmarshalJSON(data []byte) error {
	n, err := strconv.Atoi(plain(data))
	if err != nil || n < 0 {
		return errors.New("expected a whole number")
	}
	*c = count(n)
	return nil
}

// truth is true or false.
type truth bool

// UnmarshalJSON implements [json.Unmarshaler].
func (b *truth) UnmarshalJSON(data []byte) error {
	v, err := strconv.ParseBool(plain(data))
	if err != nil {
		return errors.New("expected true or false")
	}
	*b = truth(v)
	return nil
}

// text is a string; a number is taken as it is written.
type text string

// UnmarshalJSON implements [json.Unmarshaler].
func (t *text) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && (data[0] == '{' || data[0] == '[') {
		return errors.New("expected text")
	}
	*t = text(plain(data))
	return nil
}

// plain is the text of a JSON scalar.
func plain(data []byte) string {
	var s string
	if json.Unmarshal(data, &s) == nil {
		return s
	}
	return string(bytes.TrimSpace(data))
}

// object returns the members of a JSON object; none for nothing.
func object(raw json.RawMessage) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(raw)) == 0 || string(bytes.TrimSpace(raw)) == "null" {
		return members, nil
	}
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, errors.New("expected keys and values")
	}
	return members, nil
}

// fields are the members that settings may have, by name.
func fields(settings any) map[string]reflect.StructField {
	found := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(settings).Elem()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			found[name] = f
		}
	}
	return found
}

// decode reads settings into a struct and tells all that is wrong.
func decode(raw json.RawMessage, into any) []Problem {
	members, err := object(raw)
	if err != nil {
		return []Problem{{Message: err.Error()}}
	}
	known := fields(into)
	var problems []Problem
	for _, name := range sorted(members) {
		f, ok := known[name]
		if !ok {
			problems = append(problems, Problem{Field: name, Message: "unknown key", Remedy: "use " + strings.Join(sorted(known), ", ")})
			continue
		}
		if string(members[name]) == "null" {
			continue
		}
		if err := json.Unmarshal(members[name], reflect.ValueOf(into).Elem().FieldByIndex(f.Index).Addr().Interface()); err != nil {
			problems = append(problems, Problem{Field: name, Message: describe(err)})
		}
	}
	return problems
}

// describe words an error of JSON without the value, which may be a secret.
func describe(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return "expected " + wordFor(wrong.Type.Kind())
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "not JSON"
	}
	return err.Error()
}

func wordFor(k reflect.Kind) string {
	switch k {
	case reflect.Map, reflect.Struct:
		return "keys and values"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "text"
	default:
		return "another kind of value"
	}
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// hide returns settings with what is secret replaced. What the struct does not know
// might be: it is left out.
func hide(raw json.RawMessage, settings any) json.RawMessage {
	members, err := object(raw)
	if err != nil {
		return nil
	}
	known := fields(settings)
	shown := map[string]json.RawMessage{}
	for name, value := range members {
		f, ok := known[name]
		if !ok {
			continue
		}
		switch f.Tag.Get("secret") {
		case "":
			shown[name] = value
		case "url":
			shown[name], _ = json.Marshal(shownURL(plain(value)))
		default:
			shown[name] = hideValue(value)
		}
	}
	out, _ := json.Marshal(shown)
	return out
}

// hideValue replaces every text in a value, but keeps its form.
func hideValue(value json.RawMessage) json.RawMessage {
	var v any
	if json.Unmarshal(value, &v) != nil {
		v = ""
	}
	out, _ := json.Marshal(hideAny(v))
	return out
}

func hideAny(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = hideAny(v[i])
		}
		return v
	case map[string]any:
		for k := range v {
			if k != "until" {
				v[k] = hideAny(v[k])
			}
		}
		return v
	case nil:
		return nil
	}
	return hidden
}

// shownURL keeps where a URL leads: its path, its query and its user are often a secret,
// and that there is one of them is all that is told.
func shownURL(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return hidden
	}
	shown := u.Scheme + "://" + u.Host
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		shown += "/…"
	}
	return shown
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// problemsOf makes problems of what a constructor says: it may join several errors.
func problemsOf(err error) []Problem {
	if field, ok := errors.AsType[*fieldError](err); ok {
		return []Problem{{Field: field.field, Message: field.err.Error()}}
	}
	return []Problem{{Message: err.Error()}}
}

// fieldError is an error about one member.
type fieldError struct {
	field string
	err   error
}

// Error implements error.
func (e *fieldError) Error() string { return fmt.Sprintf("%s: %v", e.field, e.err) }

// Unwrap returns the cause.
func (e *fieldError) Unwrap() error { return e.err }
