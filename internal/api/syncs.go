package api

import (
	"context"
	"net/http"

	"lockstep/internal/pull/verify"
	"lockstep/internal/syncs"
)

// Syncs is the control plane of syncs. A ref is an id or a name. Errors of all
// methods: [lockstep.ErrNotFound] for a sync that is not there, and
// [lockstep.ErrConflict] for one of the configuration that is to be changed.
//
// A view's credential need not hold values, but its kind and the names of its
// properties; nothing else of it is shown.
type Syncs interface {
	// List returns all syncs, by name.
	List(ctx context.Context) ([]syncs.View, error)
	Get(ctx context.Context, ref string) (syncs.View, error)
	// Create makes a sync and begins to mirror. The id, the times and what manages it
	// are filled in, as are name, database and schema where they are left out. Errors:
	// [*syncs.DefinitionError], and [lockstep.ErrConflict] for a name or schema that
	// is taken.
	Create(ctx context.Context, d syncs.Definition) (syncs.View, error)
	// Update replaces the definition by what change makes of it. change is given the
	// definition with its credential and may be called again; its error ends Update,
	// and nothing has changed then. Errors as of Create.
	Update(ctx context.Context, ref string, change func(*syncs.Definition) error) (syncs.View, error)
	// Delete ends the sync and forgets its state. The tables stay.
	Delete(ctx context.Context, ref string) error
	// Run polls at once, and sweeps what is due.
	Run(ctx context.Context, ref string) (syncs.View, error)
	// Pause asks the API nothing more, over restarts too, until Resume.
	Pause(ctx context.Context, ref string) (syncs.View, error)
	Resume(ctx context.Context, ref string) (syncs.View, error)
	// Resync reads everything again; no collections: all of them.
	Resync(ctx context.Context, ref string, collections []string) (syncs.View, error)
	// Wait returns nil when everything that was in the API when it was called is in
	// Postgres and, unless consumer is empty, acked by that consumer; otherwise when
	// ctx ends. A sync that will not get there gives an error at once:
	// [lockstep.ErrConflict] for one that is paused or needs a person.
	Wait(ctx context.Context, ref, consumer string) error
	// Verify compares the API with the tables until it is done or ctx ends.
	Verify(ctx context.Context, ref string, o syncs.VerifyOptions) (verify.Result, error)
	// Log returns up to limit entries with ids below before, newest first; 0: from the
	// newest on.
	Log(ctx context.Context, ref string, before int64, limit int) ([]syncs.Entry, error)
	// Receive takes a webhook. It must return soon. [lockstep.ErrInvalid]: unsigned or
	// forged; [lockstep.ErrUnavailable]: not now, the caller should try again.
	Receive(ctx context.Context, ref string, header http.Header, body []byte) error
}

func noSyncs() error {
	return problem(http.StatusServiceUnavailable, "this node runs no syncs, or is still starting").header("Retry-After", "1")
}
