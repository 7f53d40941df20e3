package match

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// decimal is an exact number: 0.digits times ten to the exponent. Digits neither
// begin nor end with a zero, so that equal numbers are equal structs.
type decimal struct {
	class    int8 // -1 -Infinity, 0 a number, 1 Infinity, 2 NaN: as Postgres orders them
	negative bool
	digits   string
	exponent int
}

// maxExponent is more than Postgres' numeric takes.
const maxExponent = 200_000

var errNumber = errors.New("not a number")

// parseDecimal reads what Postgres writes and reads as numeric. The digits may be
// part of the text.
func parseDecimal(text string) (decimal, error) {
	s := strings.TrimSpace(text)
	var d decimal
	if s != "" && (s[0] == '-' || s[0] == '+') {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	if len(s) > 0 && (s[0]|0x20) >= 'a' {
		return parseSpecial(s, d.negative, text)
	}
	mantissa := s
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		n, err := strconv.Atoi(s[i+1:])
		if err != nil || n > maxExponent || n < -maxExponent {
			return decimal{}, errNumber
		}
		mantissa, d.exponent = s[:i], n
	}
	whole, fraction, dotted := strings.Cut(mantissa, ".")
	if whole == "" && fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return decimal{}, errNumber
	}
	digits := whole
	if dotted {
		digits = whole + fraction
	}
	d.exponent += len(whole)
	trimmed := strings.TrimLeft(digits, "0")
	d.exponent -= len(digits) - len(trimmed)
	d.digits = strings.TrimRight(trimmed, "0")
	if d.digits == "" {
		return decimal{}, nil // zero has neither a sign nor an exponent
	}
	return d, nil
}

func parseSpecial(s string, negative bool, text string) (decimal, error) {
	switch strings.ToLower(s) {
	case "nan":
		if trimmed := strings.TrimSpace(text); len(trimmed) == 3 {
			return decimal{class: 2}, nil
		}
	case "infinity", "inf":
		if negative {
			return decimal{class: -1}, nil
		}
		return decimal{class: 1}, nil
	}
	return decimal{}, errNumber
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func (d decimal) compare(e decimal) int {
	switch {
	case d.class != 0 || e.class != 0:
		return cmp.Compare(d.class, e.class)
	case d.sign() != e.sign():
		return cmp.Compare(d.sign(), e.sign())
	case d.negative:
		return e.magnitude(d)
	}
	return d.magnitude(e)
}

func (d decimal) sign() int {
	switch {
	case d.digits == "":
		return 0
	case d.negative:
		return -1
	}
	return 1
}

func (d decimal) magnitude(e decimal) int {
	if d.exponent != e.exponent {
		return cmp.Compare(d.exponent, e.exponent)
	}
	return strings.Compare(d.digits, e.digits)
}

// appendKey appends a text that is the same for equal numbers only.
func (d decimal) appendKey(dst []byte) []byte {
	if d.class != 0 {
		return strconv.AppendInt(append(dst, '!'), int64(d.class), 10)
	}
	if d.negative {
		dst = append(dst, '-')
	}
	dst = append(dst, d.digits...)
	dst = append(dst, 'e')
	return strconv.AppendInt(dst, int64(d.exponent), 10)
}

// parseInt reads an integer as Postgres does, of so many bits.
func parseInt(text string, bits int) (int64, error) {
	s := strings.TrimSpace(text)
	n, err := strconv.ParseInt(strings.TrimPrefix(s, "+"), 10, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("out of range for int%d", bits/8)
	case err != nil || strings.HasPrefix(s, "+-") || strings.HasPrefix(s, "++"):
		return 0, errors.New("not an integer")
	}
	return n, nil
}

// parseFloat reads a float as Postgres does, of so many bits.
func parseFloat(text string, bits int) (float64, error) {
	s := strings.TrimSpace(text)
	if strings.ContainsAny(s, "xXpP_") {
		return 0, errNumber
	}
	f, err := strconv.ParseFloat(s, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("out of range for float%d", bits/8)
	case err != nil:
		return 0, errNumber
	}
	return f, nil
}
