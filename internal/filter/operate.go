package filter

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strings"
)

// truth returns v where true or false is needed: nil counts as false.
func truth(v any) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case nil:
		return false, nil
	}
	return false, fmt.Errorf("true or false is needed here, not %s", typeName(v))
}

// access returns v.key or v[key]; what is not there is nil.
func access(r *run, v, key any) (any, error) {
	switch key := key.(type) {
	case string:
		o, ok := v.(object)
		if !ok {
			return nil, nil
		}
		if err := r.look(o); err != nil {
			return nil, err
		}
		return o.get(key)
	case int:
		if kind := typeName(v); kind != "array" {
			return nil, nil
		}
		items, err := listOf(r, v)
		if err != nil {
			return nil, err
		}
		if key < 0 {
			key += len(items)
		}
		if key < 0 || key >= len(items) {
			return nil, nil
		}
		return items[key], nil
	}
	return nil, nil
}

// look pays for finding the members of an object.
func (r *run) look(o object) error {
	if o.parsed || o.raw == nil {
		return r.spend(len(o.members))
	}
	return r.spend(len(o.raw))
}

// listOf returns the elements of an array; nil is an empty one.
func listOf(r *run, v any) ([]any, error) {
	switch v := v.(type) {
	case nil:
		return []any{}, nil
	case []any:
		return v, nil
	case []int:
		return widen(v), r.spend(opWork * len(v))
	case array:
		if !v.parsed {
			if err := r.spend(len(v.raw)); err != nil {
				return nil, err
			}
		}
		return v.all()
	}
	return nil, fmt.Errorf("a list is needed here, not %s", typeName(v))
}

// slice returns v[from:to] of a list or of the characters of a string. Ends that
// are missing or out of range are those of v; negative ones count from the end.
func slice(r *run, v, from, to any) (any, error) {
	if v == nil {
		return nil, nil
	}
	if s, ok := v.(string); ok {
		if err := r.spend(len(s)); err != nil {
			return nil, err
		}
		runes := []rune(s)
		a, b, err := sliceEnds(len(runes), from, to)
		if err != nil {
			return nil, err
		}
		return string(runes[a:b]), nil
	}
	items, err := listOf(r, v)
	if err != nil {
		return nil, err
	}
	a, b, err := sliceEnds(len(items), from, to)
	return items[a:b:b], err
}

func sliceEnds(n int, from, to any) (a, b int, err error) {
	a, b = 0, n
	for _, end := range []struct {
		given any
		at    *int
	}{{from, &a}, {to, &b}} {
		if end.given == nil {
			continue
		}
		i, ok := end.given.(int)
		if !ok {
			return 0, 0, fmt.Errorf("a slice needs whole numbers, not %s", typeName(end.given))
		}
		if i < 0 {
			i += n
		}
		*end.at = min(max(i, 0), n)
	}
	return min(a, b), b, nil
}

// newObject makes an object of keys and values in turn.
func newObject(pairs []any) (any, error) {
	o := &doc{members: make([]member, 0, len(pairs)/2)}
	for i := 0; i+1 < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("the key of an object is a string, not %s", typeName(pairs[i]))
		}
		o.set(member{key: []byte(key), value: pairs[i+1], decoded: true})
	}
	return object{o}, nil
}

var (
	errNotNumber = errors.New("a string that is no number cannot be compared or calculated with a number")
	errDepth     = errors.New("the values nest too deeply")
)

// equal compares by value: numbers as numbers, also those in strings when the
// other side is a number, objects whatever the order of their members.
func equal(r *run, a, b any, depth int) (bool, error) {
	if depth == 0 {
		return false, errDepth
	}
	switch a := a.(type) {
	case nil:
		return b == nil, nil
	case bool:
		other, ok := b.(bool)
		return ok && a == other, nil
	case string:
		if other, ok := b.(string); ok {
			return a == other, r.spend(min(len(a), len(other)))
		}
	case int:
		if other, ok := b.(int); ok {
			return a == other, nil
		}
	case object:
		other, ok := b.(object)
		if !ok {
			return false, nil
		}
		return equalObjects(r, a, other, depth)
	}
	if typeName(a) == "array" {
		return equalLists(r, a, b, depth)
	}
	if typeName(a) == "string" && typeName(b) != "number" {
		return false, nil
	}
	x, aOK := decimalOf(a)
	y, bOK := decimalOf(b)
	if !aOK || !bOK {
		return false, nil
	}
	return x.compare(y) == 0, r.spend(len(x.int) + len(x.frac) + len(y.int) + len(y.frac))
}

func equalObjects(r *run, a, b object, depth int) (bool, error) {
	if err := errors.Join(r.look(a), r.look(b), a.parse(), b.parse()); err != nil {
		return false, err
	}
	if len(a.members) != len(b.members) {
		return false, nil
	}
	for i := range a.members {
		m := &a.members[i]
		other, err := b.find(string(m.key))
		if err = errors.Join(err, r.look(b)); err != nil || other == nil {
			return false, err
		}
		if same, err := equal(r, m.get(), other.get(), depth-1); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func equalLists(r *run, a, b any, depth int) (bool, error) {
	if typeName(b) != "array" {
		return false, nil
	}
	x, err := listOf(r, a)
	if err != nil {
		return false, err
	}
	y, err := listOf(r, b)
	if err != nil || len(x) != len(y) {
		return false, err
	}
	for i := range x {
		if err := r.spend(0); err != nil {
			return false, err
		}
		if same, err := equal(r, x[i], y[i], depth-1); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// compare orders two values that are not nil: strings as text, anything else
// must be numbers, or strings that spell them.
func compare(r *run, a, b any) (int, error) {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), r.spend(min(len(x), len(y)))
		}
	case int:
		if y, ok := b.(int); ok {
			return cmp.Compare(x, y), nil
		}
	}
	x, err := operand(a)
	if err != nil {
		return 0, err
	}
	y, err := operand(b)
	if err != nil {
		return 0, err
	}
	return x.compare(y), r.spend(len(x.int) + len(x.frac) + len(y.int) + len(y.frac))
}

func operand(v any) (decimal, error) {
	d, ok := decimalOf(v)
	if ok {
		return d, nil
	}
	if _, text := v.(string); text {
		return d, errNotNumber
	}
	return d, fmt.Errorf("a number is needed here, not %s", typeName(v))
}

// plus joins two strings, and adds otherwise.
func plus(r *run, a, b any) (any, error) {
	x, xOK := a.(string)
	y, yOK := b.(string)
	if xOK && yOK {
		return x + y, r.spend(len(x) + len(y))
	}
	return calculate(r, '+', a, b)
}

// calculate returns a op b, exactly; nil when either is nil.
func calculate(r *run, op byte, a, b any) (any, error) {
	if a == nil || b == nil {
		return nil, nil
	}
	if x, ok := a.(int); ok {
		if y, ok := b.(int); ok {
			if n, ok := calculateInt(op, x, y); ok {
				return n, nil
			}
		}
	}
	x, err := fixedOf(r, a)
	if err != nil {
		return nil, err
	}
	y, err := fixedOf(r, b)
	if err != nil {
		return nil, err
	}
	if err := r.spend((x.unscaled.BitLen() + x.scale) / bits.UintSize * (y.unscaled.BitLen() + y.scale)); err != nil {
		return nil, err
	}
	var f fixed
	switch op {
	case '+':
		f = x.add(y)
	case '-':
		f = x.sub(y)
	case '*':
		f = x.mul(y)
	case '/':
		f, err = x.quo(y)
	case '%':
		f, err = x.rem(y)
	}
	if err != nil {
		return nil, err
	}
	return f.value(), nil
}

func fixedOf(r *run, v any) (fixed, error) {
	d, err := operand(v)
	if err != nil {
		return fixed{}, err
	}
	f, err := d.fixed()
	if err != nil {
		return f, err
	}
	return f, r.spend(f.unscaled.BitLen() + f.scale)
}

// calculateInt is for results that fit, and for what is whole.
func calculateInt(op byte, x, y int) (int, bool) {
	switch op {
	case '+':
		n := x + y
		return n, (n > x) == (y > 0)
	case '-':
		n := x - y
		return n, (n < x) == (y > 0)
	case '*':
		hi, lo := bits.Mul64(magnitude(x), magnitude(y))
		return x * y, hi == 0 && lo <= math.MaxInt64
	case '/', '%':
		if y == 0 || y == -1 {
			return 0, false
		}
		if op == '%' {
			return x % y, true
		}
		return x / y, x%y == 0
	}
	return 0, false
}

func magnitude(n int) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// contains reports whether an element of a list equals v, or whether an object
// has v as a key.
func contains(r *run, in, v any) (bool, error) {
	if o, ok := in.(object); ok {
		key, ok := v.(string)
		if !ok {
			return false, nil
		}
		m, err := o.find(key)
		return m != nil, errors.Join(err, r.look(o))
	}
	items, err := listOf(r, in)
	if err != nil {
		return false, err
	}
	for _, item := range items {
		if err := r.spend(0); err != nil {
			return false, err
		}
		if same, err := equal(r, item, v, maxDepth); err != nil || same {
			return same, err
		}
	}
	return false, nil
}

func textTest(name string, test func(s, part string) bool) function {
	return function{2, 2, resultBool, func(r *run, a []any) (any, error) {
		if a[0] == nil || a[1] == nil {
			return false, nil
		}
		s, sOK := a[0].(string)
		part, partOK := a[1].(string)
		if !sOK || !partOK {
			return false, fmt.Errorf("%s needs strings, not %s and %s", name, typeName(a[0]), typeName(a[1]))
		}
		return test(s, part), r.spend(len(s))
	}}
}

func containsText(s, part string) bool { return strings.Contains(s, part) }
func hasPrefix(s, part string) bool    { return strings.HasPrefix(s, part) }
func hasSuffix(s, part string) bool    { return strings.HasSuffix(s, part) }

// matches reports whether the regular expression, compiled with the expression,
// is found in a string.
func matches(r *run, v, pattern any) (bool, error) {
	re, ok := pattern.(*regexp.Regexp)
	if !ok {
		return false, errors.New("matches needs a pattern")
	}
	if v == nil {
		return false, nil
	}
	s, ok := v.(string)
	if !ok {
		return false, fmt.Errorf("matches needs a string, not %s", typeName(v))
	}
	if err := r.spend(regexpWork * len(s)); err != nil {
		return false, err
	}
	return re.MatchString(s), nil
}

// regexpWork is about what a regular expression costs for a byte, against a copy.
const regexpWork = 16
