package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/capture/backfill"
	"lockstep/internal/obs"
	"lockstep/internal/stage"
)

// Delete implements [api.ManagedDatabases]. The slot goes before the definition: a crash
// in between leaves a database that captures again, with a gap, and can be deleted again;
// never a slot that nobody knows of.
func (m managed) Delete(ctx context.Context, name string, leave api.LeaveSlot) (api.DatabaseRemoval, error) {
	gone := api.DatabaseRemoval{Name: name}
	release, err := m.enter(ctx)
	if err != nil {
		return gone, err
	}
	defer release()
	d, err := m.find(name)
	if err != nil {
		return gone, err
	}
	if d.broken != "" && leave == api.DropSlot {
		return gone, fmt.Errorf("database %q cannot be reached to drop its slot: %s; repeat with keep_slot=true, and drop it there: %s: %w", name, d.broken, d.dropSlotSQL(), lockstep.ErrConflict)
	}
	if err := m.vacate(d); err != nil { //nolint:contextcheck // what it starts again lives as long as the node
		return gone, fmt.Errorf("database %q is in use: %w", name, err)
	}
	ctx = context.WithoutCancel(ctx) // who hangs up must not leave half of it
	err = m.end(ctx, d, leave, &gone)
	if errors.Is(err, stage.ErrStuck) {
		return gone, err // two captures of one database would be worse than none
	}
	if err != nil {
		return gone, errors.Join(err, m.resume(ctx, d))
	}
	m.databases.remove(name)
	// Whoever follows it is told, and does not find it any more when they come back.
	d.life.end()
	m.realtime.Forget(name)
	d.close()
	m.metrics.ForgetDatabase(name)
	m.Logger.InfoContext(ctx, "a database was deleted by API", obs.KeyDatabase, name)
	return gone, nil
}

// vacate lets nobody use the database from now on, unless somebody does.
func (m managed) vacate(d *database) error {
	// No consumer is being made meanwhile: each is seen here, or finds the door closed.
	m.using.Lock()
	var names []string
	for _, c := range m.broker.List() {
		if def := c.Definition(); def.Database == d.Name {
			names = append(names, def.Name)
		}
	}
	d.leaving.Store(len(names) == 0)
	m.using.Unlock()
	if len(names) > 0 {
		slices.Sort(names)
		return fmt.Errorf("consumers get its changes: delete them first: %s: %w", strings.Join(names, ", "), lockstep.ErrConflict)
	}
	if err := m.syncs.RemoveTarget(d.Name); err != nil {
		d.leaving.Store(false)
		return err
	}
	return nil
}

// end ends the capture of a database, what was made for it, and its definition.
func (m managed) end(ctx context.Context, d *database, leave api.LeaveSlot, gone *api.DatabaseRemoval) error {
	jobs, err := m.backfills.List(ctx, backfill.Filter{Database: d.Name, Active: true})
	if err != nil {
		return fmt.Errorf("look for repairs of database %q: %w", d.Name, errors.Join(err, lockstep.ErrUnavailable))
	}
	for _, j := range jobs {
		if _, err := m.backfills.Cancel(ctx, j.ID); err != nil && !errors.Is(err, lockstep.ErrConflict) {
			return fmt.Errorf("cancel the repair of database %q: %w", d.Name, err)
		}
	}
	if err := m.captures.stop(d.Name); err != nil {
		return fmt.Errorf("database %q: its capture does not end; restart the node: %w", d.Name, err)
	}
	bound, cancel := context.WithTimeout(ctx, storeWithin+dropWithin)
	defer cancel()
	return m.definitions.remove(bound, d.Name, func() error {
		if leave == api.KeepSlot || d.capture == nil {
			d.keep(gone)
			return nil
		}
		return d.drop(ctx, gone)
	})
}

// resume takes up again what could not be deleted.
func (m managed) resume(ctx context.Context, d *database) error {
	if d.capture == nil {
		d.leaving.Store(false)
		if d.broken == "" {
			m.syncs.AddTarget(m.target(d)) //nolint:contextcheck // it lives as long as the node
		}
		return nil
	}
	next, err := m.renewed(ctx, d, d.Tables)
	if err != nil {
		return err
	}
	m.syncs.AddTarget(m.target(next)) //nolint:contextcheck // it lives as long as the node
	return m.exchange(d, next)        //nolint:contextcheck // it lives as long as the node
}
