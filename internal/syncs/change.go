package syncs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/mirror"
)

// Create stores a new sync and starts it. It sets the id, the times and, unless it is
// managed by apply, that it was made by API, and fills in what was left out: the name and the schema by the provider, the database when there
// is only one.
//
// Errors: a [DefinitionError]; [lockstep.ErrConflict] for a name or schema that is
// taken; [lockstep.ErrUnavailable] while the database is away.
func (s *Set) Create(ctx context.Context, d Definition) (View, error) {
	s.change.Lock()
	defer s.change.Unlock()
	id, err := uuid.NewV7()
	if err != nil {
		return View{}, fmt.Errorf("make an id for sync %q: %w", d.Name, err)
	}
	if d.ID = id.String(); d.ManagedBy != managedByApply {
		d.ManagedBy = managedByAPI
	}
	account, err := s.complete(&d)
	if err != nil {
		return View{}, err
	}
	// Whose names and schemas are taken is known when they have been loaded.
	st := s.store(d.Database)
	if err := st.await(ctx, d.Name); err != nil {
		return View{}, err
	}
	if err := s.mayStore(d); err != nil {
		return View{}, err
	}
	at, err := st.put(ctx, d, account.Prefix())
	if err != nil {
		return View{}, err
	}
	d.CreatedAt, d.UpdatedAt = at.created, at.updated
	r := newRunner(s, d)
	s.mu.Lock()
	s.runners[d.ID] = r
	s.mu.Unlock()
	s.start(r) //nolint:contextcheck // it lives as long as Work
	return r.view(), nil
}

// complete fills in what was left out, and checks everything.
func (s *Set) complete(d *Definition) (Account, error) {
	if d.Database == "" && len(s.config.Targets) == 1 {
		d.Database = s.config.Targets[0].Name
	}
	account, problems := s.config.Resolve(*d)
	if account != nil {
		d.Collections = account.Names()
		if d.Schema == "" {
			d.Schema = account.Prefix()
		}
		for n := 1; d.Name == ""; n++ {
			name := account.Prefix()
			if n > 1 {
				name = fmt.Sprintf("%s-%d", name, n)
			}
			if _, err := s.find(name); err != nil {
				d.Name = name
			}
		}
	}
	if problems = append(s.problems(*d, account), problems...); len(problems) > 0 {
		return nil, &DefinitionError{Name: d.Name, Problems: problems}
	}
	return account, nil
}

// mayStore checks that nobody else has the name or the schema.
func (s *Set) mayStore(d Definition) error {
	if other, err := s.find(d.Name); err == nil && other.id != d.ID {
		return fmt.Errorf("there is a sync %q already, with the id %s: %w", d.Name, other.id, lockstep.ErrConflict)
	}
	for _, r := range s.list() {
		if o := r.definition(); o.ID != d.ID && o.Database == d.Database && o.Schema == d.Schema {
			return fmt.Errorf("the schema %s belongs to the sync %q: give this one a schema of its own: %w", d.Schema, o.Name, lockstep.ErrConflict)
		}
	}
	return nil
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)

// minEvery keeps an API from being asked without a pause.
const minEvery = 100 * time.Millisecond

func (s *Set) problems(d Definition, account Account) []Problem {
	var list []Problem
	add := func(field, format string, args ...any) {
		list = append(list, Problem{field, fmt.Sprintf(format, args...)})
	}
	if d.Name == "" && account == nil {
		d.Name = d.Provider // it is made of the prefix, which is not known
	}
	if !namePattern.MatchString(d.Name) || uuid.Validate(d.Name) == nil {
		add("name", "%q cannot be a name: use 1 to 63 of A-Z a-z 0-9 _ . - and not the form of a uuid", d.Name)
	}
	if s.store(d.Database) == nil {
		add("database", "there is no database %q: say which of %s", d.Database, s.databases())
	}
	if (d.Schema != "" || account != nil) && reserved(d.Schema) {
		add("schema", "%q is not a schema for mirror tables: choose another name", d.Schema)
	}
	if d.Every != 0 && (d.Every < minEvery || d.Every > 30*24*time.Hour) {
		add("every", "%s is out of range: %s to 720h", d.Every, minEvery)
	}
	l := d.RateLimit
	if l.RequestsPerSecond < 0 || l.MaxConcurrent < 0 || l.Reserve < 0 || l.Reserve >= 1 {
		add("rate_limit", "numbers must not be negative, and reserve is below 1")
	}
	if len(d.Metadata) > 0 && !json.Valid(d.Metadata) {
		add("metadata", "is not JSON")
	}
	return list
}

func reserved(schema string) bool {
	return schema == "" || len(schema) > 63 || strings.ContainsRune(schema, 0) || strings.HasPrefix(schema, "pg_") || schema == "information_schema" || schema == "lockstep"
}

// Update changes a sync: it ends, and goes on under its new definition from where it
// was. Where a mirror lies cannot be changed; that apply manages it from now on can.
func (s *Set) Update(ctx context.Context, ref string, change func(*Definition) error) (View, error) {
	s.change.Lock()
	defer s.change.Unlock()
	r, err := s.mayChange(ref)
	if err != nil {
		return View{}, err
	}
	st := s.store(r.definition().Database)
	// What is changed, and whose names and schemas are taken, is known when they have
	// been loaded; and another node may have changed it since.
	if err := st.await(ctx, r.definition().Name); err != nil {
		return View{}, err
	}
	row, there, err := st.one(ctx, r.id)
	if err != nil {
		return View{}, errors.Join(err, lockstep.ErrUnavailable)
	}
	if !there {
		return View{}, fmt.Errorf("sync %q: %w", ref, lockstep.ErrNotFound)
	}
	before := row.definition
	d := before
	d.Collections = slices.Clone(d.Collections)
	if err := change(&d); err != nil {
		return View{}, err
	}
	if d.ManagedBy != managedByApply {
		d.ManagedBy = before.ManagedBy
	}
	d.ID, d.CreatedAt, d.Paused = before.ID, before.CreatedAt, before.Paused
	if d.Database != before.Database || d.Schema != before.Schema || d.Provider != before.Provider {
		return View{}, fmt.Errorf("sync %q: provider, database and schema cannot be changed: make another sync: %w", before.Name, lockstep.ErrConflict)
	}
	account, err := s.complete(&d)
	if err != nil {
		return View{}, err
	}
	if err := s.mayStore(d); err != nil {
		return View{}, err
	}
	at, err := st.put(ctx, d, account.Prefix())
	if err != nil {
		return View{}, err
	}
	d.CreatedAt, d.UpdatedAt = at.created, at.updated
	r.follow(stored{definition: d})
	return r.view(), nil
}

// Delete ends a sync and forgets it. Its tables stay: they may be all that is left of
// the data.
func (s *Set) Delete(ctx context.Context, ref string) error {
	s.change.Lock()
	defer s.change.Unlock()
	r, err := s.mayChange(ref)
	if err != nil {
		return err
	}
	d := r.definition()
	st := s.store(d.Database)
	if err := st.await(ctx, d.Name); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // who hangs up must not leave it stopped and there
	r.halt(ctx)
	if err := mirror.Forget(ctx, st.target.Pool, d.ID); err != nil {
		s.revive(r) //nolint:contextcheck // it lives as long as Work
		return errors.Join(err, lockstep.ErrUnavailable)
	}
	s.drop(r)
	return nil
}

// mayChange returns a sync, unless the configuration defines it: the next start would
// undo the change.
func (s *Set) mayChange(ref string) (*runner, error) {
	r, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if d := r.definition(); d.ManagedBy == managedByFile {
		return nil, fmt.Errorf("sync %q is defined in the configuration: change it there and restart: %w", d.Name, lockstep.ErrConflict)
	}
	return r, nil
}
