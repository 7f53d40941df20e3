package arch_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// imports calls f with the path of each import.
func imports(s source, f func(at, path string)) {
	for _, i := range s.file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue // the parser has checked it
		}
		f(s.at(i.Pos()), path)
	}
}

// ours returns the folder of a package of this module.
func ours(path string) (folder string, ok bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

func checkBorders(all []source) (broken []string) {
	table := borders()
	for _, s := range all {
		if s.test {
			continue
		}
		border, known := borderOf(table, s.folder)
		if !known {
			broken = append(broken, say("%s: folder %s is not in the table of borders: add it to internal/arch/rules_test.go, with what it may import", s.path, s.folder))
			continue
		}
		imports(s, func(at, path string) {
			target, mine := ours(path)
			switch {
			case !mine && s.folder == "" && strings.Contains(strings.Split(path, "/")[0], "."):
				broken = append(broken, say("%s: the root package imports %s: it is the vocabulary and imports the standard library only; move the code to the package that needs it", at, path))
			case mine && slices.Contains(testOnly(), target) && !within(s.folder, target):
				broken = append(broken, say("%s: %s is for tests only", at, path))
			case mine && !mayImport(border, table[border], target):
				broken = append(broken, say("%s: %s may not import %s (it may: the root%s): declare the interface you need in your own package and let engine connect the two; "+
					"or move the border in internal/arch/rules_test.go and say why in docs/decisions", at, s.folder, target, list(table[border])))
			}
		})
	}
	return broken
}

// borderOf returns the longest entry of the table that the folder is in.
func borderOf(table map[string][]string, folder string) (string, bool) {
	best, found := "", folder == ""
	for _, entry := range slices.Sorted(maps.Keys(table)) {
		if entry != "" && within(folder, entry) && len(entry) > len(best) {
			best, found = entry, true
		}
	}
	return best, found
}

func mayImport(border string, allowed []string, target string) bool {
	if target == "" || border != "" && within(target, border) {
		return true
	}
	return slices.ContainsFunc(allowed, func(a string) bool { return within(target, a) })
}

func list(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ", " + strings.Join(names, ", ")
}

func checkOwners(all []source) (broken []string) {
	table := owners()
	for _, s := range all {
		if s.test || within(s.folder, "internal/pgdb/pgtest") {
			continue
		}
		imports(s, func(at, path string) {
			for prefix, folders := range table {
				if !strings.HasPrefix(path, prefix) || slices.ContainsFunc(folders, func(f string) bool { return within(s.folder, f) }) {
					continue
				}
				owner := "tests"
				if len(folders) > 0 {
					owner = strings.Join(folders, " and ")
				}
				broken = append(broken, say("%s: %s is for %s only: ask that package for what you need", at, path, owner))
			}
		})
	}
	return broken
}

func checkProcess(all []source) (broken []string) {
	for _, s := range all {
		if !outsideCmd(s) {
			continue
		}
		imports(s, func(at, path string) {
			if path == "log" || path == "flag" {
				broken = append(broken, say("%s: package %s belongs to cmd: take a *slog.Logger or a Config", at, path))
			}
		})
	}
	return append(broken, checkCalls(all)...)
}
