package filter

import (
	"errors"
	"fmt"
)

func numberFunctions() map[string]function {
	rounded := func(way rounding) function {
		return function{1, 1, resultNumber, func(r *run, a []any) (any, error) { return roundTo(r, a[0], 0, way) }}
	}
	return map[string]function{
		"number": {1, 1, resultNumber, func(_ *run, a []any) (any, error) { return toNumber(a[0]) }},
		"int":    rounded(roundZero),
		"floor":  rounded(roundDown),
		"ceil":   rounded(roundUp),
		"round": {1, 2, resultNumber, func(r *run, a []any) (any, error) {
			if len(a) == 1 {
				return roundTo(r, a[0], 0, roundHalf)
			}
			return roundTo(r, a[0], a[1], roundHalf)
		}},
		"abs": {1, 1, resultNumber, func(r *run, a []any) (any, error) {
			if a[0] == nil {
				return nil, nil
			}
			if c, err := compare(r, a[0], 0); err != nil || c >= 0 {
				n, numberErr := toNumber(a[0])
				return n, errors.Join(err, numberErr)
			}
			return calculate(r, '-', 0, a[0])
		}},
		"min": {1, variadic, resultNumber, func(r *run, a []any) (any, error) { return extreme(r, a, -1) }},
		"max": {1, variadic, resultNumber, func(r *run, a []any) (any, error) { return extreme(r, a, 1) }},
		"sum": {1, variadic, resultNumber, func(r *run, a []any) (any, error) { return sum(r, a) }},
	}
}

// toNumber returns the number that v is or spells; nil for nil.
func toNumber(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		if _, ok := parseDecimal(v); !ok {
			return nil, errors.New("the string is no number")
		}
		return decodeNumber(v), nil
	}
	_, err := operand(v)
	return v, err
}

func roundTo(r *run, v, places any, way rounding) (any, error) {
	n, ok := places.(int)
	if !ok || n < 0 || n > maxDigits {
		return nil, fmt.Errorf("the number of digits is a whole number from 0 to %d", maxDigits)
	}
	if v == nil {
		return nil, nil
	}
	f, err := fixedOf(r, v)
	if err != nil {
		return nil, err
	}
	return f.round(n, way).value(), nil
}

// spread returns the arguments, or the elements of a list that is the only one.
func spread(r *run, args []any) ([]any, error) {
	if len(args) != 1 || typeName(args[0]) != "array" {
		return args, nil
	}
	return listOf(r, args[0])
}

// extreme returns the least (way -1) or the greatest (way 1) value that is not
// nil, as a number when it is one.
func extreme(r *run, args []any, way int) (any, error) {
	items, err := spread(r, args)
	if err != nil {
		return nil, err
	}
	var best any
	for _, v := range items {
		if err := r.spend(0); err != nil {
			return nil, err
		}
		if v == nil {
			continue
		}
		if v, err = toNumber(v); err != nil {
			return nil, err
		}
		if best == nil {
			best = v
			continue
		}
		c, err := compare(r, v, best)
		if err != nil {
			return nil, err
		}
		if c == way {
			best = v
		}
	}
	return best, nil
}

func sum(r *run, args []any) (any, error) {
	items, err := spread(r, args)
	if err != nil {
		return nil, err
	}
	var total any = 0
	for _, v := range items {
		if err := r.spend(0); err != nil {
			return nil, err
		}
		if v == nil {
			continue
		}
		if total, err = calculate(r, '+', total, v); err != nil {
			return nil, err
		}
	}
	return total, nil
}
