package match

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// like is a pattern of LIKE.
type like struct {
	tokens []rune // anyOne, anyMany, or the character itself
	fold   bool
}

const (
	anyOne  rune = -1
	anyMany rune = -2
)

// parseLike reads a pattern: % is any characters, _ is one, \ takes their meaning.
func parseLike(pattern string, fold bool) (like, error) {
	if fold {
		pattern = strings.ToLower(pattern)
	}
	l := like{fold: fold}
	escaped := false
	for _, c := range pattern {
		switch {
		case escaped:
			l.tokens = append(l.tokens, c)
			escaped = false
		case c == '\\':
			escaped = true
		case c == '_':
			l.tokens = append(l.tokens, anyOne)
		case c == '%':
			if n := len(l.tokens); n == 0 || l.tokens[n-1] != anyMany {
				l.tokens = append(l.tokens, anyMany)
			}
		default:
			l.tokens = append(l.tokens, c)
		}
	}
	if escaped {
		return like{}, errors.New("LIKE pattern must not end with escape character")
	}
	return l, nil
}

// matches takes at most the pattern's length times the text's: of several %, only the
// last one that was met is ever tried again.
func (l like) matches(text string) bool {
	if l.fold {
		text = strings.ToLower(text)
	}
	at, token := 0, 0
	star, after := -1, 0 // the last %, and where what follows it was tried
	for at < len(text) {
		c, size := utf8.DecodeRuneInString(text[at:])
		switch {
		case token < len(l.tokens) && l.tokens[token] == anyMany:
			star, after = token, at
			token++
		case token < len(l.tokens) && (l.tokens[token] == anyOne || l.tokens[token] == c):
			at += size
			token++
		case star >= 0:
			_, size = utf8.DecodeRuneInString(text[after:])
			after += size
			at, token = after, star+1
		default:
			return false
		}
	}
	for token < len(l.tokens) && l.tokens[token] == anyMany {
		token++
	}
	return token == len(l.tokens)
}
