package arch_test

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
)

func checkDocs(all []source) (broken []string) {
	each(all, notMain, func(s source, d ast.Decl) {
		for _, name := range undocumented(d) {
			broken = append(broken, say("%s: %s is exported and has no comment: say what it promises, in which units, what it returns on errors, and whether it may be called concurrently", s.at(name.Pos()), name.Name))
		}
	})
	return broken
}

// undocumented returns the exported names that a declaration declares and no
// comment covers. The comment of a group covers its constants and variables.
func undocumented(d ast.Decl) (names []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			names = append(names, undocumentedSpec(d, spec)...)
		}
	}
	return names
}

func undocumentedSpec(d *ast.GenDecl, spec ast.Spec) (names []*ast.Ident) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Doc == nil && spec.Name.IsExported() && (d.Doc == nil || d.Lparen.IsValid()) {
			return []*ast.Ident{spec.Name}
		}
	case *ast.ValueSpec:
		if d.Tok == token.VAR || d.Tok == token.CONST {
			if d.Doc != nil || spec.Doc != nil || spec.Comment != nil {
				return nil
			}
		}
		for _, name := range spec.Names {
			if name.IsExported() {
				names = append(names, name)
			}
		}
	}
	return names
}

// exportedReceiver says whether a function is none's method or that of an exported type.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	t := f.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func checkPackages(all []source) (broken []string) {
	documented := map[string]bool{}
	for _, s := range all {
		if !production(s) {
			continue
		}
		documented[s.folder] = documented[s.folder] || s.file.Doc != nil
		if slices.Contains(vagueNames(), s.file.Name.Name) {
			broken = append(broken, say("%s: a package called %s says nothing about what is in it: name it for what it does", s.path, s.file.Name.Name))
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(documented)) {
		if !documented[folder] {
			broken = append(broken, say("%s: the package has no comment: say what it is for and what it guarantees, as numbered facts", folder))
		}
	}
	return broken
}
