package torture_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var caseName = regexp.MustCompile(`\bTest([WEX])(\d\d)[A-Z]\w+`)

// TestPageAndSuiteAgree: docs/torture.md lists each case that exists, under its
// number, and no other; W1 to W42 are all there.
func TestPageAndSuiteAgree(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "torture.md"))
	if err != nil {
		t.Fatal(err)
	}
	told, numbers := map[string]bool{}, map[string]bool{}
	for row := range strings.SplitSeq(string(page), "\n") {
		number, _, ok := strings.Cut(strings.TrimPrefix(row, "| "), " |")
		if !ok || !strings.HasPrefix(row, "| ") {
			continue
		}
		numbers[number] = true
		for _, m := range caseName.FindAllStringSubmatch(row, -1) {
			told[m[0]] = true
			if want := m[1] + strings.TrimPrefix(m[2], "0"); number != want {
				t.Errorf("%s stands in the row of %s", m[0], number)
			}
		}
	}
	for i := 1; i <= 42; i++ {
		if !numbers[fmt.Sprint("W", i)] {
			t.Errorf("the page has no row of W%d", i)
		}
	}
	suite := testsHere(t)
	for _, name := range slices.Sorted(maps.Keys(suite)) {
		if !told[name] {
			t.Errorf("%s is not in the page", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if !suite[name] {
			t.Errorf("the page has %s, which does not exist", name)
		}
	}
}

// testsHere returns the cases of the package, by their source.
func testsHere(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && caseName.MatchString(f.Name.Name) {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}
