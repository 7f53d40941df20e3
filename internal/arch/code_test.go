package arch_test

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

func checkSizes(all []source) (broken []string) {
	for _, s := range all {
		if s.lines > longestFile {
			broken = append(broken, say("%s: %d lines, at most %d: split it by the nouns or verbs it holds", s.path, s.lines, longestFile))
		}
	}
	each(all, everything, func(s source, d ast.Decl) {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			return
		}
		lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
		if lines > longestFunction {
			broken = append(broken, say("%s: func %s has %d lines, at most %d: take a level of work out of it", s.at(f.Pos()), f.Name.Name, lines, longestFunction))
		}
	})
	return broken
}

func checkInit(all []source) (broken []string) {
	each(all, everything, func(s source, d ast.Decl) {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			broken = append(broken, say("%s: func init: start-up code that nobody calls cannot be followed; call it where it is needed, or list the parts explicitly", s.at(f.Pos())))
		}
	})
	return broken
}

func checkState(all []source) (broken []string) {
	allowed := state()
	each(all, production, func(s source, d ast.Decl) {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			return
		}
		for _, spec := range g.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok || immutable(v) {
				continue
			}
			for _, name := range v.Names {
				if allowed[s.path+" "+name.Name] == "" {
					broken = append(broken, say("%s: package-level var %s: two engines run in one process and would share it; make it a constant, a field, or a function that returns it", s.at(name.Pos()), name.Name))
				}
			}
		}
	})
	return broken
}

// immutable says whether a variable is an interface check, embedded files, an error,
// or made by one of the constructors: a variable by the language, a constant by use.
func immutable(v *ast.ValueSpec) bool {
	if len(v.Names) == 1 && v.Names[0].Name == "_" {
		return true
	}
	if v.Type != nil && exprName(v.Type) != "error" {
		return exprName(v.Type) == "embed.FS"
	}
	if v.Type != nil {
		return strings.HasPrefix(strings.ToLower(v.Names[0].Name), "err") && len(v.Values) > 0
	}
	return len(v.Values) == len(v.Names) && !slices.ContainsFunc(v.Values, func(e ast.Expr) bool {
		call, ok := e.(*ast.CallExpr)
		return !ok || !slices.Contains(constructors(), exprName(call.Fun))
	})
}

// exprName returns name or package.name of an expression that is one.
func exprName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return exprName(e.X) + "." + e.Sel.Name
	}
	return ""
}

// calls calls f for each call in a function of the file.
func calls(s source, f func(in, name string, at string)) {
	for _, d := range s.file.Decls {
		in := ""
		if fn, ok := d.(*ast.FuncDecl); ok {
			in = fn.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				f(in, exprName(c.Fun), s.at(c.Pos()))
			}
			return true
		})
	}
}

func checkCalls(all []source) (broken []string) {
	for _, s := range all {
		if !outsideCmd(s) {
			continue
		}
		calls(s, func(in, name, at string) {
			switch {
			case name == "os.Exit" && exits()[s.path+" "+in] == "":
				broken = append(broken, say("%s: os.Exit belongs to cmd: return an error", at))
			case name == "fmt.Print" || name == "fmt.Printf" || name == "fmt.Println":
				broken = append(broken, say("%s: %s belongs to cmd: take an io.Writer or a *slog.Logger", at, name))
			case strings.HasPrefix(name, "slog.") && slices.Contains([]string{"slog.Info", "slog.Warn", "slog.Error", "slog.Debug", "slog.SetDefault"}, name):
				broken = append(broken, say("%s: %s uses the process' logger: take a *slog.Logger and use its …Context methods", at, name))
			}
		})
	}
	return broken
}

// checkSleep lets files that use synctest sleep: time in its bubbles takes no time.
func checkSleep(all []source) (broken []string) {
	for _, s := range all {
		bubble := false
		imports(s, func(_, path string) { bubble = bubble || path == "testing/synctest" })
		if !s.test || bubble {
			continue
		}
		calls(s, func(_, name, at string) {
			if name == "time.Sleep" {
				broken = append(broken, say("%s: time.Sleep in a test: wait for the condition (pgtest.Eventually, a channel), or use synctest", at))
			}
		})
	}
	return broken
}

func checkBools(all []source) (broken []string) {
	each(all, production, func(s source, d ast.Decl) {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Type.Params == nil {
			return
		}
		for _, p := range f.Type.Params.List {
			if exprName(p.Type) == "bool" && ast.IsExported(f.Name.Name) {
				broken = append(broken, say("%s: %s takes a bool: nobody can read Stop(true); make two functions, or a named type", s.at(p.Pos()), f.Name.Name))
			}
		}
	})
	return broken
}
