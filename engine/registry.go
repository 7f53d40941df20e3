package engine

import (
	"slices"
	"sync"
)

// registry is the databases of the node: those of the configuration first, in its
// order, then those made by API. It may be used concurrently.
type registry struct {
	mu   sync.RWMutex
	list []*database // guarded by mu; replaced as a whole, never changed in place
}

// all returns the databases there are now. The slice must not be changed.
func (r *registry) all() []*database {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.list
}

// find returns the database of that name; nil: there is none.
func (r *registry) find(name string) *database {
	for _, d := range r.all() {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// put adds a database, or takes it for the one of its name.
func (r *registry) put(d *database) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.list)
	if i := slices.IndexFunc(list, func(other *database) bool { return other.Name == d.Name }); i >= 0 {
		list[i] = d
	} else {
		list = append(list, d)
	}
	r.list = list
}

func (r *registry) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = slices.DeleteFunc(slices.Clone(r.list), func(d *database) bool { return d.Name == name })
}
