package github

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// token is a word of GraphQL: kind is NAME, INT, FLOAT, STRING, EOF or the punctuation.
type token struct {
	kind, text   string
	line, column int
}

// lexer reads GraphQL, queries and schemas alike. The first fault stays in err.
type lexer struct {
	text         string
	at           int
	line, column int
	tok          token
	err          *gqlError
}

func lex(text string) *lexer {
	l := &lexer{text: text, line: 1, column: 1}
	l.advance()
	return l
}

func (l *lexer) step() {
	if l.text[l.at] == '\n' {
		l.line, l.column = l.line+1, 0
	}
	l.at++
	l.column++
}

func (l *lexer) skip() {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == '#':
			for l.at < len(l.text) && l.text[l.at] != '\n' {
				l.step()
			}
		case strings.IndexByte(" \t\r\n,", c) >= 0:
			l.step()
		case strings.HasPrefix(l.text[l.at:], "\ufeff"):
			l.at += len("\ufeff")
		default:
			return
		}
	}
}

func isName(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// advance reads the next token into tok.
func (l *lexer) advance() {
	l.skip()
	l.tok = token{kind: "EOF", line: l.line, column: l.column}
	if l.at >= len(l.text) || l.err != nil {
		return
	}
	begin := l.at
	switch c := l.text[l.at]; {
	case isDigit(c) || c == '-':
		l.number()
	case isName(c):
		for l.at < len(l.text) && isName(l.text[l.at]) {
			l.step()
		}
		l.tok.kind, l.tok.text = "NAME", l.text[begin:l.at]
	case c == '"':
		l.str()
	case strings.HasPrefix(l.text[l.at:], "..."):
		l.step()
		l.step()
		l.step()
		l.tok.kind = "..."
	case strings.IndexByte("{}()[]:!$=@|&", c) >= 0:
		l.step()
		l.tok.kind = string(c)
	default:
		r, _ := utf8.DecodeRuneInString(l.text[l.at:])
		l.fail(fmt.Sprintf("Parse error on %q (error)", string(r)))
	}
}

func (l *lexer) number() {
	begin := l.at
	l.tok.kind = "INT"
	for l.at < len(l.text) && (isDigit(l.text[l.at]) || strings.IndexByte("+-.eE", l.text[l.at]) >= 0) {
		if !isDigit(l.text[l.at]) && l.at > begin {
			l.tok.kind = "FLOAT"
		}
		l.step()
	}
	l.tok.text = l.text[begin:l.at]
	if _, err := strconv.ParseFloat(l.tok.text, 64); err != nil {
		l.fail(fmt.Sprintf("Parse error on %q (error)", l.tok.text))
	}
}

func (l *lexer) str() {
	l.tok.kind = "STRING"
	if strings.HasPrefix(l.text[l.at:], `"""`) {
		end := strings.Index(l.text[l.at+3:], `"""`)
		if end < 0 {
			l.fail("Parse error: a text has no end")
			return
		}
		l.tok.text = strings.TrimSpace(l.text[l.at+3 : l.at+3+end])
		for stop := l.at + end + 6; l.at < stop; {
			l.step()
		}
		return
	}
	begin := l.at
	for l.step(); l.at < len(l.text) && l.text[l.at] != '"' && l.text[l.at] != '\n'; l.step() {
		if l.text[l.at] == '\\' && l.at+1 < len(l.text) {
			l.step()
		}
	}
	if l.at >= len(l.text) || l.text[l.at] != '"' {
		l.fail("Parse error: a text has no end")
		return
	}
	l.step()
	text, err := strconv.Unquote(strings.ReplaceAll(l.text[begin:l.at], `\/`, "/"))
	if err != nil {
		l.fail("Parse error: a text has an escape that is none")
	}
	l.tok.text = text
}

func (l *lexer) fail(message string) {
	if l.err == nil {
		l.err = &gqlError{Message: fmt.Sprintf("%s at [%d, %d]", message, l.tok.line, l.tok.column), line: l.tok.line, column: l.tok.column}
	}
	l.tok = token{kind: "EOF", line: l.tok.line, column: l.tok.column}
}

// take reads over a token of a kind and returns its text.
func (l *lexer) take(kind string) string {
	text := l.tok.text
	if l.tok.kind != kind {
		l.unexpected()
		return ""
	}
	l.advance()
	return text
}

// may reads over a token if it is of a kind.
func (l *lexer) may(kind string) bool {
	if l.tok.kind != kind || l.err != nil {
		return false
	}
	l.advance()
	return true
}

// word reads over a name if it is that one.
func (l *lexer) word(name string) bool {
	if l.tok.kind != "NAME" || l.tok.text != name {
		return false
	}
	l.advance()
	return true
}

func (l *lexer) unexpected() {
	if l.tok.kind == "EOF" {
		l.fail("Parse error on end of query: Unexpected end of document")
		return
	}
	text := l.tok.text
	if text == "" {
		text = l.tok.kind
	}
	l.fail(fmt.Sprintf("Parse error on %q (%s)", text, l.tok.kind))
}
