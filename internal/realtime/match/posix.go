package match

import (
	"errors"
	"strings"
)

// translate turns an advanced regular expression of Postgres into one of Go's, which
// takes linear time. What Go cannot do is an error.
func translate(pattern string, fold bool) (string, error) {
	rest := pattern
	switch {
	case strings.HasPrefix(rest, "***"):
		return "", errors.New("directors (***) are not possible here")
	case strings.HasPrefix(rest, "(?") && len(rest) > 2 && rest[2] >= 'a' && rest[2] <= 'z':
		options, after, ok := strings.Cut(rest[2:], ")")
		if !ok || strings.Trim(options, "ci") != "" {
			return "", errors.New("of the embedded options (?i) and (?c) are possible here")
		}
		fold = options[len(options)-1] == 'i'
		rest = after
	}
	t := &translator{in: rest}
	// In Postgres a dot takes a line break too, and ^ and $ are the ends of the text.
	t.out.WriteString("(?s)")
	if fold {
		t.out.Reset()
		t.out.WriteString("(?si)")
	}
	if err := t.run(); err != nil {
		return "", err
	}
	return t.out.String(), nil
}

type translator struct {
	in  string
	at  int
	out strings.Builder
}

func (t *translator) run() error {
	for t.at < len(t.in) {
		c := t.in[t.at]
		var err error
		switch c {
		case '\\':
			err = t.escape()
		case '[':
			err = t.bracket()
		case '(':
			err = t.group()
		default:
			t.out.WriteByte(c)
			t.at++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *translator) group() error {
	rest := t.in[t.at:]
	switch {
	case strings.HasPrefix(rest, "(?:"):
		t.out.WriteString("(?:")
		t.at += 3
		return nil
	case strings.HasPrefix(rest, "(?"):
		return errors.New("look-around (?= ?! ?<) is not possible here")
	}
	t.out.WriteByte('(')
	t.at++
	return nil
}

// The classes behind a backslash, outside of brackets and what they are within.
func classOf(c byte) string {
	switch c {
	case 'd':
		return "0-9"
	case 's':
		return `\t\n\v\f\r `
	case 'w':
		return `\p{L}\p{N}_`
	}
	return ""
}

func (t *translator) escape() error {
	if t.at+1 >= len(t.in) {
		return errors.New("it ends with a backslash")
	}
	c := t.in[t.at+1]
	t.at += 2
	switch {
	case classOf(c) != "":
		t.out.WriteString("[" + classOf(c) + "]")
	case classOf(c|0x20) != "" && c < 'a':
		t.out.WriteString("[^" + classOf(c|0x20) + "]")
	case c == 'A':
		t.out.WriteString(`\A`)
	case c == 'Z':
		t.out.WriteString(`\z`)
	case c == 'y':
		t.out.WriteString(`\b`)
	case c == 'Y':
		t.out.WriteString(`\B`)
	case c >= '1' && c <= '9':
		return errors.New("back references are not possible here")
	case c == 'm' || c == 'M' || c == 'x' || c == 'u' || c == 'U' || c == 'c' || c == '0':
		return errors.New(`the escape \` + string(c) + ` is not possible here`)
	default:
		return t.character(c)
	}
	return nil
}

// character writes one character that stands behind a backslash, within brackets or
// outside.
func (t *translator) character(c byte) error {
	switch c {
	case 'n', 'r', 't', 'f', 'v', 'a':
		t.out.WriteString(`\` + string(c))
	case 'b':
		t.out.WriteString(`\x08`)
	case 'B':
		t.out.WriteString(`\\`)
	case 'e':
		t.out.WriteString(`\x1b`)
	default:
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return errors.New(`the escape \` + string(c) + ` is not known`)
		}
		if c < 0x80 {
			t.out.WriteByte('\\')
		}
		t.out.WriteByte(c)
	}
	return nil
}

// bracket translates [...] .
func (t *translator) bracket() error {
	for _, boundary := range []string{"[[:<:]]", "[[:>:]]"} {
		if strings.HasPrefix(t.in[t.at:], boundary) {
			return errors.New(boundary + ` is not possible here; write \y`)
		}
	}
	t.out.WriteByte('[')
	t.at++
	if t.at < len(t.in) && t.in[t.at] == '^' {
		t.out.WriteByte('^')
		t.at++
	}
	for first := true; t.at < len(t.in); first = false {
		c := t.in[t.at]
		switch {
		case c == ']' && !first:
			t.out.WriteByte(']')
			t.at++
			return nil
		case c == '[' && t.at+1 < len(t.in) && strings.IndexByte(":.=", t.in[t.at+1]) >= 0:
			if err := t.class(); err != nil {
				return err
			}
		case c == '\\' && t.at+1 < len(t.in):
			if err := t.bracketEscape(t.in[t.at+1]); err != nil {
				return err
			}
		default:
			if strings.IndexByte(`[]^\&~`, c) >= 0 {
				t.out.WriteByte('\\')
			}
			t.out.WriteByte(c)
			t.at++
		}
	}
	return errors.New("brackets [] are not balanced")
}

func (t *translator) bracketEscape(c byte) error {
	t.at += 2
	if set := classOf(c); set != "" {
		t.out.WriteString(set)
		return nil
	}
	return t.character(c)
}

// class translates [:name:] within brackets.
func (t *translator) class() error {
	name, _, ok := strings.Cut(t.in[t.at+2:], ":]")
	if t.in[t.at+1] != ':' || !ok {
		return errors.New("collating elements are not possible here")
	}
	set, ok := map[string]string{
		"alpha": `\p{L}`, "alnum": `\p{L}\p{N}`, "upper": `\p{Lu}`, "lower": `\p{Ll}`,
		"digit": "0-9", "space": classOf('s'), "blank": `\t `, "punct": `!-/:-@\[-` + "`" + `{-~`,
		"xdigit": "0-9A-Fa-f", "cntrl": `\x00-\x1f\x7f`, "print": `\x20-\x7e`, "graph": `\x21-\x7e`, "word": classOf('w'),
	}[name]
	if !ok {
		return errors.New("there is no class [:" + name + ":]")
	}
	t.out.WriteString(set)
	t.at += len(name) + 4
	return nil
}
