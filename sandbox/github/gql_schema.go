package github

import (
	"embed"
	"fmt"
	"slices"
)

//go:embed schema.graphql
var files embed.FS

// schema is the part of GitHub's GraphQL schema that is simulated.
type schema struct{ types map[string]*typeDef }

// typeDef is a type; kind is type, interface, enum, input or scalar.
type typeDef struct {
	kind, name string
	above      []string // interfaces that it implements
	fields     map[string]*fieldDef
	values     []string // of an enum
}

// fieldDef is a field with its arguments, or an argument or input field.
type fieldDef struct {
	name  string
	typ   typeRef
	args  []*fieldDef
	given *value // the default of an argument
}

func loadSchema() (*schema, error) {
	text, err := files.ReadFile("schema.graphql")
	if err != nil {
		return nil, fmt.Errorf("github sandbox: the schema: %w", err)
	}
	l := lex(string(text))
	s := &schema{types: map[string]*typeDef{}}
	for _, name := range []string{"Int", "Float", "String", "Boolean", "ID"} {
		s.types[name] = &typeDef{kind: "scalar", name: name}
	}
	for l.err == nil && l.tok.kind != "EOF" {
		t := &typeDef{kind: l.take("NAME"), name: l.take("NAME"), fields: map[string]*fieldDef{}}
		s.types[t.name] = t
		switch t.kind {
		case "scalar":
		case "enum":
			l.take("{")
			for l.err == nil && !l.may("}") {
				t.values = append(t.values, l.take("NAME"))
			}
		default:
			l.body(t)
		}
	}
	if l.err != nil {
		return nil, fmt.Errorf("github sandbox: the schema: %s", l.err.Message)
	}
	return s, nil
}

func (l *lexer) body(t *typeDef) {
	if l.word("implements") {
		for more := true; more && l.err == nil; more = l.may("&") {
			t.above = append(t.above, l.take("NAME"))
		}
	}
	l.take("{")
	for l.err == nil && !l.may("}") {
		f := l.field()
		t.fields[f.name] = f
	}
}

func (l *lexer) field() *fieldDef {
	f := &fieldDef{name: l.take("NAME")}
	if l.may("(") {
		for l.err == nil && !l.may(")") {
			f.args = append(f.args, l.field())
		}
	}
	l.take(":")
	f.typ = l.typeRef()
	if l.may("=") {
		given := l.value()
		f.given = &given
	}
	return f
}

func (f *fieldDef) arg(name string) *fieldDef {
	for _, a := range f.args {
		if a.name == name {
			return a
		}
	}
	return nil
}

// is says whether an object of a type is one of another: itself or its interface.
func (s *schema) is(object, other string) bool {
	return object == other || s.types[object] != nil && slices.Contains(s.types[object].above, other)
}

// overlaps says whether an object can be of both types.
func (s *schema) overlaps(a, b string) bool {
	for name, t := range s.types {
		if t.kind == "type" && s.is(name, a) && s.is(name, b) {
			return true
		}
	}
	return false
}

func (t *typeDef) composite() bool { return t.kind == "type" || t.kind == "interface" }
