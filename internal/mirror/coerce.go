package mirror

import (
	"bytes"
	"strconv"
	"time"

	"lockstep/source"
)

// farthest is the last second of the years that a time is taken for; beyond it the
// unit is wrong (milliseconds taken for seconds), not the year.
const farthest = 253402300799 // 9999-12-31T23:59:59Z

// coerce returns a JSON value in the text form that Postgres reads for the type, in
// or beside scratch, which it may grow. text is nil for NULL. misfit is empty, or
// why the value does not fit; the text is nil then. The digits of numbers stay as
// they are.
//
// An empty string is NULL in all but text: APIs write so what has no value.
func coerce(typ source.Type, value, scratch []byte) (text, grown []byte, misfit string) {
	k := kindOf(value)
	if k == kindNull {
		return nil, scratch, ""
	}
	inner := value
	if k == kindString {
		inner = unquote(value)
		if len(inner) == 0 && typ != source.Text && typ != source.JSON {
			return nil, scratch, ""
		}
	}
	switch typ {
	case source.JSON:
		return value, scratch, ""
	case source.Text:
		return coerceText(k, value, inner, scratch)
	case source.TextArray:
		return coerceArray(k, value, scratch)
	case source.Timestamp, source.Date, source.Unix, source.UnixMilli:
		return coerceTime(typ, k, inner, scratch)
	}
	if k == kindObject || k == kindArray {
		return nil, scratch, "not a " + string(typ)
	}
	if ok := scalarFits(typ, k, inner); !ok {
		return nil, scratch, "not a " + string(typ)
	}
	if typ == source.Integer {
		inner, _, _ = bytes.Cut(inner, []byte("."))
	}
	return inner, scratch, ""
}

// coerceText takes strings, and other scalars by how they are written. Of an object
// it takes the id: an API shows a reference as an id, or expanded to the object.
func coerceText(k kind, value, inner, scratch []byte) (text, grown []byte, misfit string) {
	switch k {
	case kindObject:
		if id := memberOf(value, "id"); id != nil && kindOf(id) == kindString {
			return unquote(id), scratch, ""
		}
		return nil, scratch, "an object, not a text"
	case kindArray:
		return nil, scratch, "an array, not a text"
	}
	if inner == nil {
		inner = []byte{}
	}
	return inner, scratch, ""
}

func memberOf(object []byte, key string) (value []byte) {
	eachMember(object, 0, 0, func(m member) {
		if string(m.key) == key {
			value = m.value
		}
	})
	return value
}

func scalarFits(typ source.Type, k kind, inner []byte) bool {
	switch typ {
	case source.Boolean:
		return string(inner) == "true" || string(inner) == "false"
	case source.Integer:
		return k != kindBool && isInteger(inner)
	case source.Numeric:
		return k != kindBool && isNumber(inner) && numericHolds(inner)
	case source.Double:
		return k != kindBool && isNumber(inner) && isDouble(inner)
	}
	return false
}

func isNumber(b []byte) bool { return len(b) > 0 && skipNumber(b, 0) == len(b) }

// isInteger takes 5 and 5.0, not 5e0: an exponent is a measurement's.
func isInteger(b []byte) bool {
	if !isNumber(b) {
		return false
	}
	whole, fraction, _ := bytes.Cut(b, []byte("."))
	if len(bytes.Trim(fraction, "0")) > 0 {
		return false
	}
	_, err := strconv.ParseInt(string(whole), 10, 64)
	return err == nil
}

// isDouble only asks whether the value is in range: what is stored are the digits.
func isDouble(b []byte) bool {
	f, err := strconv.ParseFloat(string(b), 64)
	mantissa, _, _ := bytes.Cut(bytes.ToLower(b), []byte("e"))
	return err == nil && (f != 0 || len(bytes.Trim(mantissa, "-0.")) == 0)
}

func coerceTime(typ source.Type, k kind, inner, scratch []byte) (text, grown []byte, misfit string) {
	at, ok := time.Time{}, false
	switch {
	case k == kindObject || k == kindArray || k == kindBool:
	case typ == source.Unix:
		at, ok = unixTime(inner, 0)
	case typ == source.UnixMilli:
		at, ok = unixTime(inner, 3)
	case k == kindString:
		at, ok = calendarTime(typ, inner)
	}
	if !ok {
		return nil, scratch, "not a time of the form " + string(typ)
	}
	from := len(scratch)
	if typ == source.Date {
		scratch = at.AppendFormat(scratch, "2006-01-02")
	} else {
		scratch = at.UTC().AppendFormat(scratch, "2006-01-02 15:04:05.999999+00")
	}
	return scratch[from:len(scratch):len(scratch)], scratch, ""
}

// calendarTime reads RFC 3339, with or without the colon in the zone, or a date.
func calendarTime(typ source.Type, b []byte) (time.Time, bool) {
	s := string(b)
	at, err := time.Parse("2006-01-02", s)
	if typ != source.Date {
		if at, err = time.Parse(time.RFC3339Nano, s); err != nil {
			at, err = time.Parse("2006-01-02T15:04:05.999999999-0700", s)
		}
	}
	// Postgres knows no year 0; west of Greenwich it begins later.
	return at, err == nil && at.UTC().Year() >= 1 && at.Unix() <= farthest
}

// unixTime reads seconds times 10^places since 1970, exact to the microsecond.
func unixTime(b []byte, places int) (time.Time, bool) {
	if !isNumber(b) || bytes.ContainsAny(b, "eE") {
		return time.Time{}, false
	}
	negative := b[0] == '-'
	whole, fraction, _ := bytes.Cut(bytes.TrimPrefix(b, []byte("-")), []byte("."))
	if len(whole) > 15 {
		return time.Time{}, false
	}
	// Six more digits make microseconds of seconds, three of milliseconds.
	digits := append(bytes.Clone(whole), fraction[:min(len(fraction), 6-places)]...)
	digits = append(digits, "000000"[:6-places-min(len(fraction), 6-places)]...)
	micros, err := strconv.ParseInt(string(digits), 10, 64)
	if negative {
		micros = -micros
	}
	at := time.UnixMicro(micros).UTC()
	return at, err == nil && at.Year() >= 1 && at.Unix() <= farthest
}

// coerceArray writes an array of scalars as Postgres reads it.
func coerceArray(k kind, value, scratch []byte) (text, grown []byte, misfit string) {
	if k != kindArray {
		return nil, scratch, "not an array"
	}
	from := len(scratch)
	scratch = append(scratch, '{')
	eachElement(value, func(e []byte) bool {
		if len(scratch) > from+1 {
			scratch = append(scratch, ',')
		}
		switch kindOf(e) {
		case kindObject, kindArray:
			misfit = "an array of more than texts"
			return false
		case kindNull:
			scratch = append(scratch, "NULL"...)
		case kindString:
			scratch = appendArrayElement(scratch, unquote(e))
		default:
			scratch = appendArrayElement(scratch, e)
		}
		return true
	})
	if misfit != "" {
		return nil, scratch[:from], misfit
	}
	scratch = append(scratch, '}')
	return scratch[from:len(scratch):len(scratch)], scratch, ""
}

// appendArrayElement writes an element of an array's text form, in quotes.
func appendArrayElement(dst, element []byte) []byte {
	dst = append(dst, '"')
	for from := 0; ; {
		i := bytes.IndexAny(element[from:], `"\`)
		if i < 0 {
			return append(append(dst, element[from:]...), '"')
		}
		dst = append(append(dst, element[from:from+i]...), '\\', element[from+i])
		from += i + 1
	}
}
