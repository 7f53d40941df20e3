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

	"lockstep/internal/deliver"
	"lockstep/internal/syncs"
)

// mirrored knows which tables are mirrors of collections. It remembers that in the
// data directory: a change of a mirrored table may be delivered long before the
// database says again whose it is, or after the sync was deleted.
type mirrored struct {
	path string

	mu     sync.RWMutex
	tables map[tableName]syncs.Table
}

type tableName struct{ database, schema, table string }

func openMirrored(dir string) (*mirrored, error) {
	m := &mirrored{path: filepath.Join(dir, "mirrored.json"), tables: map[tableName]syncs.Table{}}
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
	return nil
}

// find says whose mirror a table is.
func (m *mirrored) find(database, schema, table string) (deliver.Mirrored, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t, ok := m.tables[tableName{database, schema, table}]
	return deliver.Mirrored{SyncID: t.SyncID, Sync: t.Sync, Provider: t.Provider, Collection: t.Collection}, ok
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
