package api

import (
	"fmt"
	"time"

	"lockstep"
)

// Who keeps a definition: a caller of the API, the node's own configuration, or a file
// that lockstep apply was given.
const (
	keptByAPI   = "api"
	keptByFile  = "file"
	keptByApply = "apply"
)

// Claim says on whose behalf a definition is made, changed or deleted, and from what the
// caller has seen of it. It stands in the query.
type Claim struct {
	AppliedFrom string    `query:"applied_from" maxLength:"200" doc:"The file that lockstep apply makes it from. What it makes or changes is managed_by apply from then on"`
	Override    bool      `query:"override" doc:"Also what is managed_by apply, and what was applied from another file. Who keeps it stays as it is, unless applied_from says otherwise"`
	Expected    time.Time `query:"expected_updated_at" doc:"The updated_at that the caller has seen: a definition that was changed since gives 409, and stays"`
}

// keeper is what a claim is checked against.
type keeper struct {
	what, name  string // sync or consumer, and its name
	managedBy   string
	appliedFrom string
	updated     time.Time
}

// check refuses a change of what was changed meanwhile, and one of what somebody else
// keeps. What the configuration keeps is refused elsewhere, whatever a claim says.
func (c Claim) check(k keeper) error {
	if !c.Expected.IsZero() && !c.Expected.Equal(k.updated) {
		return fmt.Errorf("%s %q was changed at %s, after it was read: look at it again: %w", k.what, k.name, k.updated.UTC().Format(time.RFC3339Nano), lockstep.ErrConflict)
	}
	if k.managedBy != keptByApply || c.Override || c.AppliedFrom == k.appliedFrom {
		return nil
	}
	if c.AppliedFrom != "" {
		return fmt.Errorf("%s %q was applied from %s: change it there, or take it over with --override (in the API: override=true): %w", k.what, k.name, k.appliedFrom, lockstep.ErrConflict)
	}
	return fmt.Errorf("%s %q was applied from %s: change it there and run lockstep apply, or do it all the same with --override (in the API: override=true), which the next lockstep plan shows: %w", k.what, k.name, k.appliedFrom, lockstep.ErrConflict)
}

// take writes into a definition who keeps it from now on.
func (c Claim) take(managedBy, appliedFrom *string) {
	if c.AppliedFrom != "" {
		*managedBy, *appliedFrom = keptByApply, c.AppliedFrom
	}
}

// overrides is what the audit keeps of a claim.
type overrides bool

// deletion is what the audit keeps of a deletion that overrode a file.
type deletion struct {
	Override    overrides `json:"override,omitempty"`
	AppliedFrom string    `json:"applied_from,omitempty"`
}

// after is the deletion for the audit; nil: nothing is to be told.
func (c Claim) after() any {
	if !c.Override && c.AppliedFrom == "" {
		return nil
	}
	return deletion{Override: overrides(c.Override), AppliedFrom: c.AppliedFrom}
}

// staleError says that a definition was changed between a caller's look and its change.
type staleError struct{ name string }

// Error implements error.
func (e *staleError) Error() string {
	return fmt.Sprintf("consumer %q was changed meanwhile: look at it again", e.name)
}

// Unwrap returns [lockstep.ErrConflict].
func (e *staleError) Unwrap() error { return lockstep.ErrConflict }
