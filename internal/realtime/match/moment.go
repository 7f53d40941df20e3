package match

import (
	"errors"
	"math"
	"strings"
)

var errMoment = errors.New("not a date or time in ISO 8601 (such as 2026-11-21 or 2026-11-21T10:00:00Z)")

const (
	micros    = 1_000_000
	dayMicros = 24 * 60 * 60 * micros
)

// moment is what a text tells about a date and a time.
type moment struct {
	infinite int8  // -1, 1
	days     int64 // since 2000-01-01
	time     int64 // microseconds of the day
	zone     int64 // microseconds to the east of UTC
}

// parseMoment reads a date, with a time and a zone if they are there, in ISO 8601 or
// as Postgres writes them: with a space instead of the T, more than four digits for
// the year, and BC behind.
func parseMoment(text string) (moment, error) {
	s := strings.TrimSpace(text)
	switch strings.ToLower(s) {
	case "infinity", "+infinity":
		return moment{infinite: 1}, nil
	case "-infinity":
		return moment{infinite: -1}, nil
	}
	before := false
	if rest, ok := cutSuffixFold(s, "bc"); ok {
		s, before = strings.TrimRight(rest, " "), true
	} else if rest, ok := cutSuffixFold(s, "ad"); ok {
		s = strings.TrimRight(rest, " ")
	}
	year, s, ok := digits(s, 4, 7)
	month, s, ok2 := dashed(s)
	day, s, ok3 := dashed(s)
	if !ok || !ok2 || !ok3 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month, before) || year == 0 {
		return moment{}, errMoment
	}
	if before {
		year = 1 - year
	}
	m := moment{days: daysSince2000(year, month, day)}
	if s == "" {
		return m, nil
	}
	if s[0] != 'T' && s[0] != 't' && s[0] != ' ' {
		return moment{}, errMoment
	}
	var err error
	m.time, s, err = parseClock(strings.TrimLeft(s[1:], " "))
	if err != nil {
		return moment{}, err
	}
	m.zone, err = parseZone(strings.TrimLeft(s, " "))
	return m, err
}

// micros returns the moment as Postgres stores a timestamp, zone left aside.
func (m moment) micros() int64 {
	switch m.infinite {
	case 1:
		return math.MaxInt64
	case -1:
		return math.MinInt64
	}
	return m.days*dayMicros + m.time
}

// instant returns the moment as Postgres stores a timestamptz.
func (m moment) instant() int64 {
	if m.infinite != 0 {
		return m.micros()
	}
	return m.micros() - m.zone
}

// day returns the moment as Postgres stores a date.
func (m moment) day() int64 {
	switch m.infinite {
	case 1:
		return math.MaxInt64
	case -1:
		return math.MinInt64
	}
	return m.days
}

// parseClock reads hh:mm, hh:mm:ss or hh:mm:ss.ffffff and returns what follows.
func parseClock(s string) (at int64, rest string, err error) {
	hour, s, ok := digits(s, 1, 2)
	if !ok || hour > 24 {
		return 0, "", errMoment
	}
	minute, s, ok := coloned(s)
	if !ok || minute > 59 {
		return 0, "", errMoment
	}
	var second, fraction int64
	if strings.HasPrefix(s, ":") {
		if second, s, ok = coloned(s); !ok || second > 60 {
			return 0, "", errMoment
		}
		if fraction, s, ok = parseFraction(s); !ok {
			return 0, "", errMoment
		}
	}
	at = ((hour*60+minute)*60+second)*micros + fraction
	if at > dayMicros {
		return 0, "", errMoment
	}
	return at, s, nil
}

// parseFraction reads a fraction of a second, rounded to microseconds.
func parseFraction(s string) (at int64, rest string, ok bool) {
	if s == "" || s[0] != '.' {
		return 0, s, true
	}
	s = s[1:]
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		if n < 6 {
			at = at*10 + int64(s[n]-'0')
		}
		n++
	}
	for i := n; i < 6; i++ {
		at *= 10
	}
	if n > 6 && s[6] >= '5' {
		at++
	}
	return at, s[n:], true
}

// parseZone reads Z, UTC, +hh, +hhmm, +hh:mm or +hh:mm:ss; nothing is UTC.
func parseZone(s string) (int64, error) {
	switch strings.ToUpper(s) {
	case "", "Z", "UTC", "GMT":
		return 0, nil
	}
	sign := int64(1)
	switch s[0] {
	case '-':
		sign = -1
	case '+':
	default:
		return 0, errMoment
	}
	hour, s, ok := digits(s[1:], 1, 2)
	var minute, second int64
	if ok && s != "" {
		minute, s, ok = digits(strings.TrimPrefix(s, ":"), 2, 2)
	}
	if ok && s != "" {
		second, s, ok = coloned(s)
	}
	if !ok || s != "" || hour > 15 || minute > 59 || second > 59 {
		return 0, errMoment
	}
	return sign * ((hour*60+minute)*60 + second) * micros, nil
}

// digits cuts a number of so many digits off s.
func digits(s string, least, most int) (n int64, rest string, ok bool) {
	i := 0
	for i < len(s) && i < most && s[i] >= '0' && s[i] <= '9' {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	return n, s[i:], i >= least
}

func dashed(s string) (n int64, rest string, ok bool) {
	if s == "" || s[0] != '-' {
		return 0, "", false
	}
	return digits(s[1:], 1, 2)
}

func coloned(s string) (n int64, rest string, ok bool) {
	if s == "" || s[0] != ':' {
		return 0, "", false
	}
	return digits(s[1:], 2, 2)
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) < len(suffix) || !strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return s, false
	}
	return s[:len(s)-len(suffix)], true
}

func daysIn(year, month int64, before bool) int64 {
	if before {
		year = 1 - year
	}
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince2000 counts days in the proleptic Gregorian calendar; year 0 is 1 BC.
func daysSince2000(year, month, day int64) int64 {
	// Years begin in March here, so that a leap day is the last one.
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	of := year - era*400
	ofYear := (153*(month-3)+2)/5 + day - 1
	const to2000 = 730_425 // days from 0000-03-01 to 2000-01-01
	return era*146_097 + of*365 + of/4 - of/100 + ofYear - to2000
}
