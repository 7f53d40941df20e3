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
	if code != 0 || !strings.Contains(out.String(), "the workers' view equals the tables") {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
}
