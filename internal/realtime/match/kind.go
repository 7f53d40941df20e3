package match

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
)

// value is a value of some kind, made to be compared with others of it.
type value struct {
	text    string
	number  int64
	float   float64
	decimal decimal
}

// kind is how the values of a group of types are read and compared.
type kind struct {
	name string
	// parse reads a value of a filter; read one of a row, of which json is as it is there
	// and text without quotes.
	parse func(text string) (value, error)
	read  func(text []byte, json []byte) (value, error)
	// order compares two values; nil: they are compared for equality only, by key.
	order func(a, b value) int
	// key appends what is the same for equal values only; nil: no equality.
	key func(dst []byte, v value) []byte
	// plain says that the text is its own key: rows are looked up without reading it.
	plain bool
	text  bool // like, ilike, match and imatch are possible
}

// kindOf returns the kind of a type, by its name in pg_type. No name: the kind is told
// by the value.
func kindOf(typname string) kind {
	switch typname {
	case "":
		return guessedKind()
	case "int2":
		return intKind(16)
	case "int4":
		return intKind(32)
	case "int8":
		return intKind(64)
	case "oid", "xid":
		return unsignedKind()
	case "numeric":
		return numericKind()
	case "float4":
		return floatKind(32)
	case "float8":
		return floatKind(64)
	case "bool":
		return boolKind()
	case "text", "varchar", "name":
		return textKind(typname)
	case "bpchar":
		return foldedKind(typname, func(s string) string { return strings.TrimRight(s, " ") })
	case "citext":
		return foldedKind(typname, strings.ToLower)
	case "uuid":
		return uuidKind()
	}
	return otherKind(typname)
}

// otherKind returns the kinds of types that are rarely filtered by.
func otherKind(typname string) kind {
	switch typname {
	case "date":
		return momentKind(typname, moment.day)
	case "timestamp":
		return momentKind(typname, moment.micros)
	case "timestamptz":
		return momentKind(typname, moment.instant)
	case "time":
		return clockKind()
	case "bytea":
		return byteaKind()
	case "jsonb":
		return jsonbKind()
	case "json", "xml", "point", "line", "polygon", "lseg", "path", "box", "circle", "jsonpath", "aclitem", "txid_snapshot", "pg_snapshot":
		return kind{name: typname}
	}
	if strings.HasPrefix(typname, "_") {
		return kind{name: typname}
	}
	k := textKind(typname)
	k.order, k.text = nil, false
	return k
}

func textKind(name string) kind {
	return kind{
		name:  name,
		parse: func(text string) (value, error) { return value{text: text}, nil },
		read:  func(text, _ []byte) (value, error) { return value{text: string(text)}, nil },
		order: orderText,
		key:   keyText,
		plain: true,
		text:  true,
	}
}

func orderText(a, b value) int             { return strings.Compare(a.text, b.text) }
func orderNumber(a, b value) int           { return cmp.Compare(a.number, b.number) }
func keyText(dst []byte, v value) []byte   { return append(dst, v.text...) }
func keyNumber(dst []byte, v value) []byte { return strconv.AppendInt(dst, v.number, 10) }
func foldText(fold func(string) string) func(string) (value, error) {
	return func(text string) (value, error) { return value{text: fold(text)}, nil }
}

// reading makes read of parse: rows hold what filters may say too.
func reading(parse func(string) (value, error)) func(text, json []byte) (value, error) {
	return func(text, _ []byte) (value, error) { return parse(string(text)) }
}

func foldedKind(name string, fold func(string) string) kind {
	parse := foldText(fold)
	return kind{name: name, parse: parse, read: reading(parse), order: orderText, key: keyText, text: true}
}

func intKind(bits int) kind {
	parse := func(text string) (value, error) {
		n, err := parseInt(text, bits)
		return value{number: n}, err
	}
	return kind{name: "int" + strconv.Itoa(bits/8), parse: parse, read: reading(parse), order: orderNumber, key: keyNumber}
}

func unsignedKind() kind {
	parse := func(text string) (value, error) {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
		if err != nil {
			return value{}, errors.New("not an unsigned integer of 32 bits")
		}
		return value{number: int64(n)}, nil
	}
	return kind{name: "oid", parse: parse, read: reading(parse), order: orderNumber, key: keyNumber}
}

func numericKind() kind {
	parse := func(text string) (value, error) {
		d, err := parseDecimal(text)
		return value{decimal: d}, err
	}
	return kind{
		name: "numeric", parse: parse, read: reading(parse),
		order: func(a, b value) int { return a.decimal.compare(b.decimal) },
		key:   func(dst []byte, v value) []byte { return v.decimal.appendKey(dst) },
	}
}

func floatKind(bits int) kind {
	parse := func(text string) (value, error) {
		f, err := parseFloat(text, bits)
		return value{float: f}, err
	}
	return kind{
		name: "float" + strconv.Itoa(bits/8), parse: parse, read: reading(parse),
		order: orderFloat,
		key: func(dst []byte, v value) []byte {
			if v.float == 0 {
				v.float = 0 // -0
			}
			if math.IsNaN(v.float) {
				return append(dst, "NaN"...)
			}
			return strconv.AppendFloat(dst, v.float, 'g', -1, 64)
		},
	}
}

// orderFloat orders as Postgres does: NaN is equal to itself and above everything.
func orderFloat(a, b value) int {
	switch an, bn := math.IsNaN(a.float), math.IsNaN(b.float); {
	case an && bn:
		return 0
	case an:
		return 1
	case bn:
		return -1
	case a.float < b.float:
		return -1
	case a.float > b.float:
		return 1
	}
	return 0
}

func boolKind() kind {
	return kind{
		name: "bool", parse: parseBool, read: reading(parseBool), order: orderNumber, key: keyNumber,
	}
}

// parseBool reads what Postgres takes for a boolean: beginnings of true, false, yes
// and no, on and off, 1 and 0.
func parseBool(text string) (value, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	switch {
	case s == "":
	case s == "1" || s == "on" || strings.HasPrefix("true", s) || strings.HasPrefix("yes", s):
		return value{number: 1}, nil
	case s == "0" || s == "of" || s == "off" || strings.HasPrefix("false", s) || strings.HasPrefix("no", s):
		return value{}, nil
	}
	return value{}, errors.New("not a boolean")
}

func uuidKind() kind {
	parse := func(text string) (value, error) {
		s := strings.TrimSpace(text)
		if len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' {
			s = s[1 : len(s)-1]
		}
		s = strings.ReplaceAll(strings.ToLower(s), "-", "")
		if b, err := hex.DecodeString(s); err != nil || len(b) != 16 {
			return value{}, errors.New("not a uuid")
		}
		return value{text: s}, nil
	}
	return kind{name: "uuid", parse: parse, read: reading(parse), order: orderText, key: keyText}
}

func momentKind(name string, of func(moment) int64) kind {
	parse := func(text string) (value, error) {
		m, err := parseMoment(text)
		return value{number: of(m)}, err
	}
	return kind{name: name, parse: parse, read: reading(parse), order: orderNumber, key: keyNumber}
}

func clockKind() kind {
	parse := func(text string) (value, error) {
		at, rest, err := parseClock(strings.TrimSpace(text))
		if err != nil || rest != "" {
			return value{}, errors.New("not a time (such as 10:00:00)")
		}
		return value{number: at}, nil
	}
	return kind{name: "time", parse: parse, read: reading(parse), order: orderNumber, key: keyNumber}
}

func byteaKind() kind {
	return kind{
		name: "bytea",
		parse: func(text string) (value, error) {
			digits, ok := strings.CutPrefix(text, `\x`)
			if !ok && !strings.Contains(text, `\`) {
				return value{text: text}, nil
			}
			b, err := hex.DecodeString(digits)
			if !ok || err != nil {
				return value{}, errors.New(`not bytes in hexadecimal (such as \x00ff)`)
			}
			return value{text: string(b)}, nil
		},
		read: func(text, _ []byte) (value, error) {
			b, err := base64.StdEncoding.DecodeString(string(text))
			return value{text: string(b)}, err
		},
		order: orderText,
		key:   keyText,
	}
}

// jsonbKind compares documents by their meaning, as jsonb does.
func jsonbKind() kind {
	return kind{
		name: "jsonb",
		parse: func(text string) (value, error) {
			b, err := canonicalJSON([]byte(text))
			return value{text: string(b)}, err
		},
		read: func(_, json []byte) (value, error) {
			b, err := canonicalJSON(json)
			return value{text: string(b)}, err
		},
		key: keyText,
	}
}

// guessedKind is for columns of which the type is not known: two numbers are compared
// as numbers, anything else as text.
func guessedKind() kind {
	read := func(text, json []byte) (value, error) {
		v := value{text: string(text)}
		if len(json) > 0 && json[0] == '"' {
			return v, nil
		}
		if d, err := parseDecimal(v.text); err == nil {
			v.decimal, v.number = d, 1
		}
		return v, nil
	}
	return kind{
		name:  "unknown",
		parse: func(text string) (value, error) { return read([]byte(text), nil) },
		read:  read,
		order: func(a, b value) int {
			if a.number == 1 && b.number == 1 {
				return a.decimal.compare(b.decimal)
			}
			return strings.Compare(a.text, b.text)
		},
		text: true,
	}
}
