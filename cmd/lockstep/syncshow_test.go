package main

import (
	"strings"
	"testing"
)

// On a terminal the new picture takes the place of the old one, line for line: a line
// that the terminal would break is cut.
func TestAPictureIsDrawnOverTheOneBefore(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	c := picture{out: &out, over: true, columns: 5}
	for _, text := range []string{"a\nb\n", "a\nb\n", "a much longer line\n\nc\n", "d\n"} {
		if err := c.show(text); err != nil {
			t.Fatal(err)
		}
	}
	want := "a\nb\n" + "\x1b[2A\x1b[J" + "a mu…\n\nc\n" + "\x1b[3A\x1b[J" + "d\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
