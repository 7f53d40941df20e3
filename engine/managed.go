package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/wal"
	"lockstep/internal/config"
	"lockstep/internal/obs"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/syncs"
)

// managed is the databases of the node in the words of the API. One change is made at a
// time, so that what is stored and what runs agree.
type managed struct{ *Engine }

// managedByAPI is who manages a database that is not in the configuration.
const managedByAPI = "api"

// Loaded implements [api.ManagedDatabases].
func (m managed) Loaded() bool { return m.control.loaded() }

// enter waits until no database is made, changed or deleted.
func (m managed) enter(ctx context.Context) (release func(), err error) {
	if !m.control.loaded() {
		return nil, fmt.Errorf("%s: %w", controlHint, lockstep.ErrUnavailable)
	}
	select {
	case m.changing <- struct{}{}:
		return func() { <-m.changing }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait until another database is made or deleted: %w", context.Cause(ctx))
	}
}

// Create implements [api.ManagedDatabases].
func (m managed) Create(ctx context.Context, wanted api.DatabaseDefinition) error {
	c, err := configured(wanted)
	if err != nil {
		return err
	}
	if err := m.free(c); err != nil {
		return err
	}
	d := definition{Database: c}
	if !wanted.Unchecked {
		// Outside of the turn: a server that does not answer holds up nobody.
		if d.foundSlot, err = m.inspect(ctx, c); err != nil {
			return err
		}
	}
	release, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := m.free(c); err != nil {
		return err
	}
	// From here on the caller may hang up: all of it is made, or nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWithin)
	defer cancel()
	db, err := m.openDatabase(ctx, c)
	if err != nil {
		m.metrics.ForgetDatabase(c.Name)
		return err
	}
	db.managedBy, db.foundSlot = managedByAPI, d.foundSlot
	if err := m.definitions.insert(ctx, d); err != nil {
		db.close()
		m.metrics.ForgetDatabase(c.Name)
		if errors.Is(err, lockstep.ErrConflict) {
			return err
		}
		return errors.Join(fmt.Errorf("%w: %w", err, lockstep.ErrUnavailable), m.unstore(ctx, c.Name))
	}
	m.admit(db) //nolint:contextcheck // it lives as long as the node
	m.Logger.InfoContext(ctx, "a database was made by API", obs.KeyDatabase, c.Name)
	return nil
}

// unstore removes what may have been stored by a call that failed.
func (m managed) unstore(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWithin)
	defer cancel()
	return m.definitions.forget(ctx, name)
}

// configured makes a database of what the API was given.
func configured(wanted api.DatabaseDefinition) (config.Database, error) {
	c, faults := config.NewDatabase(config.DatabaseEntry{
		Name: wanted.Name, URL: config.URL(wanted.URL), Capture: wanted.Capture, Slot: wanted.Slot, Publication: wanted.Publication,
		Tables: wanted.Tables, Int8: wanted.Int8, RetainWAL: wanted.RetainWAL,
	}, checkPattern)
	wrong := &api.DatabaseError{Name: wanted.Name}
	for _, f := range faults {
		wrong.Wrong = append(wrong.Wrong, api.DatabaseFault(f))
	}
	if len(faults) == 0 && connectionOf(wanted.URL) == nil {
		wrong.Wrong = append(wrong.Wrong, api.DatabaseFault{Field: "url", Message: "not a Postgres address: write postgres://user:password@host:5432/database"})
	}
	if len(wrong.Wrong) > 0 {
		return config.Database{}, wrong
	}
	return c, nil
}

func checkPattern(text string) error {
	_, err := pattern.Parse([]string{text})
	return err
}

// connectionOf says where a URL leads; nil: it is none.
func connectionOf(url string) *api.Connection {
	c, err := pgconn.ParseConfig(url)
	if err != nil || url == "" {
		return nil
	}
	return &api.Connection{Host: c.Host, Port: c.Port, Database: c.Database, User: c.User}
}

// free checks that no other database has the name, or the slot on the same server.
func (m managed) free(c config.Database) error {
	if d := m.database(c.Name); d != nil {
		if d.managedBy != managedByAPI {
			return m.inFile(c.Name)
		}
		return fmt.Errorf("there is a database %q already: %w", c.Name, lockstep.ErrConflict)
	}
	at := connectionOf(c.URL.Reveal())
	for _, d := range m.databases.all() {
		other := connectionOf(d.url)
		if c.Capture == config.CaptureNone || d.capture == nil || other == nil || d.Slot != c.Slot {
			continue
		}
		if strings.EqualFold(other.Host, at.Host) && other.Port == at.Port {
			return fmt.Errorf("the slot %s is already that of the database %s on this server: give this one another slot and publication: %w", c.Slot, d.Name, lockstep.ErrConflict)
		}
	}
	return nil
}

// inFile says that a database is changed elsewhere.
func (m managed) inFile(name string) error {
	file := m.cfg.File
	if file == "" {
		file = "the configuration"
	}
	return fmt.Errorf("database %q is defined in %s: change it there and restart: %w", name, file, lockstep.ErrConflict)
}

// find returns a database that was made by API.
func (m managed) find(name string) (*database, error) {
	d := m.database(name)
	if d == nil {
		return nil, fmt.Errorf("database %q: %w", name, lockstep.ErrNotFound)
	}
	if d.managedBy != managedByAPI {
		return nil, m.inFile(name)
	}
	return d, nil
}

// admit lets everything else know of a database, and starts its capture.
func (e *Engine) admit(d *database) {
	e.databases.put(d)
	if d.broken == "" {
		e.syncs.AddTarget(e.target(d))
	}
	e.captures.start(d)
}

// target is a database as syncs see it.
func (e *Engine) target(d *database) syncs.Target {
	return syncs.Target{Name: d.Name, Pool: d.pool, Prepare: func(ctx context.Context) error { return pgdb.Migrate(ctx, d.url) }}
}

// loadDatabases opens the databases that were made by API. One that cannot be opened does
// not stop the others.
func (e *Engine) loadDatabases(ctx context.Context) error {
	list, err := e.definitions.load(ctx)
	if err != nil {
		return err
	}
	for _, def := range list {
		if def.removed {
			if err := e.keepRemoved(ctx, def.Name); err != nil {
				return err
			}
			continue
		}
		if known := e.database(def.Name); known != nil {
			if known.managedBy != managedByAPI {
				e.Logger.ErrorContext(ctx, "a database made by API has the name of one of the configuration, which is captured in its place: give one of them another name", obs.KeyDatabase, def.Name)
			}
			continue
		}
		d, err := e.reopen(ctx, def)
		if err != nil {
			return err
		}
		e.admit(d) //nolint:contextcheck // it lives as long as the node
	}
	return nil
}

// reopen opens a stored database. An error is about the stream: anything else is told on
// the database.
func (e *Engine) reopen(ctx context.Context, def definition) (*database, error) {
	why := def.broken
	if why == nil {
		d, err := e.openDatabase(ctx, def.Database)
		if err == nil {
			d.managedBy, d.foundSlot = managedByAPI, def.foundSlot
			return d, nil
		}
		if errors.Is(err, lockstep.ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		why = err
	}
	e.Logger.ErrorContext(ctx, "a stored database cannot be opened", obs.KeyDatabase, def.Name, obs.KeyError, why)
	log, err := e.stream.Log(ctx, def.Name)
	if err != nil {
		return nil, fmt.Errorf("open the log of database %s: %w", def.Name, err)
	}
	return &database{
		Database: def.Database, log: log, gaps: e.gaps, metrics: e.metrics.Capture(def.Name), stream: e.metrics.Stream(def.Name),
		managedBy: managedByAPI, foundSlot: def.foundSlot, broken: why.Error(), life: newLifetime(),
	}, nil
}

// keepRemoved opens the log of a database that was deleted, so that retention goes on in
// it. The last batch is never taken; with nothing else the database is forgotten.
func (e *Engine) keepRemoved(ctx context.Context, name string) error {
	if e.database(name) != nil {
		return nil
	}
	log, err := e.stream.Log(ctx, name)
	if err != nil {
		return fmt.Errorf("open the log of database %s, which was deleted: %w", name, err)
	}
	if log.First() < log.Last().Seq {
		return nil
	}
	return e.definitions.forget(ctx, name)
}

// Change implements [api.ManagedDatabases].
func (m managed) Change(ctx context.Context, name string, tables []string) error {
	release, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	d, err := m.find(name)
	if err != nil {
		return err
	}
	switch {
	case d.broken != "":
		return fmt.Errorf("database %q cannot be opened: %s: %w", name, d.broken, lockstep.ErrConflict)
	case d.capture == nil:
		return fmt.Errorf("database %q has no tables to capture: it was made with capture: none: %w", name, lockstep.ErrConflict)
	}
	wrong := &api.DatabaseError{Name: name}
	for i, text := range tables {
		if err := checkPattern(text); text == "" || err != nil {
			wrong.Wrong = append(wrong.Wrong, api.DatabaseFault{Field: fmt.Sprintf("tables[%d]", i), Message: fmt.Sprintf("%q is not a pattern: write schema.table, schema.* or -schema.table to exclude", text)})
		}
	}
	if len(wrong.Wrong) > 0 {
		return wrong
	}
	ctx = context.WithoutCancel(ctx) // who hangs up must not leave it stopped
	next, err := m.renewed(ctx, d, tables)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	if err := m.definitions.update(bound, definition{Database: next.Database, foundSlot: d.foundSlot}); err != nil {
		return err
	}
	return m.exchange(d, next) //nolint:contextcheck // it lives as long as the node
}

// renewed makes a database anew that was captured, with the same pool and log.
func (m managed) renewed(ctx context.Context, d *database, tables []string) (*database, error) {
	next := &database{
		Database: d.Database, url: d.url, pool: d.pool, log: d.log, gaps: d.gaps, metrics: d.metrics, stream: d.stream,
		managedBy: d.managedBy, foundSlot: d.foundSlot, life: d.life,
	}
	next.Tables = tables
	if err := m.prepareCapture(ctx, next); err != nil {
		return nil, fmt.Errorf("database %q: %w", d.Name, err)
	}
	return next, nil
}

// exchange lets the new one capture in the place of the old one.
func (m managed) exchange(old, next *database) error {
	if err := m.captures.stop(old.Name); err != nil {
		return fmt.Errorf("database %q: its capture does not end; restart the node: %w", old.Name, err)
	}
	m.databases.put(next)
	m.captures.start(next)
	return nil
}

// dropWithin bounds what is done in a database that is deleted.
const dropWithin = 10 * time.Second

// drop removes what was made for capture in the database, and tells what is left.
func (d *database) drop(ctx context.Context, gone *api.DatabaseRemoval) error {
	ctx, cancel := context.WithTimeout(ctx, dropWithin)
	defer cancel()
	if d.foundSlot {
		gone.Left = append(gone.Left, "slot "+d.Slot+": it was there before; "+d.dropSlotSQL())
	} else {
		dropped, err := wal.DropSlot(ctx, d.pool, d.Slot)
		if err != nil {
			return fmt.Errorf("%w; or repeat with keep_slot=true, and drop it there: %s", err, d.dropSlotSQL())
		}
		if dropped {
			gone.Dropped = append(gone.Dropped, "slot "+d.Slot)
		}
	}
	dropped, left, err := publish.Remove(ctx, d.pool, d.Publication)
	if err != nil { // they hold nothing up
		gone.Left = append(gone.Left, fmt.Sprintf("publication %s: %s; %s", d.Publication, obs.Scrub(err.Error()), dropPublicationSQL(d.Publication)))
		return nil
	}
	for _, name := range dropped {
		gone.Dropped = append(gone.Dropped, "publication "+name)
	}
	for _, name := range left {
		gone.Left = append(gone.Left, "publication "+name+": somebody else made it, or it belongs to another role; "+dropPublicationSQL(name))
	}
	return nil
}

// keep tells what stays in the database.
func (d *database) keep(gone *api.DatabaseRemoval) {
	if d.Capture == config.CaptureNone {
		return
	}
	gone.Left = append(gone.Left, "slot "+d.Slot+": kept, as asked; "+d.dropSlotSQL())
	for _, name := range []string{d.Publication, d.Publication + publish.InsertsSuffix} {
		gone.Left = append(gone.Left, "publication "+name+": kept, as asked; "+dropPublicationSQL(name))
	}
}

func (d *database) dropSlotSQL() string {
	return "SELECT pg_drop_replication_slot(" + strings.TrimSpace(pgdb.QuoteLiteral(d.Slot)) + ");"
}

func dropPublicationSQL(name string) string {
	return "DROP PUBLICATION IF EXISTS " + pgdb.QuoteIdent(name) + ";"
}
