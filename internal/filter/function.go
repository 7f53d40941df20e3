package filter

import (
	"fmt"
	"maps"
	"math"
)

// function is one that expressions call, or that an operator becomes.
type function struct {
	min, max int // number of arguments
	result   result
	do       func(r *run, args []any) (any, error)
}

// variadic is the max of a function that takes any number of arguments.
const variadic = math.MaxInt

// call is what expr calls: the run comes before the arguments.
func (f function) call(params ...any) (any, error) {
	r, ok := params[0].(runRef)
	if !ok {
		return nil, fmt.Errorf("called without a run")
	}
	if err := r.spend(0); err != nil {
		return nil, err
	}
	return f.do(r.run, params[1:])
}

// result is what is known of a value before it is there.
type result int

const (
	resultAny result = iota
	resultBool
	resultNumber
	resultString
	resultObject
	resultArray
	resultNull
	resultSum // of plus
)

// String returns the words for a value of that kind.
func (k result) String() string {
	return [...]string{"any value", "true or false", "a number", "a string", "an object", "a list", "null", "a number or a string"}[k]
}

// functions returns the functions that expressions may call, beside those with a
// condition, which are expr's own. None of them changes an argument.
func functions() map[string]function {
	all := numberFunctions()
	maps.Copy(all, textFunctions())
	maps.Copy(all, objectFunctions())
	maps.Copy(all, listFunctions())
	return all
}

// The names of the functions that operators become; no expression can spell them.
const (
	opMember = "op member"
	opSlice  = "op slice"
	opObject = "op object"
	opTruth  = "op truth"
	opStep   = "op step"
	opList   = "op list"
	opMinus  = "op minus"
	opPlus   = "op plus"
)

// operatorName returns the function that a binary operator becomes.
func operatorName(operator string) string { return "op " + operator }

// operators returns the functions by name that operators become.
func operators() map[string]function {
	return map[string]function{
		opMember: {2, 2, resultAny, func(r *run, a []any) (any, error) { return access(r, a[0], a[1]) }},
		opSlice:  {3, 3, resultAny, func(r *run, a []any) (any, error) { return slice(r, a[0], a[1], a[2]) }},
		opObject: {0, variadic, resultObject, func(_ *run, a []any) (any, error) { return newObject(a) }},
		opTruth:  {1, 1, resultBool, func(_ *run, a []any) (any, error) { return truth(a[0]) }},
		opStep:   {1, 1, resultAny, func(_ *run, a []any) (any, error) { return a[0], nil }},
		opList:   {1, 1, resultArray, func(r *run, a []any) (any, error) { return listOf(r, a[0]) }},
		opMinus:  {1, 1, resultNumber, func(r *run, a []any) (any, error) { return calculate(r, '-', 0, a[0]) }},
		opPlus:   {1, 1, resultNumber, func(r *run, a []any) (any, error) { return calculate(r, '+', 0, a[0]) }},

		"op ==": {2, 2, resultBool, func(r *run, a []any) (any, error) { return equal(r, a[0], a[1], maxDepth) }},
		"op !=": {2, 2, resultBool, func(r *run, a []any) (any, error) {
			same, err := equal(r, a[0], a[1], maxDepth)
			return !same, err
		}},
		"op <":  ordering("<", func(c int) bool { return c < 0 }),
		"op <=": ordering("<=", func(c int) bool { return c <= 0 }),
		"op >":  ordering(">", func(c int) bool { return c > 0 }),
		"op >=": ordering(">=", func(c int) bool { return c >= 0 }),

		"op +": {2, 2, resultSum, func(r *run, a []any) (any, error) { return plus(r, a[0], a[1]) }},
		"op -": {2, 2, resultNumber, func(r *run, a []any) (any, error) { return calculate(r, '-', a[0], a[1]) }},
		"op *": {2, 2, resultNumber, func(r *run, a []any) (any, error) { return calculate(r, '*', a[0], a[1]) }},
		"op /": {2, 2, resultNumber, func(r *run, a []any) (any, error) { return calculate(r, '/', a[0], a[1]) }},
		"op %": {2, 2, resultNumber, func(r *run, a []any) (any, error) { return calculate(r, '%', a[0], a[1]) }},

		"op in":         {2, 2, resultBool, func(r *run, a []any) (any, error) { return contains(r, a[1], a[0]) }},
		"op contains":   textTest("contains", containsText),
		"op startsWith": textTest("startsWith", hasPrefix),
		"op endsWith":   textTest("endsWith", hasSuffix),
		"op matches":    {2, 2, resultBool, func(r *run, a []any) (any, error) { return matches(r, a[0], a[1]) }},
	}
}

// ordering makes a comparison; with nil on either side it is false.
func ordering(name string, holds func(int) bool) function {
	return function{2, 2, resultBool, func(r *run, a []any) (any, error) {
		if a[0] == nil || a[1] == nil {
			return false, nil
		}
		c, err := compare(r, a[0], a[1])
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		return holds(c), nil
	}}
}
