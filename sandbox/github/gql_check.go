package github

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gqlError is an error in an answer of GraphQL.
type gqlError struct {
	Kind         string // type: NOT_FOUND and the like
	Message      string
	Path         []any
	Extensions   doc
	line, column int
}

func (e *gqlError) doc() doc {
	d := doc{"message": e.Message}
	if e.Kind != "" {
		d["type"] = e.Kind
	}
	if e.Path != nil {
		d["path"] = e.Path
	}
	if e.Extensions != nil {
		d["extensions"] = e.Extensions
	}
	if e.line > 0 {
		d["locations"] = []any{doc{"line": int64(e.line), "column": int64(e.column)}}
	}
	return d
}

// planned is a field that was checked, with its arguments in Go's types.
type planned struct {
	key  string
	name string
	def  *fieldDef // nil: __typename
	args doc
	on   string // the type that it is asked of
	sub  []*planned
	at   token
}

// checker checks an operation against the schema.
type checker struct {
	s      *schema
	d      *document
	vars   doc
	types  map[string]typeRef // of the variables
	used   map[string]bool
	errs   []*gqlError
	depth  int
	nodes  int64 // that may be returned at most
	points int64 // requests that would be needed to fetch them
}

// deepest bounds nesting, and with it fragments that contain themselves.
const deepest = 40

// mostNodes is how many nodes one query may ask for.
const mostNodes = 500_000

func (c *checker) wrong(at token, path []any, message string, extensions doc) {
	c.errs = append(c.errs, &gqlError{Message: message, Path: path, Extensions: extensions, line: at.line, column: at.column})
}

// plan checks an operation and returns what to execute.
func (c *checker) plan(o *operation, given doc) []*planned {
	c.types, c.used, c.vars = map[string]typeRef{}, map[string]bool{}, doc{}
	title := o.kind + optionalName(o.name)
	for _, v := range o.variables {
		c.types[v.name] = v.typ
		t := c.s.types[v.typ.named()]
		if t == nil || t.composite() {
			c.wrong(v.at, []any{title}, fmt.Sprintf("%s isn't a defined input type (on $%s)", v.typ.named(), v.name), doc{"code": "variableRequiresValidType", "typeName": v.typ.named(), "variableName": v.name})
			continue
		}
		raw, there := given[v.name]
		if !there && v.given != nil {
			c.vars[v.name] = c.literal(v.at, []any{title}, v.typ, *v.given)
			continue
		}
		if !there && !v.typ.required {
			continue
		}
		coerced, problem := c.variable(v.typ, raw)
		if problem != "" {
			c.wrong(v.at, nil, fmt.Sprintf("Variable $%s of type %s was provided invalid value", v.name, v.typ), doc{"value": raw, "problems": []any{doc{"path": []any{}, "explanation": problem}}})
			continue
		}
		c.vars[v.name] = coerced
	}
	root := map[string]string{"query": "Query", "mutation": "Mutation"}[o.kind]
	out := c.selections(o.selections, root, []any{title}, 1)
	for _, v := range o.variables {
		if !c.used[v.name] {
			c.wrong(v.at, []any{title}, fmt.Sprintf("Variable $%s is declared by %s but not used", v.name, strings.TrimSpace(o.name+" "+anonymous(o.name))), doc{"code": "variableNotUsed", "variableName": v.name})
		}
	}
	if c.nodes > mostNodes {
		c.errs = append(c.errs, &gqlError{Kind: "MAX_NODE_LIMIT_EXCEEDED", Message: fmt.Sprintf("This query requests up to %d possible nodes which exceeds the maximum limit of %d.", c.nodes, mostNodes)})
	}
	return out
}

func optionalName(name string) string {
	if name == "" {
		return ""
	}
	return " " + name
}

func anonymous(name string) string {
	if name == "" {
		return "anonymous query"
	}
	return ""
}

// cost is what the query costs of the limit.
func (c *checker) cost() float64 { return max(1, math.Round(float64(c.points)/100)) }

func (c *checker) selections(list []*selection, on string, path []any, times int64) []*planned {
	if c.depth++; c.depth > deepest {
		c.wrong(list[0].at, path, "Query has depth of more than 40, which exceeds max depth", nil)
	}
	defer func() { c.depth-- }()
	var out []*planned
	for _, s := range list {
		if c.depth > deepest || !c.wanted(s, path) {
			continue
		}
		switch {
		case s.spread != "":
			f := c.d.fragments[s.spread]
			if f == nil {
				c.wrong(s.at, path, fmt.Sprintf("Fragment %s was used, but not defined", s.spread), doc{"code": "useAndDefineFragment", "fragmentName": s.spread})
				continue
			}
			out = append(out, c.fragment(s, f.on, f.selections, on, path, times)...)
		case s.inline:
			out = append(out, c.fragment(s, s.on, s.selections, on, path, times)...)
		default:
			if p := c.field(s, on, append(slices.Clone(path), s.key()), times); p != nil {
				out = append(out, p)
			}
		}
	}
	return c.merge(out, path)
}

// merge makes one of fields under one key; they must be the same field.
func (c *checker) merge(list []*planned, path []any) []*planned {
	var out []*planned
	for _, p := range list {
		i := slices.IndexFunc(out, func(x *planned) bool { return x.key == p.key && x.on == p.on })
		if i < 0 {
			out = append(out, p)
			continue
		}
		have := out[i]
		if have.name != p.name || fmt.Sprint(have.args) != fmt.Sprint(p.args) {
			c.wrong(p.at, path, fmt.Sprintf("Field '%s' has a field conflict: %s or %s?", p.key, have.name, p.name), doc{"code": "fieldConflict", "fieldName": p.key})
			continue
		}
		have.sub = c.merge(append(have.sub, p.sub...), path)
	}
	return out
}

func (c *checker) fragment(s *selection, of string, list []*selection, on string, path []any, times int64) []*planned {
	if of == "" {
		of = on
	}
	if t := c.s.types[of]; t == nil || !t.composite() {
		c.wrong(s.at, path, fmt.Sprintf("No such type %s, so it can't be a fragment condition", of), doc{"code": "undefinedType", "typeName": of})
		return nil
	}
	if !c.s.overlaps(of, on) {
		c.wrong(s.at, path, fmt.Sprintf("Fragment on %s can't be spread inside %s", of, on), doc{"code": "cannotSpreadFragment", "typeName": of})
		return nil
	}
	return c.selections(list, of, append(slices.Clone(path), "... on "+of), times)
}

// wanted obeys @include and @skip.
func (c *checker) wanted(s *selection, path []any) bool {
	for _, d := range s.directives {
		if d.name != "include" && d.name != "skip" {
			c.wrong(d.at, path, fmt.Sprintf("Directive @%s is not defined", d.name), doc{"code": "undefinedDirective", "directiveName": d.name})
			continue
		}
		if len(d.args) != 1 || d.args[0].name != "if" {
			c.wrong(d.at, path, fmt.Sprintf("Directive '%s' is missing required arguments: if", d.name), doc{"code": "missingRequiredArguments"})
			continue
		}
		yes := c.literal(d.at, path, typeRef{name: "Boolean", required: true}, d.args[0].value)
		if yes == (d.name == "skip") {
			return false
		}
	}
	return true
}

func (c *checker) field(s *selection, on string, path []any, times int64) *planned {
	t := c.s.types[on]
	if s.name == "__typename" {
		return &planned{key: s.key(), name: s.name, on: on, at: s.at}
	}
	def := t.fields[s.name]
	if def == nil {
		c.wrong(s.at, path, fmt.Sprintf("Field '%s' doesn't exist on type '%s'", s.name, on), doc{"code": "undefinedField", "typeName": on, "fieldName": s.name})
		return nil
	}
	p := &planned{key: s.key(), name: s.name, def: def, on: on, at: s.at}
	p.args = c.arguments(s.at, path, "Field", s.name, def.args, s.args)
	below := c.s.types[def.typ.named()]
	switch {
	case !below.composite() && s.selections != nil:
		c.wrong(s.at, path, fmt.Sprintf("Selections can't be made on scalars (field '%s' returns %s but has selections)", s.name, below.name), doc{"code": "selectionMismatch", "nodeName": s.name})
		return nil
	case below.composite() && s.selections == nil:
		c.wrong(s.at, path, fmt.Sprintf("Field must have selections (field '%s' returns %s but has no selections. Did you mean '%s { ... }'?)", s.name, below.name, s.name), doc{"code": "selectionMismatch", "nodeName": s.name})
		return nil
	case !below.composite():
		return p
	}
	if def.arg("first") != nil {
		times = c.connection(s, p, path, times)
	}
	p.sub = c.selections(s.selections, below.name, path, times)
	return p
}

// connection checks that a list is bounded, and counts what it costs.
func (c *checker) connection(s *selection, p *planned, path []any, times int64) int64 {
	n, name := int64(0), "first"
	for _, bound := range []string{"last", "first"} {
		if v, ok := p.args[bound].(int64); ok {
			n, name = v, bound
		}
	}
	fail := func(kind, message string) {
		c.errs = append(c.errs, &gqlError{Kind: kind, Message: message, Path: path[1:], line: s.at.line, column: s.at.column})
	}
	switch {
	case p.args["first"] == nil && p.args["last"] == nil:
		fail("MISSING_PAGINATION_BOUNDARIES", fmt.Sprintf("You must provide a `first` or `last` value to properly paginate the `%s` connection.", s.name))
	case n > longestPage:
		fail("EXCESSIVE_PAGINATION", fmt.Sprintf("Requesting %d records on the `%s` connection exceeds the `%s` limit of 100 records.", n, s.name, name))
	case n < 0:
		fail("ARGUMENT_LIMIT", fmt.Sprintf("`%s` on the `%s` connection cannot be less than zero.", name, s.name))
	}
	c.points += times
	times *= max(n, 1)
	c.nodes += times
	return times
}

func (c *checker) arguments(at token, path []any, what, name string, defs []*fieldDef, given []argument) doc {
	out := doc{}
	var missing []string
	for _, a := range given {
		i := slices.IndexFunc(defs, func(d *fieldDef) bool { return d.name == a.name })
		if i < 0 {
			c.wrong(a.at, append(slices.Clone(path), a.name), fmt.Sprintf("%s '%s' doesn't accept argument '%s'", what, name, a.name), doc{"code": "argumentNotAccepted", "name": name, "typeName": what, "argumentName": a.name})
			continue
		}
		if a.value.kind == "VARIABLE" && !c.known(a, path, defs[i]) {
			continue
		}
		out[a.name] = c.literal(a.at, append(slices.Clone(path), a.name), defs[i].typ, a.value)
	}
	for _, d := range defs {
		if _, ok := out[d.name]; ok {
			continue
		}
		switch asked := slices.ContainsFunc(given, func(a argument) bool { return a.name == d.name }); {
		case d.given != nil:
			out[d.name] = c.literal(at, path, d.typ, *d.given)
		case d.typ.required && !asked:
			missing = append(missing, d.name)
		}
	}
	if missing != nil {
		c.wrong(at, path, fmt.Sprintf("%s '%s' is missing required arguments: %s", what, name, strings.Join(missing, ", ")), doc{"code": "missingRequiredArguments", "className": what, "name": name, "arguments": strings.Join(missing, ", ")})
	}
	return out
}

// known checks that a variable is declared, of a type that fits; one that was not given
// leaves its argument out.
func (c *checker) known(a argument, path []any, d *fieldDef) bool {
	name := a.value.text
	t, ok := c.types[name]
	c.used[name] = true
	if !ok {
		c.wrong(a.at, path, fmt.Sprintf("Variable $%s is used by %s but not declared", name, path[0]), doc{"code": "variableNotDefined", "variableName": name})
		return false
	}
	if t.named() != d.typ.named() || (t.list == nil) != (d.typ.list == nil) && t.list != nil || d.typ.required && !t.required && c.vars[name] == nil && d.given == nil {
		c.wrong(a.at, path, fmt.Sprintf("Type mismatch on variable $%s and argument %s (%s / %s)", name, a.name, t, d.typ), doc{"code": "variableMismatch", "variableName": name, "typeName": t.String(), "argumentName": a.name})
		return false
	}
	_, given := c.vars[name]
	return given
}

// literal turns a value in the query into Go's.
func (c *checker) literal(at token, path []any, t typeRef, v value) any {
	if v.kind == "VARIABLE" {
		c.used[v.text] = true
		return c.vars[v.text]
	}
	if v.kind == "LIST" || t.list != nil {
		inner, list := t, []value{v}
		if t.list != nil {
			inner = *t.list
		}
		if v.kind == "LIST" {
			list = v.list
		}
		out := make([]any, 0, len(list))
		for _, one := range list {
			out = append(out, c.literal(at, path, inner, one))
		}
		return out
	}
	def := c.s.types[t.name]
	if v.kind == "OBJECT" && def.kind == "input" {
		defs := make([]*fieldDef, 0, len(def.fields))
		for _, f := range def.fields {
			defs = append(defs, f)
		}
		return c.arguments(at, path, "InputObject", t.name, defs, v.members)
	}
	raw, ok := v.plain(def)
	var coerced any
	problem := "a literal of another kind"
	if ok {
		coerced, problem = c.variable(t, raw)
	}
	if problem != "" {
		c.wrong(at, path, fmt.Sprintf("Argument '%v' on '%v' has an invalid value (%s). Expected type '%s'.", path[len(path)-1], path[max(0, len(path)-2)], v.text, t), doc{"code": "argumentLiteralsIncompatible"})
	}
	return coerced
}

// plain is a literal as JSON would have it; false when a literal of that kind cannot be
// of the type.
func (v value) plain(t *typeDef) (any, bool) {
	switch v.kind {
	case "NULL":
		return nil, true
	case "INT", "FLOAT":
		return json.Number(v.text), t.kind == "scalar" && t.name != "String" && t.name != "Boolean"
	case "BOOLEAN":
		return v.text == "true", t.name == "Boolean"
	case "ENUM":
		return v.text, t.kind == "enum"
	case "STRING":
		return v.text, t.kind == "scalar"
	}
	return nil, false
}

// variable turns a value in JSON into Go's: int64, string, bool, []any, doc. It says
// what is wrong with it, or nothing.
func (c *checker) variable(t typeRef, raw any) (any, string) {
	if raw == nil {
		if t.required {
			return nil, "Expected value to not be null"
		}
		return nil, ""
	}
	if t.list != nil {
		list, ok := raw.([]any)
		if !ok {
			list = []any{raw}
		}
		out := make([]any, 0, len(list))
		for _, one := range list {
			v, problem := c.variable(*t.list, one)
			if problem != "" {
				return nil, problem
			}
			out = append(out, v)
		}
		return out, ""
	}
	def := c.s.types[t.name]
	switch def.kind {
	case "enum":
		if text, ok := raw.(string); ok && slices.Contains(def.values, text) {
			return text, ""
		}
		return nil, fmt.Sprintf("Expected %q to be one of: %s", fmt.Sprint(raw), strings.Join(def.values, ", "))
	case "input":
		return c.input(def, raw)
	}
	return scalar(t.name, raw)
}

func (c *checker) input(def *typeDef, raw any) (any, string) {
	given, ok := raw.(doc)
	if !ok {
		return nil, fmt.Sprintf("Expected %v to be a key-value object.", raw)
	}
	out := doc{}
	for name, v := range given {
		f := def.fields[name]
		if f == nil {
			return nil, "Field is not defined on " + def.name
		}
		coerced, problem := c.variable(f.typ, v)
		if problem != "" {
			return nil, problem
		}
		out[name] = coerced
	}
	for name, f := range def.fields {
		if _, ok := out[name]; !ok && f.typ.required {
			return nil, "Expected value to not be null"
		}
	}
	return out, ""
}

func scalar(name string, raw any) (any, string) {
	problem := fmt.Sprintf("Could not coerce value %v to %s", raw, name)
	switch raw := raw.(type) {
	case json.Number:
		n, err := strconv.ParseInt(raw.String(), 10, 64)
		switch {
		case name == "ID" && err == nil:
			return raw.String(), ""
		case name == "Int" && err == nil && n >= math.MinInt32 && n <= math.MaxInt32:
			return n, ""
		}
	case bool:
		if name == "Boolean" {
			return raw, ""
		}
	case string:
		if name == "DateTime" {
			t, err := time.Parse(time.RFC3339, raw)
			if err != nil {
				return nil, problem
			}
			return t, ""
		}
		if name != "Int" && name != "Boolean" && name != "Float" {
			return raw, ""
		}
	}
	return nil, problem
}
