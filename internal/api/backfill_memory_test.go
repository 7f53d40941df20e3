package api_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/api"
)

// memBackfills runs backfills that read nothing.
type memBackfills struct {
	consumers *memBroker

	mu      sync.Mutex
	all     []api.Backfill // guarded by mu
	gaps    bool           // guarded by mu: a gap is open
	refuses error          // guarded by mu: of Start and Ensure
	ensured []string       // guarded by mu
}

func (m *memBackfills) add(b api.Backfill) api.Backfill {
	b.ID, b.State, b.Left = uuid.Must(uuid.NewV7()).String(), "running", -1
	b.CreatedAt = time.Now()
	for _, other := range m.all {
		if other.ConsumerID == b.ConsumerID && other.Database == b.Database {
			b.N++
		}
	}
	b.N++
	m.all = append(m.all, b)
	return b
}

func (m *memBackfills) Start(_ context.Context, r api.BackfillRequest) (api.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.consumers.Find(r.ConsumerID)
	switch {
	case !ok:
		return api.Backfill{}, lockstep.ErrNotFound
	case m.refuses != nil:
		return api.Backfill{}, m.refuses
	}
	b := api.Backfill{ConsumerID: r.ConsumerID, Consumer: c.Definition().Name, Database: "app", Where: r.Where, Origin: "api"}
	for _, t := range r.Tables {
		b.Tables = append(b.Tables, api.BackfillTable{Name: t, State: "running"})
	}
	return m.add(b), nil
}

func (m *memBackfills) Ensure(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuses == nil {
		m.ensured = append(m.ensured, id)
	}
	return m.refuses
}

func (m *memBackfills) Repair(_ context.Context, database string) (api.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.gaps {
		return api.Backfill{}, fmt.Errorf("database %s has no open gap: %w", database, lockstep.ErrConflict)
	}
	return m.add(api.Backfill{Database: database, Gap: true, Origin: "api"}), nil
}

func (m *memBackfills) find(is func(api.Backfill) bool) (*api.Backfill, error) {
	if i := slices.IndexFunc(m.all, is); i >= 0 {
		return &m.all[i], nil
	}
	return nil, fmt.Errorf("no such backfill: %w", lockstep.ErrNotFound)
}

func (m *memBackfills) get(is func(api.Backfill) bool) (api.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(is)
	if err != nil {
		return api.Backfill{}, err
	}
	return *b, nil
}

func (m *memBackfills) Get(_ context.Context, id string) (api.Backfill, error) {
	return m.get(func(b api.Backfill) bool { return b.ID == id })
}

func (m *memBackfills) ByNumber(_ context.Context, consumerID string, n int) (api.Backfill, error) {
	return m.get(func(b api.Backfill) bool { return b.ConsumerID == consumerID && b.N == n })
}

func (m *memBackfills) List(_ context.Context, f api.BackfillFilter) ([]api.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.all), func(b api.Backfill) bool {
		return f.ConsumerID != "" && b.ConsumerID != f.ConsumerID || f.Database != "" && b.Database != f.Database || f.Active && b.State == "cancelled"
	}), nil
}

func (m *memBackfills) steer(id, state string) (api.Backfill, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.find(func(b api.Backfill) bool { return b.ID == id })
	if err != nil {
		return api.Backfill{}, err
	}
	if b.State == "cancelled" && state != "cancelled" {
		return api.Backfill{}, fmt.Errorf("backfill %s was cancelled; start another: %w", id, lockstep.ErrConflict)
	}
	b.State = state
	return *b, nil
}

func (m *memBackfills) Pause(_ context.Context, id string) (api.Backfill, error) {
	return m.steer(id, "paused")
}

func (m *memBackfills) Resume(_ context.Context, id string) (api.Backfill, error) {
	return m.steer(id, "running")
}

func (m *memBackfills) Cancel(_ context.Context, id string) (api.Backfill, error) {
	return m.steer(id, "cancelled")
}

func (m *memBackfills) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuses = err
}

func (m *memBackfills) openGap() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gaps = true
}
