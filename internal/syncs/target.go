package syncs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lockstep"
)

// AddTarget takes in a database while the syncs run, and loads what is stored in it. One
// of its name that is there already stays.
func (s *Set) AddTarget(t Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stores[t.Name] != nil {
		return
	}
	st := &store{target: t, sealer: s.config.Sealer, ready: make(chan struct{})}
	s.stores[t.Name] = st
	s.attend(st)
}

// RemoveTarget lets go of a database; nothing uses its pool when it returns nil. One that
// syncs lie in gives an error that wraps [lockstep.ErrConflict], and stays.
func (s *Set) RemoveTarget(name string) error {
	st := s.store(name)
	if st == nil {
		return nil
	}
	if err := s.unused(name); err != nil {
		return err
	}
	// First, and outside of a change: what it has under way may need one.
	s.neglect(st)
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.unused(name); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		fresh := &store{target: st.target, sealer: st.sealer, ready: make(chan struct{})}
		s.stores[name] = fresh
		s.attend(fresh)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stores, name)
	return nil
}

// unused returns an error when a sync lies in the database.
func (s *Set) unused(name string) error {
	var names []string
	for _, r := range s.list() {
		if d := r.definition(); d.Database == name {
			names = append(names, d.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("syncs mirror into it: delete them first: %s: %w", strings.Join(names, ", "), lockstep.ErrConflict)
}

// attend opens and watches a database as long as Work runs. s.mu is held.
func (s *Set) attend(st *store) {
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	ctx, stop := context.WithCancel(s.ctx)
	done := make(chan struct{})
	st.stop, st.done = stop, done
	s.work.Go(func() {
		defer close(done)
		defer stop()
		s.openStore(ctx, st)
	})
}

// neglect ends what attend began.
func (s *Set) neglect(st *store) {
	s.mu.Lock()
	stop, done := st.stop, st.done
	s.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	<-done
}

// store returns what keeps the syncs of a database; nil: there is no such database.
func (s *Set) store(name string) *store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stores[name]
}

// databases names the databases that mirrors can lie in.
func (s *Set) databases() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, t := range s.config.Targets {
		names = append(names, t.Name) // in the order of the configuration
	}
	var added []string
	for name := range s.stores {
		if !slices.Contains(names, name) {
			added = append(added, name)
		}
	}
	slices.Sort(added)
	return strings.Join(append(names, added...), ", ")
}
