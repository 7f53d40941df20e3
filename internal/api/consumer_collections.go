package api

import (
	"fmt"
	"slices"
	"strings"

	"lockstep/internal/deliver"
	"lockstep/internal/suggest"
)

// OldFilter names what a pull consumer of 2024 gets.
type OldFilter struct {
	Provider   *string `json:"provider,omitempty" doc:"All collections of a provider, such as github"`
	Sync       *string `json:"sync_id,omitempty" doc:"Only those of this sync: its id or its name"`
	Collection *string `json:"collection_id,omitempty" doc:"One collection, such as github:pull_request"`
	Resource   *string `json:"resource_id,omitempty" doc:"The same as collection_id"`
}

// textOf returns the text of a member, and none for one that is left out.
func textOf(member *string) string {
	if member == nil {
		return ""
	}
	return *member
}

// collection returns which collections the filter names; empty: none.
func (o *OldFilter) collection(f *faults) string {
	if o == nil {
		return ""
	}
	provider, one, resource := textOf(o.Provider), textOf(o.Collection), textOf(o.Resource)
	if one != "" && resource != "" && one != resource {
		f.add("filters.resource_id", "it means the same as collection_id: give one of them")
	}
	if one == "" {
		one = resource
	}
	owner, _, whole := strings.Cut(one, ":")
	switch {
	case one == "" && provider != "":
		return provider + ":*"
	case one != "" && provider != "" && !whole:
		return provider + ":" + one
	case one != "" && provider != "" && owner != provider:
		f.add("filters.provider", "%s is a collection of %s, not of %s: leave the provider out", one, owner, provider)
	}
	return one
}

// collections takes what the body says in the words of 2024.
func (b HTTPConsumerBody) collections(d *deliver.Definition, f *faults) {
	filters := b.Filters.collection(f)
	one := textOf(b.FilterCollection)
	listed := b.Collections != nil && len(*b.Collections) > 0
	switch {
	case one != "" && (listed || filters != ""):
		f.add("filter_collection_id", "it means the same as collections and as filters: give one of them")
	case filters != "" && listed:
		f.add("filters", "they mean the same as collections: give one of them")
	case one != "":
		d.Collections = []string{one}
	case filters != "":
		d.Collections = []string{filters}
	}
	if b.Filters == nil || textOf(b.Filters.Sync) == "" {
		return
	}
	if b.Sync != nil && *b.Sync != *b.Filters.Sync {
		f.add("filters.sync_id", "it means the same as sync: give one of them")
	}
	if d.Sync = *b.Filters.Sync; len(d.Collections) == 0 {
		d.Collections = []string{deliver.AnyCollection}
	}
}

// collectionAt is where in the body the i-th collection stands.
func (ConsumerBody) collectionAt(i int) string { return fmt.Sprintf("collections[%d]", i) }

// collectionAt is where in the body the i-th collection stands.
func (b HTTPConsumerBody) collectionAt(i int) string {
	switch {
	case textOf(b.FilterCollection) != "":
		return "filter_collection_id"
	case b.Filters == nil || b.Filters.collection(&faults{}) == "":
		return b.ConsumerBody.collectionAt(i)
	case textOf(b.Filters.Provider) != "":
		return "filters.provider"
	case textOf(b.Filters.Collection) != "":
		return "filters.collection_id"
	}
	return "filters.resource_id"
}

// checkCollections looks at the collections that a body names. One that nothing
// mirrors yet is no fault: its sync may come later.
func (a *API) checkCollections(before, after []string, body definer, f *faults) {
	if slices.Equal(before, after) {
		return
	}
	for i, text := range after {
		provider, err := deliver.ParseCollection(text)
		if err != nil {
			f.add(body.collectionAt(i), "%s", err)
			continue
		}
		if provider == "" || a.providers == nil {
			continue
		}
		if known := a.providers(); !slices.Contains(known, provider) {
			f.add(body.collectionAt(i), "there is no provider %q, %s; that of a spec of your own is known once there is a sync of it", provider, suggest.Remedy(provider, known))
		}
	}
}

// inOlderWords tells a consumer's collections as filter_collection_id and filters. What
// these have no word for, such as two collections, they leave out.
func inOlderWords(d deliver.Definition) (one *string, filters OldFilter) {
	if d.Sync != "" {
		filters.Sync = &d.Sync
	}
	if len(d.Collections) != 1 || d.Collections[0] == deliver.AnyCollection {
		return nil, filters
	}
	provider, name, _ := strings.Cut(d.Collections[0], ":")
	filters.Provider = &provider
	if name == deliver.AnyCollection {
		return nil, filters
	}
	filters.Collection = &d.Collections[0]
	return filters.Collection, filters
}
