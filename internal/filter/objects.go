package filter

import (
	"fmt"
	"slices"
)

func objectFunctions() map[string]function {
	return map[string]function{
		"get": {2, 2, resultAny, func(r *run, a []any) (any, error) { return access(r, a[0], a[1]) }},
		"keys": {1, 1, resultArray, func(r *run, a []any) (any, error) {
			return eachMember(r, a[0], func(m *member) any { return string(m.key) })
		}},
		"values": {1, 1, resultArray, func(r *run, a []any) (any, error) {
			return eachMember(r, a[0], (*member).get)
		}},
		"pick": {1, variadic, resultAny, func(r *run, a []any) (any, error) {
			return selectMembers(r, a, func(named bool) bool { return named })
		}},
		"omit": {1, variadic, resultAny, func(r *run, a []any) (any, error) {
			return selectMembers(r, a, func(named bool) bool { return !named })
		}},
		"merge": {1, variadic, resultAny, func(r *run, a []any) (any, error) { return merge(r, a) }},
	}
}

// membersOf returns the members of an object; none for nil.
func membersOf(r *run, v any) ([]member, error) {
	if v == nil {
		return nil, nil
	}
	o, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("an object is needed here, not %s", typeName(v))
	}
	if err := r.look(o); err != nil {
		return nil, err
	}
	err := o.parse()
	return o.members, err
}

func eachMember(r *run, v any, what func(*member) any) (any, error) {
	members, err := membersOf(r, v)
	if err != nil {
		return nil, err
	}
	items := make([]any, len(members))
	for i := range members {
		items[i] = what(&members[i])
	}
	return items, r.spend(opWork * len(items))
}

// selectMembers returns the first argument with only some of its members: the
// other arguments, or lists of them, name keys.
func selectMembers(r *run, args []any, keep func(named bool) bool) (any, error) {
	if args[0] == nil {
		return nil, nil
	}
	members, err := membersOf(r, args[0])
	if err != nil {
		return nil, err
	}
	names, err := spread(r, args[1:])
	if err != nil {
		return nil, err
	}
	o := &doc{}
	for _, m := range members {
		if err := r.spend(len(names)); err != nil {
			return nil, err
		}
		if keep(slices.Contains(names, any(string(m.key)))) {
			o.members = append(o.members, m)
		}
	}
	return object{o}, nil
}

// merge returns one object of the members of all; of equal keys the last counts.
func merge(r *run, args []any) (any, error) {
	o := &doc{}
	for _, v := range args {
		members, err := membersOf(r, v)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if err := r.spend(len(o.members)); err != nil {
				return nil, err
			}
			o.set(m)
		}
	}
	return object{o}, nil
}
