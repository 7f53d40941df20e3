package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestDemoEndsWithAComparison(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"demo", "--for", "2s"}, streams{in: strings.NewReader(""), out: &out, err: &errs, lookup: os.LookupEnv})
	for _, told := range []string{"the workers' view equals the tables", "stripe is mirrored: ", "github is mirrored: ", "then at a worker", "the mirror equals the API: "} {
		if code != 0 || !strings.Contains(out.String(), told) {
			t.Fatalf("exit %d, want %q\n%s%s", code, told, out.String(), errs.String())
		}
	}
}
