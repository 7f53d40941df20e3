package config

import (
	"fmt"
	"strings"
)

// interpolate replaces ${NAME} and ${NAME:-default} in text and turns $${ into ${.
// The default is taken when the variable is not set or empty; unset says what is taken of
// one that is not set and has none, nil: that is an error.
func interpolate(text string, lookup func(string) (string, bool), unset func(string) string) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	var out strings.Builder
	for {
		at := strings.Index(text, "${")
		if at < 0 {
			out.WriteString(text)
			return out.String(), nil
		}
		if at > 0 && text[at-1] == '$' {
			out.WriteString(text[:at-1] + "${")
			text = text[at+2:]
			continue
		}
		out.WriteString(text[:at])
		inner, rest, closed := strings.Cut(text[at+2:], "}")
		if !closed {
			return "", fmt.Errorf("${ without its }")
		}
		v, err := variable(inner, lookup, unset)
		if err != nil {
			return "", err
		}
		out.WriteString(v)
		text = rest
	}
}

func variable(inner string, lookup func(string) (string, bool), unset func(string) string) (string, error) {
	name, fallback, hasFallback := strings.Cut(inner, ":-")
	if !isVariable(name) {
		return "", fmt.Errorf("%q is not the name of a variable", name)
	}
	v, found := lookup(name)
	if hasFallback && v == "" {
		return fallback, nil
	}
	if !found && unset != nil {
		return unset(name), nil
	}
	if !found {
		return "", fmt.Errorf("the variable %s is not set", name)
	}
	return v, nil
}

func isVariable(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
