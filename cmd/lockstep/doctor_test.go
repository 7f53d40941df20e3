package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/doctor"
)

func TestADiagnosisForPeople(t *testing.T) {
	t.Parallel()
	r := doctor.Report{Counts: doctor.Counts{Pass: 1, Warn: 1, Fail: 2, Skip: 3}, Findings: []doctor.Finding{
		{ID: "listen", Target: "http api", Status: doctor.Pass, Summary: "fine", Why: "never said"},
		{ID: "wal", Target: "database app", Status: doctor.Warn, Summary: "a \x1b[31m name", Why: "because", Remedy: "SELECT 1;\nSELECT 2;"},
		{ID: "table", Target: "database app", Status: doctor.Fail, Summary: "first", Why: "once", Remedy: "one"},
		{ID: "table", Target: "database app", Status: doctor.Fail, Summary: "second", Why: "once", Remedy: "two"},
		{ID: "a", Target: "database b", Status: doctor.Skip, Summary: "not now"},
		{ID: "b", Target: "database b", Status: doctor.Skip, Summary: "not now"},
		{ID: "c", Target: "database b", Status: doctor.Skip, Summary: "other"},
	}}
	want := `http api
  ok    listen  fine

database app
  warn  wal     a ·[31m name
          SELECT 1;
          SELECT 2;
        why: because
  FAIL  table   first
          one
  FAIL  table   second
          two
        why: once

database b
  skip  2 checks  not now
  skip  c       other

1 ok, 1 warning, 2 failed, 3 skipped
`
	if diff := cmp.Diff(want, diagnosis{}.text(r)); diff != "" {
		t.Error(diff)
	}
	coloured := diagnosis{palette: terminalPalette()}.text(r)
	if !strings.Contains(coloured, "\x1b[31mFAIL\x1b[0m") || strings.Count(coloured, "\x1b")%2 != 0 {
		t.Errorf("%q", coloured)
	}
	quiet := diagnosis{quiet: true}.text(r)
	if strings.Contains(quiet, "http api") || strings.Contains(quiet, "skip") || !strings.Contains(quiet, "FAIL  table   second") {
		t.Error(quiet)
	}
}

func TestTheDoctorFindsNothingWrongWithTheDefaults(t *testing.T) {
	t.Parallel()
	// Postgres, which is another user under root, has to get to its data.
	dir := t.TempDir()
	file := filepath.Join(dir, "lockstep.yml")
	text := "data_dir: " + filepath.Join(dir, "data") + "\nlisten: 127.0.0.1:0\n"
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"doctor", "-c", file}, streams{in: strings.NewReader(""), out: &out, err: &errs, lookup: os.LookupEnv})
	if code != 0 || !strings.Contains(out.String(), "0 failed") || errs.Len() > 0 {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
}
