package mirror

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// The largest exponent that a number of jsonb may have: Postgres' numeric has up to
// 131,072 digits before the point and 16,383 after it. Nothing real comes near.
const largestExponent = 16000

// clean returns valid JSON as jsonb takes it, and how many places had to be changed:
// NUL, lone surrogates and bytes that are not UTF-8 become U+FFFD, and a number that
// no numeric can hold becomes a string of its digits. Mostly that is data itself.
func clean(data []byte) (cleaned []byte, changed int) {
	var out []byte
	from := 0 // data before it is in out
	replace := func(start, end int, with string) {
		out = append(append(out, data[from:start]...), with...)
		from = end
		changed++
	}
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c == '"':
			i = cleanString(data, i, replace)
		case c == '-' || c >= '0' && c <= '9':
			end := skipNumber(data, i)
			if number := data[i:end]; !numericHolds(number) {
				replace(i, end, `"`+string(number)+`"`)
			}
			i = end
		default:
			i++
		}
	}
	if changed == 0 {
		return data, 0
	}
	return append(out, data[from:]...), changed
}

// cleanString goes through the string at i, and returns its end.
func cleanString(data []byte, i int, replace func(start, end int, with string)) int {
	end := skipString(data, i)
	for i++; i < end-1; {
		switch {
		case data[i] == '\\' && data[i+1] == 'u':
			r, n := escaped(data[:end-1], i)
			if original, _ := hex4(data, i+2); r == utf8.RuneError && original != utf8.RuneError {
				replace(i, i+n, `\ufffd`)
			}
			i += n
		case data[i] == '\\':
			i += 2
		case data[i] < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(data[i:end])
			if r == utf8.RuneError && n == 1 {
				replace(i, i+1, "\uFFFD")
			}
			i += n
		}
	}
	return end
}

// numericHolds says whether Postgres' numeric can hold a JSON number.
func numericHolds(number []byte) bool {
	mantissa, exponent, has := bytes.Cut(bytes.ToLower(number), []byte("e"))
	if len(mantissa) > largestExponent {
		return false
	}
	if !has {
		return true
	}
	n, err := strconv.Atoi(string(exponent))
	return err == nil && n <= largestExponent && n >= -largestExponent+len(mantissa)
}
