package stripe

import (
	"sort"
	"strconv"
	"strings"

	"lockstep/sandbox"
)

// bulk is any number of objects that take no memory: each is made out of its number,
// whenever somebody asks for it. They are older than everything else in the account,
// and older than the events.
type bulk struct {
	kind     *kind
	seed     sandbox.Seed
	n        uint64
	from     int64 // created of the first
	span     int64 // seconds to the last
	template *sandbox.Template
	// values returns what the template's slots hold in one object, besides id and created.
	values func(n uint64) func(slot string) string
}

func (b *bulk) size() int {
	if b == nil {
		return 0
	}
	return int(b.n)
}

func (b *bulk) id(n uint64) string {
	return b.kind.prefix + b.seed.Code(b.kind.name, n, b.kind.length)
}

// number returns which object of the bulk an id is.
func (b *bulk) number(id string) (uint64, bool) {
	if b == nil || len(id) != len(b.kind.prefix)+b.kind.length {
		return 0, false
	}
	n, ok := b.seed.Number(b.kind.name, id[len(b.kind.prefix):])
	return n, ok && n < b.n
}

func (b *bulk) created(n uint64) int64 {
	if b.n < 2 {
		return b.from
	}
	return b.from + int64(float64(n)/float64(b.n-1)*float64(b.span))
}

// since returns the number of the first object created at or after t.
func (b *bulk) since(t int64) uint64 {
	return uint64(sort.Search(b.size(), func(i int) bool { return b.created(uint64(i)) >= t }))
}

func (b *bulk) row(n uint64) *row {
	return &row{kind: b.kind, id: b.id(n), seq: n, created: b.created(n), bulk: b}
}

// body appends the object's JSON.
func (b *bulk) body(dst []byte, n uint64) []byte {
	values := b.values(n)
	return b.template.Append(dst, func(dst []byte, slot string) []byte {
		switch slot {
		case "id":
			return sandbox.AppendString(dst, b.id(n))
		case "created":
			return strconv.AppendInt(dst, b.created(n), 10)
		}
		return sandbox.AppendString(dst, values(slot))
	})
}

// bulkCustomers makes n customers, created between two times.
func (s *Sandbox) bulkCustomers(n int, from, to int64) *bulk {
	d := s.newCustomer()
	for _, slot := range []string{"id", "created", "name", "email", "phone", "invoice_prefix"} {
		d[slot] = "{{" + slot + "}}"
	}
	d["address"] = doc{"line1": "{{line1}}", "line2": nil, "city": "{{city}}", "state": nil, "postal_code": "{{postal_code}}", "country": "{{country}}"}
	d["metadata"] = doc{"plan": "{{plan}}", "number": "{{number}}"}
	b := &bulk{kind: s.tables["customer"].kind, seed: s.options.Seed, n: uint64(n), from: from, span: to - from, template: sandbox.NewTemplate(d)}
	b.values = func(n uint64) func(string) string {
		dice := b.seed.Dice(b.kind.name, n)
		p, plan := dice.Person(n), dice.Pick("free", "basic", "pro")
		prefix := strings.ToUpper(dice.Text(8))
		return func(slot string) string {
			switch slot {
			case "name":
				return p.First + " " + p.Last
			case "email":
				return p.Email
			case "phone":
				return p.Phone
			case "line1":
				return p.Street
			case "city":
				return p.City
			case "postal_code":
				return p.Postcode
			case "country":
				return p.Country
			case "plan":
				return plan
			case "invoice_prefix":
				return prefix
			}
			return strconv.FormatUint(n, 10) // number
		}
	}
	return b
}
