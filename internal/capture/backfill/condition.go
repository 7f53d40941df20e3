package backfill

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"lockstep"
)

// checkCondition refuses what could reach beyond the parentheses that a condition is
// put into. That it is one expression, Postgres says.
func checkCondition(text string) error {
	if err := scanCondition(text); err != nil {
		return fmt.Errorf("the condition %w: write one SQL expression over the table's columns, for example amount > 100: %w", err, lockstep.ErrInvalid)
	}
	return nil
}

func scanCondition(text string) error {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return errors.New("is not valid UTF-8 text")
	}
	depth := 0
	for i := 0; i < len(text); {
		rest := text[i:]
		switch c := text[i]; {
		case c == '\'' || c == '"':
			n := quoted(rest, c, c == '\'' && escapes(text[:i]))
			if n == 0 {
				return fmt.Errorf("has a %c that is not closed", c)
			}
			i += n
			continue
		case c == ';':
			return errors.New("holds a semicolon")
		case strings.HasPrefix(rest, "--") || strings.HasPrefix(rest, "/*"):
			return errors.New("holds a comment")
		case c == '$' && (i == 0 || !inName(text[i-1])):
			return errors.New("holds a $ outside of quotes (texts stand in single quotes, and there are no parameters)")
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth < 0 {
				return errors.New("closes a parenthesis that it has not opened")
			}
		}
		i++
	}
	if depth > 0 {
		return errors.New("opens a parenthesis that it does not close")
	}
	return nil
}

// quoted returns the length of the quoted text that s begins with, or 0.
func quoted(s string, quote byte, escaped bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case escaped && s[i] == '\\':
			i++
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return 0
}

// escapes reports whether a string constant behind this text is of the form E'…'.
func escapes(before string) bool {
	n := len(before)
	return n > 0 && (before[n-1] == 'E' || before[n-1] == 'e') && (n == 1 || !inName(before[n-2]))
}

// inName reports whether the byte may go on an identifier.
func inName(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
