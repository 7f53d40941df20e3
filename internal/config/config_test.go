package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"lockstep"
	"lockstep/internal/config"
)

var update = flag.Bool("update", false, "write what the cases give into them")

// options are those of every test: the variables of the env section and checks
// that refuse what contains the word BAD.
func options(env string) config.Options {
	vars := map[string]string{}
	for line := range strings.Lines(env) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			vars[k] = strings.ReplaceAll(v, `\n`, "\n")
		}
	}
	refuse := func(what string) func(string) error {
		return func(text string) error {
			if strings.Contains(text, "BAD") {
				return fmt.Errorf("the %s is bad:\n  | here", what)
			}
			return nil
		}
	}
	return config.Options{
		Lookup:         func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		CheckFilter:    refuse("filter"),
		CheckTransform: refuse("transform"),
		CheckPattern:   refuse("pattern"),
		CheckSync:      checkSync,
	}
}

// checkSync stands for the owner of the providers: it completes collections and schema,
// and refuses every field that contains the word BAD.
func checkSync(s config.Sync) config.SyncCheck {
	check := config.SyncCheck{Schema: s.Provider}
	fields := map[string]string{"provider": s.Provider, "base_url": s.BaseURL, "credential.kind": s.Credential.Kind}
	for name, value := range s.Credential.Properties {
		fields["credential.properties."+name] = value.Reveal()
	}
	for i, name := range s.Collections {
		fields[fmt.Sprintf("collections[%d]", i)] = name
		check.Collections = append(check.Collections, s.Provider+":"+strings.TrimPrefix(name, s.Provider+":"))
	}
	if s.Credential.Properties["secret"] == "" && s.Spec == "" {
		check.Faults = append(check.Faults, config.SyncFault{Field: "credential.properties.secret", Message: "missing", Remedy: "give it"})
	}
	for name, value := range fields {
		if strings.Contains(value, "BAD") {
			check.Faults = append(check.Faults, config.SyncFault{Field: name, Message: "it is bad", Remedy: "mend it"})
		}
	}
	for i, line := range strings.Split(s.Spec, "\n") {
		if at := strings.Index(line, "BAD"); at >= 0 {
			in := config.Problem{File: s.SpecFile, Line: i + 1, Column: at + 1, Path: "a.b", Message: "the spec is bad", Remedy: "mend it"}
			check.Faults = append(check.Faults, config.SyncFault{Field: "spec", In: &in})
		}
	}
	if s.Spec != "" {
		check.Schema = "shop"
	}
	if len(check.Faults) > 0 {
		return config.SyncCheck{Faults: check.Faults}
	}
	return check
}

// TestGolden runs the cases of testdata: lockstep.yml and env go in, and either
// errors or config (as JSON) must come out exactly.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runGolden(t, file)
		})
	}
}

func runGolden(t *testing.T, file string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for _, f := range archive.Files {
		parts[f.Name] = string(f.Data)
	}
	name, got := "errors", ""
	c, err := config.Parse("lockstep.yml", []byte(parts["lockstep.yml"]), options(parts["env"]))
	if err == nil {
		raw, jsonErr := json.MarshalIndent(c, "", "  ")
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		name, got = "config", string(raw)
	} else {
		if !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("the error does not wrap ErrInvalid")
		}
		got = err.Error()
	}
	got += "\n"
	if *update {
		kept := archive.Files[:0]
		for _, f := range archive.Files {
			if f.Name != "errors" && f.Name != "config" {
				kept = append(kept, f)
			}
		}
		archive.Files = append(kept, txtar.File{Name: name, Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(parts[name], got); diff != "" {
		t.Errorf("%s differ (-want +got):\n%s", name, diff)
	}
}
