package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/capture/publish"
	"lockstep/internal/events"
	"lockstep/internal/obs"
	"lockstep/internal/stage"
	"lockstep/internal/stream"
)

// eventSource finds events tables, and serves them from the logs.
type eventSource struct {
	*events.Server
	engine *Engine
	file   string // remembers which table is served where the configuration names none

	mu    sync.Mutex
	found api.EventTable // guarded by mu: that table; empty: not known yet
}

// openEvents prepares what /events serves.
func (e *Engine) openEvents(context.Context) (func() error, error) {
	if text := e.cfg.Events.Table; text != "" {
		if _, err := events.ParseTable(text); err != nil {
			return nil, fmt.Errorf("events: table: %w", err)
		}
	}
	s := &eventSource{engine: e, file: filepath.Join(e.dir.path, "events.json")}
	data, err := os.ReadFile(s.file)
	if err == nil {
		err = json.Unmarshal(data, &s.found)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read which events table is served in %s: %w; remove the file: it is found again", s.file, err)
	}
	s.Server = events.New(events.Config{
		Log: func(database string) (events.Log, error) {
			d, err := e.captured(database)
			if err != nil {
				return nil, err
			}
			return events.LogOf(d.log), nil
		},
		Damage: func(err error) (uint64, bool) {
			corrupt, ok := errors.AsType[*stream.CorruptError](err)
			if !ok {
				return 0, false
			}
			return corrupt.Last, true
		},
		Logger: e.Logger.With(obs.KeyStage, "events"),
	})
	e.events = s
	return nil, nil
}

// eventStage stops after the API, which ends the streams.
func (e *Engine) eventStage() stage.Stage { return stage.Stage{Name: "events", Run: e.events.Run} }

// Log implements [api.Events].
func (s *eventSource) Log(database string) (api.Log, error) {
	d, err := s.engine.captured(database)
	if err != nil {
		return nil, err
	}
	return api.LogOf(d.log), nil
}

// Table implements [api.Events].
func (s *eventSource) Table(name, table string) (api.EventTable, error) {
	if name == "" {
		name = s.engine.cfg.Events.Database
	}
	if table == "" {
		table = s.engine.cfg.Events.Table
	}
	if table == "" && name == "" {
		return s.first()
	}
	if name == "" {
		for _, d := range s.engine.databases.all() {
			if d.capture != nil {
				name = d.Name
				break
			}
		}
	}
	d, err := s.engine.captured(name)
	if err != nil {
		return api.EventTable{}, err
	}
	if table == "" {
		return d.namedEvents()
	}
	t, err := events.ParseTable(table)
	if err != nil {
		return api.EventTable{}, err
	}
	// What was never looked at is taken for what the caller says it is: the log has it or not.
	if states := d.reconciler.States(); states != nil && !captures(states, t) {
		return api.EventTable{}, fmt.Errorf("table %s of database %s is not captured: %w", t, name, lockstep.ErrNotFound)
	}
	return api.EventTable{Database: name, Table: t}, nil
}

// first finds the first captured table that is called events, and remembers it: after a
// restart events are to be had before the database has told its tables again.
func (s *eventSource) first() (api.EventTable, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.engine.database(s.found.Database); d != nil && d.capture != nil {
		if states := d.reconciler.States(); states == nil || captures(states, s.found.Table) {
			return s.found, nil
		}
	}
	for _, d := range s.engine.databases.all() {
		if d.capture == nil {
			continue
		}
		found, err := d.namedEvents()
		switch {
		case errors.Is(err, lockstep.ErrUnavailable):
			return api.EventTable{}, err // it may have the first one
		case err != nil:
			continue
		}
		data, err := json.Marshal(found)
		if err == nil {
			err = writeDurably(s.file, data)
		}
		if err != nil {
			return api.EventTable{}, fmt.Errorf("remember which events table is served: %w", err)
		}
		s.found = found
		return found, nil
	}
	return api.EventTable{}, fmt.Errorf("no captured table is called events: make one with lockstep init events, or name one in the configuration (events: {table: …}): %w", lockstep.ErrNotFound)
}

// namedEvents is the database's table events: that of public, or the first one.
func (d *database) namedEvents() (api.EventTable, error) {
	states := d.reconciler.States()
	if states == nil {
		return api.EventTable{}, fmt.Errorf("which tables of database %s are captured is not known yet: %w", d.Name, lockstep.ErrUnavailable)
	}
	var found []events.Table
	for _, t := range states {
		if t.Name == "events" && t.Published != publish.None {
			found = append(found, events.Table{Schema: t.Schema, Name: t.Name})
		}
	}
	for _, t := range found {
		if t.Schema == "public" {
			return api.EventTable{Database: d.Name, Table: t}, nil
		}
	}
	if len(found) == 0 {
		return api.EventTable{}, fmt.Errorf("no captured table of database %s is called events: make one with lockstep init events: %w", d.Name, lockstep.ErrNotFound)
	}
	return api.EventTable{Database: d.Name, Table: found[0]}, nil
}

func captures(states []publish.TableState, t events.Table) bool {
	for _, s := range states {
		if s.Schema == t.Schema && s.Name == t.Name {
			return s.Published != publish.None
		}
	}
	return false
}
