package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/deliver"
)

// Definitions keeps the definitions of consumers that were made through the API;
// [Postgres] is one.
type Definitions interface {
	// Insert fails with [lockstep.ErrConflict] when the name is taken.
	Insert(ctx context.Context, d deliver.Definition) error
	// Update replaces a definition; [lockstep.ErrNotFound] when there is none.
	Update(ctx context.Context, d deliver.Definition) error
	Delete(ctx context.Context, id string) error
	// Switched stores whether the consumer is paused, also for those of the
	// configuration.
	Switched(ctx context.Context, d deliver.Definition) error
}

// Broker runs consumers.
type Broker interface {
	Find(idOrName string) (Consumer, bool)
	List() []Consumer
	// Put opens a consumer, or gives an open one its new definition.
	Put(ctx context.Context, d deliver.Definition) (Consumer, error)
	// Remove ends a consumer and removes its state and its dead letters.
	Remove(ctx context.Context, id string) error
}

// Registry is the control plane of consumers: it changes what is stored and what
// runs together. It is safe for concurrent use.
type Registry struct {
	// Broker runs consumers; [Deliver] makes one of a *deliver.Broker.
	Broker Broker
	// Store keeps definitions; nil: consumers cannot be made or changed by the API.
	Store Definitions
	// DefinedIn says where a consumer of the configuration is defined, for example
	// "lockstep.yml". Default: the configuration.
	DefinedIn func(name string) string

	mu sync.Mutex // one change at a time, so that store and broker agree
}

var _ Consumers = (*Registry)(nil)

// Find returns the consumer with that id or name.
func (r *Registry) Find(idOrName string) (Consumer, error) {
	c, ok := r.Broker.Find(idOrName)
	if !ok {
		return nil, fmt.Errorf("consumer %q: %w", idOrName, lockstep.ErrNotFound)
	}
	return c, nil
}

// List returns every consumer, by name.
func (r *Registry) List() []Consumer {
	all := r.Broker.List()
	slices.SortFunc(all, func(a, b Consumer) int { return strings.Compare(a.Definition().Name, b.Definition().Name) })
	return all
}

// Create stores and opens a new consumer. It sets the id, the times and, unless apply
// manages it, that it was made by API.
func (r *Registry) Create(ctx context.Context, d deliver.Definition) (Consumer, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id for consumer %q: %w", d.Name, err)
	}
	if d.ID = id.String(); d.ManagedBy != keptByApply {
		d.ManagedBy = keptByAPI
	}
	d.CreatedAt = time.Now().UTC().Truncate(time.Microsecond)
	d.UpdatedAt = d.CreatedAt
	d.Defaults()
	if err := d.Validate(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Store == nil {
		return nil, fmt.Errorf("create consumer %q: this node keeps no definitions: %w", d.Name, lockstep.ErrUnavailable)
	}
	if err := r.free(d); err != nil {
		return nil, err
	}
	if err := r.Store.Insert(ctx, d); err != nil {
		return nil, fmt.Errorf("store consumer %q: %w", d.Name, err)
	}
	c, err := r.Broker.Put(ctx, d)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open consumer %q: %w", d.Name, err), r.undo(ctx, d))
	}
	return c, nil
}

// undo removes a definition whose consumer could not be opened.
func (r *Registry) undo(ctx context.Context, d deliver.Definition) error {
	// The caller may be gone; the half must not stay.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := r.Store.Delete(ctx, d.ID); err != nil {
		return fmt.Errorf("remove the definition of consumer %q: %w", d.Name, err)
	}
	return nil
}

// free checks that no other consumer has the name.
func (r *Registry) free(d deliver.Definition) error {
	if other, ok := r.Broker.Find(d.Name); ok && other.Definition().ID != d.ID {
		return fmt.Errorf("there is a consumer %q already, with the id %s: %w", d.Name, other.Definition().ID, lockstep.ErrConflict)
	}
	return nil
}

// Change replaces the definition of a consumer. UpdatedAt is that of the definition
// which d was made of: one that was changed since is left as it is.
func (r *Registry) Change(ctx context.Context, d deliver.Definition) (Consumer, error) {
	seen := d.UpdatedAt
	d.UpdatedAt = time.Now().UTC().Truncate(time.Microsecond)
	if err := d.Validate(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before, err := r.mayChange(d.ID)
	if err != nil {
		return nil, err
	}
	if !before.UpdatedAt.Equal(seen) {
		return nil, &staleError{before.Name}
	}
	if !d.UpdatedAt.After(seen) { // the clock was set back, or is coarse
		d.UpdatedAt = seen.Add(time.Microsecond)
	}
	if err := r.free(d); err != nil {
		return nil, err
	}
	return r.replace(ctx, before, d)
}

// replace changes what runs first, because only that can tell whether the change is
// possible now, and takes it back when it cannot be stored.
func (r *Registry) replace(ctx context.Context, before, after deliver.Definition) (Consumer, error) {
	c, err := r.Broker.Put(ctx, after)
	if err != nil {
		return nil, err
	}
	if err := r.Store.Update(ctx, after); err != nil {
		// The caller may be gone; what runs must not stay ahead of what is stored.
		_, back := r.Broker.Put(context.WithoutCancel(ctx), before)
		return nil, errors.Join(fmt.Errorf("store consumer %q: %w", after.Name, err), back)
	}
	return c, nil
}

// Delete ends a consumer and removes what is known of it.
func (r *Registry) Delete(ctx context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.mayChange(id); err != nil {
		return err
	}
	if err := r.Store.Delete(ctx, id); err != nil {
		return fmt.Errorf("delete the definition of consumer %s: %w", id, err)
	}
	if err := r.Broker.Remove(ctx, id); err != nil {
		return fmt.Errorf("delete consumer %s: %w", id, err)
	}
	return nil
}

// mayChange returns the definition of a consumer, unless the configuration defines
// it: the next start would undo the change.
func (r *Registry) mayChange(id string) (deliver.Definition, error) {
	c, err := r.Find(id)
	if err != nil {
		return deliver.Definition{}, err
	}
	d := c.Definition()
	if d.ManagedBy == keptByFile {
		where := "the configuration"
		if r.DefinedIn != nil {
			where = r.DefinedIn(d.Name)
		}
		return d, fmt.Errorf("consumer %q is defined in %s: change it there and restart: %w", d.Name, where, lockstep.ErrConflict)
	}
	if r.Store == nil {
		return d, fmt.Errorf("consumer %q: this node keeps no definitions: %w", d.Name, lockstep.ErrUnavailable)
	}
	return d, nil
}

// Pause stops handing out. For consumers of the configuration too: it is a state,
// not a definition.
func (r *Registry) Pause(ctx context.Context, id string) (Consumer, error) {
	return r.pausing(ctx, id, Switch.Pause, Switch.Resume)
}

// Resume is the end of what Pause began.
func (r *Registry) Resume(ctx context.Context, id string) (Consumer, error) {
	return r.pausing(ctx, id, Switch.Resume, Switch.Pause)
}

// Switch is what a consumer offers to be paused by. It lasts as long as the process;
// the registry stores it.
type Switch interface {
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
}

func (r *Registry) pausing(ctx context.Context, id string, do, undo func(Switch, context.Context) error) (Consumer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.Find(id)
	if err != nil {
		return nil, err
	}
	before := c.Standing().Paused
	if err := do(c, ctx); err != nil {
		return nil, err
	}
	if r.Store == nil {
		return c, nil
	}
	d := c.Definition()
	if err := r.Store.Switched(ctx, d); err != nil {
		err = fmt.Errorf("store whether consumer %q is paused: %w", d.Name, err)
		if c.Standing().Paused != before {
			err = errors.Join(err, undo(c, context.WithoutCancel(ctx)))
		}
		return nil, err
	}
	return c, nil
}
