// Package arch_test keeps the rules of the house: who may import whom, sizes, no
// hidden start-up code, no package-level state, no undocumented exports.
//
// It reads the sources with os.ReadFile and go/parser and starts no child process:
// the test cache knows only the files that the test itself opened, and would keep
// a run of go list green for ever.
package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "lockstep"

// source is one file of the module.
type source struct {
	path   string // from the module's root, with slashes
	folder string // "" is the root
	test   bool
	lines  int
	set    *token.FileSet
	file   *ast.File
}

// at formats a place in the file.
func (s source) at(p token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(p).Line)
}

// sources reads all Go files below root.
func sources(t *testing.T, root string) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && skipped(d.Name()) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		s, err := read(root, path)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func skipped(name string) bool {
	return strings.HasPrefix(name, ".") || slices.Contains([]string{"testdata", "node_modules", "vendor", "bin", "tools"}, name)
}

func read(root, path string) (source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return source{}, err
	}
	s := source{path: filepath.ToSlash(rel), set: token.NewFileSet()}
	s.folder = strings.TrimPrefix(filepath.ToSlash(filepath.Dir(rel)), ".")
	s.test = strings.HasSuffix(path, "_test.go")
	s.lines = strings.Count(string(text), "\n")
	s.file, err = parser.ParseFile(s.set, rel, text, parser.ParseComments|parser.SkipObjectResolution)
	return s, err
}

// rule is one rule of the house: it returns what breaks it, each with the place and
// what to do.
type rule struct {
	name  string
	check func([]source) []string
}

func rules() []rule {
	return []rule{
		{"imports stay within the borders", checkBorders},
		{"modules stay with their owners", checkOwners},
		{"files and functions are small", checkSizes},
		{"nothing runs before main", checkInit},
		{"no package-level state", checkState},
		{"no exit, log or print outside cmd", checkProcess},
		{"tests do not sleep", checkSleep},
		{"exported names are documented", checkDocs},
		{"packages are documented and well named", checkPackages},
		{"no bool parameters", checkBools},
	}
}

func TestTheHouseIsInOrder(t *testing.T) {
	t.Parallel()
	all := sources(t, filepath.Join("..", ".."))
	if len(all) < 10 {
		t.Fatalf("found %d source files only: the walk is broken", len(all))
	}
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, broken := range r.check(all) {
				t.Error(broken)
			}
		})
	}
}

// each calls f for every declaration of the files that keep is true for.
func each(all []source, keep func(source) bool, f func(source, ast.Decl)) {
	for _, s := range all {
		if !keep(s) {
			continue
		}
		for _, d := range s.file.Decls {
			f(s, d)
		}
	}
}

func everything(source) bool   { return true }
func production(s source) bool { return !s.test }
func notMain(s source) bool    { return !s.test && s.file.Name.Name != "main" }
func outsideCmd(s source) bool { return !s.test && !within(s.folder, "cmd") }
func within(path, folder string) bool {
	return folder == path || strings.HasPrefix(path, folder+"/")
}

func say(format string, args ...any) string { return fmt.Sprintf(format, args...) }
