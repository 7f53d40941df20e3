package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/syncs"
)

// mirrored knows which tables are mirrors of collections. It remembers that in the
// data directory: a change of a mirrored table may be delivered long before the
// database says again whose it is, or after the sync was deleted.
//
// Of what another node mirrors it learns from the database: a table that it does not
// know is looked up once, before its first change is passed over.
type mirrored struct {
	path string

	mu     sync.RWMutex
	tables map[tableName]syncs.Table
	none   map[tableName]bool // what was looked up, and is no mirror
	lookUp func(ctx context.Context, database string) ([]syncs.Table, error)
	retry  time.Time // nothing is looked up before
}

const (
	// lookUpWait bounds the look for a table. Delivery waits for it.
	lookUpWait = 2 * time.Second
	// lookUpAgain is how long nothing is looked up in a database that did not answer.
	lookUpAgain = 10 * time.Second
)

type tableName struct{ database, schema, table string }

func openMirrored(dir string) (*mirrored, error) {
	m := &mirrored{path: filepath.Join(dir, "mirrored.json"), tables: map[tableName]syncs.Table{}, none: map[tableName]bool{}}
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which tables are mirrors: %w", err)
	}
	var list []syncs.Table
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read which tables are mirrors in %s: %w; remove the file: running syncs write it again", m.path, err)
	}
	for _, t := range list {
		m.tables[tableName{t.Database, t.Schema, t.Name}] = t
	}
	return m, nil
}

// name notes a table; it is on disk when this returns.
func (m *mirrored) name(_ context.Context, t syncs.Table) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := tableName{t.Database, t.Schema, t.Name}
	old, known := m.tables[key]
	if known && old == t {
		return nil
	}
	list := []syncs.Table{t}
	for other, there := range m.tables {
		if other != key {
			list = append(list, there)
		}
	}
	data, err := json.MarshalIndent(list, "", " ")
	if err == nil {
		err = writeDurably(m.path, data)
	}
	if err != nil {
		return fmt.Errorf("remember that %s.%s is a mirror: %w", t.Schema, t.Name, err)
	}
	m.tables[key] = t
	delete(m.none, key)
	return nil
}

// learn has tables that are not known looked up.
func (m *mirrored) learn(lookUp func(ctx context.Context, database string) ([]syncs.Table, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lookUp = lookUp
}

// find says whose mirror a table is.
func (m *mirrored) find(database, schema, table string) (deliver.Mirrored, bool) {
	key := tableName{database, schema, table}
	m.mu.RLock()
	t, ok := m.tables[key]
	known := ok || m.none[key] || m.lookUp == nil || time.Now().Before(m.retry)
	m.mu.RUnlock()
	if !known {
		t, ok = m.search(key)
	}
	return deliver.Mirrored{SyncID: t.SyncID, Sync: t.Sync, Provider: t.Provider, Collection: t.Collection}, ok
}

// search looks a table up.
func (m *mirrored) search(key tableName) (t syncs.Table, found bool) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpWait) // nobody's: it is found out for all
	defer cancel()
	list, err := m.lookUp(ctx, key.database)
	for _, one := range list {
		if err == nil {
			err = m.name(ctx, one)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.retry = time.Now().Add(lookUpAgain)
	}
	t, found = m.tables[key]
	m.none[key] = !found && err == nil
	return t, found
}

// prefixes are what stands before the colon of the collections that are mirrored.
func (m *mirrored) prefixes() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	seen := map[string]bool{}
	for _, t := range m.tables {
		seen[t.Provider] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
