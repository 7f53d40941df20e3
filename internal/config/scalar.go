package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"lockstep/internal/suggest"
)

// scalar returns the text of a value with its variables put in. It reports what is
// neither text nor of one of the further tags that the caller takes.
func (r *reader) scalar(v value, expected string, tags ...string) (string, bool) {
	if v.node == nil {
		return "", false
	}
	v, ok := r.resolve(v)
	if !ok {
		return "", false
	}
	if v.node.Kind != yaml.ScalarNode {
		r.wrong(v, "expected "+expected+", got "+describe(v.node), "write one value")
		return "", false
	}
	if tag := v.node.ShortTag(); tag != "!!str" && !slices.Contains(tags, tag) {
		r.wrong(v, "expected "+expected+", got "+describe(v.node), "if it is meant as text, put it in quotes")
		return "", false
	}
	text, err := interpolate(v.node.Value, r.lookup, r.options.Unset)
	if err != nil {
		r.wrong(v, err.Error(), "set it, or write ${NAME:-default}, or $${ for ${ itself")
		return "", false
	}
	return text, true
}

// bare returns the text of a value that YAML must have read as one of the tags. A
// variable has no type: where one was put in, the text may be in quotes.
func (r *reader) bare(v value, expected string, tags ...string) (string, bool) {
	text, ok := r.scalar(v, expected, tags...)
	if !ok {
		return "", false
	}
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle
	if n, _ := r.resolve(v); n.node.Style&quoted != 0 && n.node.Value == text {
		r.wrong(v, "expected "+expected+", got text", "leave the quotes out")
		return "", false
	}
	return text, true
}

// text sets dst to a text that is not empty. Absent or empty leaves dst alone.
func (r *reader) text(v value, dst *string) {
	if text, ok := r.scalar(v, "text", "!!timestamp"); ok && text != "" {
		*dst = text
	}
}

// word sets dst to one of the words allowed.
func word[T ~string](r *reader, v value, dst *T, allowed ...T) {
	text, ok := r.scalar(v, "a word", "!!bool")
	if !ok || text == "" {
		return
	}
	if !slices.Contains(allowed, T(text)) {
		known := make([]string, len(allowed))
		for i, a := range allowed {
			known[i] = string(a)
		}
		r.wrong(v, fmt.Sprintf("unknown value %q", text), suggest.Remedy(text, known))
		return
	}
	*dst = T(text)
}

// integer sets dst to a whole number from low to high.
func (r *reader) integer(v value, dst *int, low, high int) {
	text, ok := r.bare(v, "a whole number", "!!int", "!!float")
	if !ok || text == "" {
		return
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		r.wrong(v, fmt.Sprintf("%q is not a whole number from %d to %d", text, low, high), "change it")
		return
	}
	*dst = n
}

// share sets dst to a number from 0 to 1.
func (r *reader) share(v value, dst *float64) {
	text, ok := r.bare(v, "a number", "!!int", "!!float")
	if !ok || text == "" {
		return
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > 1 {
		r.wrong(v, fmt.Sprintf("%q is not a number from 0 to 1", text), "write for example 0.15")
		return
	}
	*dst = n
}

// boolean sets dst to true or false.
func (r *reader) boolean(v value, dst *bool) {
	text, ok := r.bare(v, "true or false", "!!bool")
	switch {
	case !ok || text == "":
	case strings.EqualFold(text, "true"):
		*dst = true
	case strings.EqualFold(text, "false"):
		*dst = false
	default:
		r.wrong(v, fmt.Sprintf("%q is neither true nor false", text), "write true or false")
	}
}

// duration sets dst to a duration from low to high.
func (r *reader) duration(v value, dst *time.Duration, low, high time.Duration) {
	text, ok := r.scalar(v, "a duration", "!!int", "!!float")
	if !ok || text == "" {
		return
	}
	d, err := ParseDuration(text)
	if err != nil {
		r.wrong(v, err.Error(), "write a number with its unit, such as 500ms, 30s, 10m, 168h or 7d")
		return
	}
	if d < low || d > high {
		r.wrong(v, fmt.Sprintf("%s is out of range", text), fmt.Sprintf("write a duration from %s to %s", low, high))
		return
	}
	*dst = d
}

// size sets dst to a number of bytes.
func (r *reader) size(v value, dst *int64) {
	text, ok := r.scalar(v, "a size", "!!int", "!!float")
	if !ok || text == "" {
		return
	}
	n, err := ParseSize(text)
	if err != nil {
		r.wrong(v, err.Error(), "write a number with its unit, such as 500MB, 50GB or 2TiB")
		return
	}
	*dst = n
}

// ParseDuration reads a duration as Go writes it, or a whole number of days such
// as 7d. It is never negative.
func ParseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 31)
		if err == nil && n <= 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration", text)
	}
	return d, nil
}

// ParseSize reads a number of bytes, with a decimal (KB, MB, GB, TB) or a binary
// (KiB, MiB, GiB, TiB) unit or none.
func ParseSize(text string) (int64, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := sizeUnit(text[len(number):])
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	// The number of digits is limited so that float64 is exact enough to be sure.
	if !ok || err != nil || !(n >= 0) || len(number) > 15 || n*unit >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size", text)
	}
	return int64(n * unit), nil
}

func sizeUnit(name string) (float64, bool) {
	decimal, binary := 1.0, 1.0
	for _, letter := range []string{"", "K", "M", "G", "T", "P"} {
		switch strings.ToUpper(name) {
		case letter + "B", letter:
			return decimal, true
		case letter + "IB":
			return binary, letter != ""
		}
		decimal *= 1000
		binary *= 1024
	}
	return 0, false
}
