// Package suggest finds what somebody may have meant by a word that is not known.
package suggest

import (
	"strings"
)

// Remedy says what to write instead of a word: the known one that is at most two edits
// away from it, or else all of them, in their order.
func Remedy(word string, known []string) string {
	if best := nearest(strings.ToLower(word), known); best != "" {
		return "did you mean " + best + "?"
	}
	return "use " + Or(known)
}

// Or writes the words as "a, b or c".
func Or(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func nearest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(word, k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	return best
}

// longest is where words are cut: nobody misspells one of ours at such length.
const longest = 64

// edits counts what must be put in, taken out or changed to make one word of another.
func edits(a, b string) int {
	a, b = a[:min(len(a), longest)], b[:min(len(b), longest)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
