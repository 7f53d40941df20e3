package arch_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEachRuleFindsWhatBreaksIt feeds each rule with code that breaks it and code
// that does not: a rule that finds nothing would stay green for ever.
func TestEachRuleFindsWhatBreaksIt(t *testing.T) {
	t.Parallel()
	long := "package stream\n\nfunc long() {\n" + strings.Repeat("\t_ = 0\n", 70) + "}\n"
	for _, tc := range []struct{ rule, path, code, finds string }{
		{"imports stay within the borders", "internal/stream/a.go", `package stream; import _ "lockstep/internal/deliver"`, "may not import internal/deliver"},
		{"imports stay within the borders", "internal/stream/a.go", `package stream; import _ "lockstep"`, ""},
		{"imports stay within the borders", "internal/stream/a_test.go", `package stream; import _ "lockstep/internal/deliver"`, ""},
		{"imports stay within the borders", "internal/capture/wal/a.go", `package wal; import _ "lockstep/internal/capture/value"`, ""},
		{"imports stay within the borders", "internal/capture/wal/a.go", `package wal; import _ "lockstep/internal/pgdb/pgtest"`, "for tests only"},
		{"imports stay within the borders", "a.go", `package lockstep; import _ "github.com/jackc/pgx/v5"`, "standard library only"},
		{"imports stay within the borders", "a.go", `package lockstep; import _ "lockstep/internal/stage"`, "may not import"},
		{"imports stay within the borders", "internal/novel/a.go", `package novel`, "not in the table"},
		{"modules stay with their owners", "internal/api/a.go", `package api; import _ "github.com/nats-io/nats.go"`, "internal/stream and sink/nats only"},
		{"modules stay with their owners", "internal/stream/a.go", `package stream; import _ "github.com/nats-io/nats.go"`, ""},
		{"modules stay with their owners", "internal/stream/a.go", `package stream; import _ "go.uber.org/goleak"`, "for tests only"},
		{"files and functions are small", "internal/stream/a.go", long, "func long has 72 lines"},
		{"files and functions are small", "internal/stream/a.go", "package stream\n" + strings.Repeat("\n", 500), "501 lines"},
		{"nothing runs before main", "internal/stream/a.go", `package stream; func init() {}`, "func init"},
		{"nothing runs before main", "internal/stream/a.go", `package stream; type t int; func (t) init() {}`, ""},
		{"no package-level state", "internal/stream/a.go", `package stream; var cache = map[string]int{}`, "var cache"},
		{"no package-level state", "internal/stream/a.go", `package stream; var n int`, "var n"},
		{"no package-level state", "internal/stream/a.go", `package stream; var _ I = T{}; var errX = errors.New(""); var p = regexp.MustCompile(""); var f embed.FS; var errFull error = syscall.ENOSPC`, ""},
		{"no package-level state", "internal/stream/a.go", `package stream; var last error`, "var last"},
		{"no exit, log or print outside cmd", "internal/stream/a.go", `package stream; func f() { os.Exit(1) }`, "return an error"},
		{"no exit, log or print outside cmd", "internal/stream/a.go", `package stream; func f() { fmt.Println() }`, "io.Writer"},
		{"no exit, log or print outside cmd", "internal/stream/a.go", `package stream; func f() { slog.Info("") }`, "the process' logger"},
		{"no exit, log or print outside cmd", "internal/stream/a.go", `package stream; import "log"`, "belongs to cmd"},
		{"no exit, log or print outside cmd", "cmd/lockstep/a.go", `package main; func f() { os.Exit(1) }`, ""},
		{"tests do not sleep", "internal/stream/a_test.go", `package stream; import ("testing/synctest"; "time"); func f() { synctest.Test(nil, nil); time.Sleep(1) }`, ""},
		{"tests do not sleep", "internal/stream/a_test.go", `package stream; func f() { go func() { time.Sleep(1) }() }`, "time.Sleep"},
		{"exported names are documented", "internal/stream/a.go", `package stream; func F() {}`, "F is exported"},
		{"exported names are documented", "internal/stream/a.go", `package stream; type T struct{}`, "T is exported"},
		{"exported names are documented", "internal/stream/a.go", "package stream\n// T is.\ntype T struct{}\nfunc (*T) M() {}", "M is exported"},
		{"exported names are documented", "internal/stream/a.go", `package stream; type t struct{}; func (t) M() {}`, ""},
		{"exported names are documented", "internal/stream/a.go", "package stream\n// The kinds.\nconst (\n\tA = 1\n\tB = 2\n)", ""},
		{"packages are documented and well named", "internal/stream/a.go", `package stream`, "has no comment"},
		{"packages are documented and well named", "internal/util/a.go", "// Package util is.\npackage util", "says nothing"},
		{"no bool parameters", "internal/stream/a.go", `package stream; func Stop(hard bool) {}`, "Stop takes a bool"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			path := filepath.Join(root, filepath.FromSlash(tc.path))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tc.code), 0o600); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(rules(), func(r rule) bool { return r.name == tc.rule })
			if i < 0 {
				t.Fatalf("there is no rule %q", tc.rule)
			}
			broken := strings.Join(rules()[i].check(sources(t, root)), "\n")
			if tc.finds == "" && broken != "" || !strings.Contains(broken, tc.finds) {
				t.Errorf("%s\nfound %q, want %q", tc.code, broken, tc.finds)
			}
		})
	}
}
