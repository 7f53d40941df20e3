package mirror

import (
	"cmp"
	"slices"
	"strings"

	"lockstep/source"
)

// mostColumns is how many columns of a table are ours at most. Postgres' limit is
// 1,600, dropped ones included for ever; the rest is left to users.
const mostColumns = 1550

// field is a column that a table should have.
type field struct {
	key, name string
	path      []string
	typ       source.Type
}

// declared returns the fields that a collection declares, without the id's.
func declared(c source.Collection) (fields []field) {
	for _, f := range c.Fields {
		path := cmp.Or(f.Path, f.Name)
		if f.Name == idColumn || path == "" {
			continue
		}
		name := cmp.Or(f.Name, snake(path))
		fields = append(fields, field{key: cmp.Or(f.Key, path), name: name, path: strings.Split(path, "."), typ: cmp.Or(f.Type, source.Text)})
	}
	return fields
}

// idTypeOf is the type of a collection's id: bigint where it says so, else text.
func idTypeOf(c source.Collection) string {
	for _, f := range c.Fields {
		if f.Name == idColumn && f.Type == source.Integer {
			return "bigint"
		}
	}
	return "text"
}

// relation is what Postgres has of a table.
type relation struct {
	exists  bool
	idType  string
	columns map[string]relationColumn
	used    int // columns, dropped ones included
}

type relationColumn struct{ typ, comment string }

// plan is what a table's columns shall be, and how they get there.
type plan struct {
	columns []column
	add     []column // those of columns that the table lacks
	changed []column // those whose note in sync_column must be written
	told    []string // for the log
}

// planColumns decides which field lies in which column. known are the columns so
// far, in the order in which they came. It is pure: the same answer in every engine.
func planColumns(rel relation, known []column, fields []field) plan {
	p := plan{columns: slices.Clone(known)}
	names := make([]string, len(known))
	for i, c := range p.columns {
		// What is declared now says which type is current; else the latest is.
		p.columns[i].current = !slices.ContainsFunc(p.columns[i+1:], func(o column) bool { return o.key == c.key })
	}
	touched := make([]bool, len(known))
	for _, f := range fields {
		i := slices.IndexFunc(p.columns, func(c column) bool { return c.key == f.key && c.typ == f.typ })
		for j := range p.columns {
			p.columns[j].current = p.columns[j].current && p.columns[j].key != f.key
		}
		if i < 0 {
			p.columns = append(p.columns, column{key: f.key, path: f.path, typ: f.typ, current: true})
			names, touched = append(names, f.name), append(touched, true)
			continue
		}
		p.columns[i].current = true
		if !slices.Equal(p.columns[i].path, f.path) {
			p.columns[i].path, p.columns[i].filled, p.columns[i].after, touched[i] = f.path, false, "", true
		}
	}
	for i := range p.columns {
		if p.place(rel, i, len(known), names[i]) || touched[i] {
			p.changed = append(p.changed, p.columns[i])
		}
	}
	return p
}

// place finds the column in the table, or gives it a name in it.
func (p *plan) place(rel relation, i, known int, wanted string) (changed bool) {
	c := &p.columns[i]
	if i < known && c.name == "" {
		return false // there was no room, and there never will be: columns do not end
	}
	there, ok := rel.columns[c.name]
	if ok && there.typ == sqlType(c.typ) && i < known {
		return false
	}
	if name, renamed := rel.find(c.comment(), sqlType(c.typ), p.taken(i)); renamed {
		if i < known {
			p.told = append(p.told, "column "+c.name+" is now called "+name)
		}
		c.name, c.filled = name, false
		return true
	}
	if rel.used+len(p.add) >= mostColumns {
		c.name = ""
		p.told = append(p.told, "no room for a column for "+strings.Join(c.path, ".")+": its values are in _raw only")
		return true
	}
	if i < known {
		p.told = append(p.told, "column "+c.name+" was dropped or changed, and is made again")
		wanted = c.name
	} else if base := p.base(i); base != "" {
		wanted = base + "__" + strings.NewReplacer(" ", "_", "[]", "_array").Replace(string(c.typ))
		p.told = append(p.told, "the type of "+strings.Join(c.path, ".")+" changed to "+string(c.typ))
	}
	mine := p.taken(i)
	c.name = fit(wanted, c.key+" "+string(c.typ), func(name string) bool {
		_, there := rel.columns[name]
		return there || reserved(name) || mine(name)
	})
	c.filled, c.after = !rel.exists, ""
	p.add = append(p.add, *c)
	return true
}

// taken says whether another of the columns has the name.
func (p *plan) taken(i int) func(string) bool {
	return func(name string) bool {
		for j, c := range p.columns {
			if j != i && c.name == name {
				return true
			}
		}
		return false
	}
}

// base is the name of the field's first column, if it has one of another type.
func (p *plan) base(i int) string {
	for j, c := range p.columns[:i] {
		if j != i && c.key == p.columns[i].key && c.name != "" {
			return c.name
		}
	}
	return ""
}

// find looks for a column that carries our comment, under whatever name.
func (r relation) find(comment, typ string, taken func(string) bool) (name string, ok bool) {
	for n, c := range r.columns {
		if c.comment == comment && c.typ == typ && !taken(n) {
			return n, true
		}
	}
	return "", false
}
