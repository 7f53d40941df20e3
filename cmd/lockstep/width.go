package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable replaces what would move the cursor or change the terminal: data may
// hold anything.
func printable(text string) string {
	plain := func(r rune) bool { return r == utf8.RuneError || !unicode.IsGraphic(r) }
	if strings.IndexFunc(text, plain) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case unicode.Is(unicode.Cf, r): // joiners and marks of direction
			return -1
		case !unicode.IsGraphic(r):
			return '·'
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// width returns how many columns of a terminal the text takes.
func width(text string) int {
	n := 0
	for _, r := range text {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case wide(r):
		return 2
	}
	return 1
}

// wide is what Unicode's East Asian Width calls W or F, in blocks.
func wide(r rune) bool {
	switch {
	case r < 0x1100:
		return false
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f680 && r <= 0x1f6ff, r >= 0x1f900 && r <= 0x1f9ff, r >= 0x20000 && r <= 0x3fffd:
		return true
	}
	return false
}

// truncate cuts the text so that it takes at most columns; 0 is without limit.
func truncate(text string, columns int) string {
	if columns <= 0 || width(text) <= columns {
		return text
	}
	n := 0
	for i, r := range text {
		if n+runeWidth(r) > columns-1 {
			return text[:i] + "…"
		}
		n += runeWidth(r)
	}
	return text
}
