package suggest_test

import (
	"strings"
	"testing"

	"lockstep/internal/suggest"
)

func TestRemedyNamesTheNearestWordOrAll(t *testing.T) {
	t.Parallel()
	known := []string{"customer", "invoice", "id"}
	for word, want := range map[string]string{
		"custmer":                  "did you mean customer?",
		"Customers":                "did you mean customer?",
		"inovice":                  "did you mean invoice?",
		"payment":                  "use customer, invoice or id",
		"":                         "use customer, invoice or id", // as far from id as id is long
		"xx":                       "use customer, invoice or id",
		strings.Repeat("x", 1<<20): "use customer, invoice or id",
	} {
		if got := suggest.Remedy(word, known); got != want {
			t.Errorf("%.20q: got %q, want %q", word, got, want)
		}
	}
	if got := suggest.Remedy("x", nil); got != "use " {
		t.Errorf("nothing known: %q", got)
	}
}
