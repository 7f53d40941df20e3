package github

import (
	"maps"
	"slices"
)

// Routes are all routes, as testdata/routes.txt lists them.
func Routes() []string { return slices.Sorted(maps.Keys((&Sandbox{}).handlers())) }

// Unresolved are fields of the schema that nothing resolves.
func Unresolved() (missing []string) {
	s, err := loadSchema()
	if err != nil {
		panic(err)
	}
	all := resolvers()
	for name, t := range s.types {
		if t.kind != "type" || all[name] == nil {
			continue
		}
		for field := range t.fields {
			if all[name][field] == nil {
				missing = append(missing, name+"."+field)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// NodeID makes a node id of a repository's object, as records show them.
func NodeID(kind string, repository, id int64) string { return nodeID(kind, repository, id) }
