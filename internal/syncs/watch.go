package syncs

import (
	"context"
	"time"

	"lockstep/internal/obs"
)

const (
	// watchEvery is how often it is looked what other nodes have changed.
	watchEvery = 2 * time.Second
	// watchWait bounds one look.
	watchWait = 5 * time.Second
)

// watch follows what other nodes change in a database: syncs that they make, change,
// pause and delete. Without it a node that waits for a sync would take it over as it
// was when the node started.
func (s *Set) watch(ctx context.Context, st *store) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look(ctx, st)
		case <-ctx.Done():
			return
		}
	}
}

// Tables returns which tables of a database are mirrors, of syncs of any node.
func (s *Set) Tables(ctx context.Context, database string) ([]Table, error) {
	st := s.store(database)
	if st == nil {
		return nil, nil
	}
	return st.tables(ctx)
}

// learn tells of the tables that other nodes mirror.
func (s *Set) learn(ctx context.Context, st *store) error {
	tables, err := st.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := s.config.Named(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) look(ctx context.Context, st *store) {
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	revisions, err := st.revisions(ctx)
	if err == nil {
		err = s.learn(ctx, st)
	}
	if err != nil {
		s.config.Logger.DebugContext(ctx, "it cannot be seen which syncs were changed", obs.KeyDatabase, st.target.Name, obs.KeyError, err)
		return
	}
	for id, now := range revisions {
		r := s.runner(id)
		if r == nil && now.managedBy != managedByFile || r != nil && !r.definition().UpdatedAt.Equal(now.at) {
			s.refresh(ctx, st, id)
		}
	}
	for _, r := range s.list() {
		d := r.definition()
		if _, there := revisions[d.ID]; !there && d.Database == st.target.Name && d.ManagedBy != managedByFile {
			s.refresh(ctx, st, d.ID)
		}
	}
}

// refresh takes over what is stored of one sync now. What was seen before may have
// been changed here meanwhile.
func (s *Set) refresh(ctx context.Context, st *store, id string) {
	s.change.Lock()
	defer s.change.Unlock()
	row, there, err := st.one(ctx, id)
	if err != nil {
		return
	}
	switch r := s.runner(id); {
	case r == nil && there && row.definition.ManagedBy != managedByFile:
		s.start(s.adopt(ctx, row)) //nolint:contextcheck // it lives as long as Work
	case r == nil:
	case there:
		r.follow(row)
	case r.definition().ManagedBy != managedByFile:
		s.drop(r)
	}
}
