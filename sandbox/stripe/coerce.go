package stripe

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// unset is what "" means for a parameter that can be cleared.
type unset struct{}

// check types a request's parameters by the schema of its operation. Metadata stays
// text, whatever it looks like.
func (s *spec) check(o operation, method string, given doc) (doc, *Error) {
	allowed := o.Query
	var required []string
	if method != "GET" {
		allowed = map[string]*schema{}
		if o.Body != nil {
			allowed, required = o.Body.Properties, o.Body.Required
		}
	}
	for name, x := range allowed {
		if x.Must {
			required = append(required, name)
		}
	}
	return s.coerceObject("", allowed, required, given)
}

func (s *spec) coerceObject(path string, allowed map[string]*schema, required []string, given doc) (doc, *Error) {
	typed := doc{}
	for name, value := range given {
		at := inside(path, name)
		x, ok := allowed[name]
		if !ok {
			return nil, invalid(at, "parameter_unknown", "Received unknown parameter: "+at)
		}
		v, err := s.coerce(at, x, value)
		if err != nil {
			return nil, err
		}
		typed[name] = v
	}
	slices.Sort(required)
	for _, name := range required {
		if _, ok := typed[name]; !ok {
			at := inside(path, name)
			return nil, invalid(at, "parameter_missing", "Missing required param: "+at+".")
		}
	}
	return typed, nil
}

func inside(path, name string) string {
	if path == "" {
		return name
	}
	return path + "[" + name + "]"
}

func (s *spec) coerce(at string, x *schema, value any) (any, *Error) {
	x = s.resolve(x)
	if len(x.AnyOf) > 0 {
		return s.coerceAny(at, x.AnyOf, value)
	}
	switch value := value.(type) {
	case doc:
		return s.coerceMap(at, x, value)
	case []any:
		if x.Type != "array" {
			return nil, invalid(at, "", "Invalid "+typeName(x)+": a list was given")
		}
		list := make([]any, 0, len(value))
		for i, element := range value {
			v, err := s.coerce(inside(at, strconv.Itoa(i)), x.Items, element)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	text, _ := value.(string)
	return coerceText(at, x, text)
}

func (s *spec) coerceMap(at string, x *schema, value doc) (any, *Error) {
	if x.Type != "object" {
		return nil, invalid(at, "", "Invalid "+typeName(x)+": an object was given")
	}
	if x.Properties != nil {
		return s.coerceObject(at, x.Properties, slices.Clone(x.Required), value)
	}
	below := &schema{Type: "string"}
	if len(x.Additional) > 0 && x.Additional[0] == '{' {
		_ = json.Unmarshal(x.Additional, below)
	}
	typed := doc{}
	for name, element := range value {
		v, err := s.coerce(inside(at, name), below, element)
		if err != nil {
			return nil, err
		}
		typed[name] = v
	}
	return typed, nil
}

// coerceAny takes the first option that fits; strings last, since anything is one.
func (s *spec) coerceAny(at string, options []*schema, value any) (any, *Error) {
	if value == "" && slices.ContainsFunc(options, func(x *schema) bool { return slices.Contains(x.Enum, any("")) }) {
		return unset{}, nil
	}
	var first *Error
	for _, strings := range []bool{false, true} {
		for _, x := range options {
			if x = s.resolve(x); (x.Type == "string" && len(x.Enum) == 0) != strings {
				continue
			}
			v, err := s.coerce(at, x, value)
			if err == nil {
				return v, nil
			}
			// The option of the value's own form has the better message.
			if _, isMap := value.(doc); first == nil || isMap && x.Type == "object" {
				first = err
			}
		}
	}
	return nil, first
}

func coerceText(at string, x *schema, text string) (any, *Error) {
	switch x.Type {
	case "integer":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, invalid(at, "parameter_invalid_integer", "Invalid integer: "+text)
		}
		return n, nil
	case "number":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, invalid(at, "", "Invalid decimal: "+text)
		}
		return whole(f), nil
	case "boolean":
		if text != "true" && text != "false" {
			return nil, invalid(at, "", "Invalid boolean: "+text)
		}
		return text == "true", nil
	case "object":
		return nil, invalid(at, "", "Invalid object: "+text)
	case "array":
		if text == "" {
			return []any{}, nil
		}
		return nil, invalid(at, "", "Invalid array")
	}
	if len(x.Enum) > 0 && !slices.Contains(x.Enum, any(text)) {
		return nil, invalid(at, "", fmt.Sprintf("Invalid %s: must be one of %s", at, oneOf(x.Enum)))
	}
	if n := utf8.RuneCountInString(text); x.MaxLength > 0 && n > x.MaxLength {
		return nil, invalid(at, "parameter_too_long", fmt.Sprintf("Invalid string: %s…; must be at most %d characters", string([]rune(text)[:12]), x.MaxLength))
	}
	return text, nil
}

// whole keeps whole numbers whole, as Stripe writes them.
func whole(f float64) any {
	if n := int64(f); float64(n) == f {
		return n
	}
	return f
}

func typeName(x *schema) string {
	if x.Type == "" {
		return "value"
	}
	return x.Type
}

func oneOf(values []any) string {
	names := make([]string, 0, len(values))
	for _, v := range values {
		if v != "" {
			names = append(names, fmt.Sprint(v))
		}
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + ", or " + names[len(names)-1]
}
