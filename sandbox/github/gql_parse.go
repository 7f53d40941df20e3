package github

// document is a parsed query document.
type document struct {
	operations []*operation
	fragments  map[string]*fragment
}

type operation struct {
	kind, name string
	variables  []variable
	selections []*selection
}

type fragment struct {
	on         string
	selections []*selection
}

type variable struct {
	name  string
	typ   typeRef
	given *value // the default; nil: none
	at    token
}

// selection is a field, a spread of a fragment (spread is its name) or an inline one.
type selection struct {
	alias, name string
	args        []argument
	directives  []directive
	selections  []*selection
	spread, on  string
	inline      bool
	at          token
}

// key is under which name a field is in the answer.
func (s *selection) key() string {
	if s.alias != "" {
		return s.alias
	}
	return s.name
}

type argument struct {
	name  string
	value value
	at    token
}

type directive struct {
	name string
	args []argument
	at   token
}

// value is a literal: kind is VARIABLE, INT, FLOAT, STRING, ENUM, BOOLEAN, NULL, LIST or
// OBJECT.
type value struct {
	kind, text string
	list       []value
	members    []argument
}

// typeRef is a type as it is referred to.
type typeRef struct {
	name     string
	list     *typeRef
	required bool
}

func (t typeRef) String() string {
	text := t.name
	if t.list != nil {
		text = "[" + t.list.String() + "]"
	}
	if t.required {
		text += "!"
	}
	return text
}

// named is the type at the bottom of lists.
func (t typeRef) named() string {
	for t.list != nil {
		t = *t.list
	}
	return t.name
}

func parseQuery(text string) (*document, *gqlError) {
	l := lex(text)
	d := &document{fragments: map[string]*fragment{}}
	for l.err == nil && l.tok.kind != "EOF" {
		switch {
		case l.tok.kind == "{":
			d.operations = append(d.operations, &operation{kind: "query", selections: l.selectionSet()})
		case l.word("fragment"):
			name := l.take("NAME")
			if !l.word("on") {
				l.unexpected()
			}
			d.fragments[name] = &fragment{on: l.take("NAME"), selections: l.selectionSet()}
		case l.tok.text == "query", l.tok.text == "mutation":
			d.operations = append(d.operations, l.operation())
		default:
			l.unexpected()
		}
	}
	if l.err == nil && len(d.operations) == 0 {
		l.unexpected()
	}
	return d, l.err
}

func (l *lexer) operation() *operation {
	o := &operation{kind: l.take("NAME")}
	if l.tok.kind == "NAME" {
		o.name = l.take("NAME")
	}
	if l.may("(") {
		for l.err == nil && !l.may(")") {
			v := variable{at: l.tok}
			l.take("$")
			v.name = l.take("NAME")
			l.take(":")
			v.typ = l.typeRef()
			if l.may("=") {
				given := l.value()
				v.given = &given
			}
			o.variables = append(o.variables, v)
		}
	}
	l.directives()
	o.selections = l.selectionSet()
	return o
}

func (l *lexer) typeRef() typeRef {
	var t typeRef
	if l.may("[") {
		inner := l.typeRef()
		t.list = &inner
		l.take("]")
	} else {
		t.name = l.take("NAME")
	}
	t.required = l.may("!")
	return t
}

func (l *lexer) selectionSet() []*selection {
	var out []*selection
	l.take("{")
	for l.err == nil && !l.may("}") {
		out = append(out, l.selection())
	}
	if l.err == nil && len(out) == 0 {
		l.unexpected()
	}
	return out
}

func (l *lexer) selection() *selection {
	s := &selection{at: l.tok}
	if l.may("...") {
		if l.tok.kind == "NAME" && l.tok.text != "on" {
			s.spread = l.take("NAME")
			s.directives = l.directives()
			return s
		}
		s.inline = true
		if l.word("on") {
			s.on = l.take("NAME")
		}
		s.directives = l.directives()
		s.selections = l.selectionSet()
		return s
	}
	s.name = l.take("NAME")
	if l.may(":") {
		s.alias, s.name = s.name, l.take("NAME")
	}
	s.args = l.arguments()
	s.directives = l.directives()
	if l.tok.kind == "{" {
		s.selections = l.selectionSet()
	}
	return s
}

func (l *lexer) arguments() []argument {
	var out []argument
	if !l.may("(") {
		return nil
	}
	for l.err == nil && !l.may(")") {
		a := argument{at: l.tok, name: l.take("NAME")}
		l.take(":")
		a.value = l.value()
		out = append(out, a)
	}
	return out
}

func (l *lexer) directives() []directive {
	var out []directive
	for l.err == nil && l.tok.kind == "@" {
		d := directive{at: l.tok}
		l.advance()
		d.name = l.take("NAME")
		d.args = l.arguments()
		out = append(out, d)
	}
	return out
}

func (l *lexer) value() value {
	switch l.tok.kind {
	case "$":
		l.advance()
		return value{kind: "VARIABLE", text: l.take("NAME")}
	case "INT", "FLOAT", "STRING":
		kind := l.tok.kind
		return value{kind: kind, text: l.take(kind)}
	case "NAME":
		switch text := l.take("NAME"); text {
		case "true", "false":
			return value{kind: "BOOLEAN", text: text}
		case "null":
			return value{kind: "NULL"}
		default:
			return value{kind: "ENUM", text: text}
		}
	case "[":
		v := value{kind: "LIST"}
		l.advance()
		for l.err == nil && !l.may("]") {
			v.list = append(v.list, l.value())
		}
		return v
	case "{":
		v := value{kind: "OBJECT"}
		l.advance()
		for l.err == nil && !l.may("}") {
			a := argument{at: l.tok, name: l.take("NAME")}
			l.take(":")
			a.value = l.value()
			v.members = append(v.members, a)
		}
		return v
	}
	l.unexpected()
	return value{}
}
