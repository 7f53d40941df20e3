package api

import (
	"context"
	"net/http"
	"strconv"

	"lockstep/internal/auth"
	"lockstep/internal/syncs"
)

type (
	syncInput struct {
		Claim
		Body SyncBody
	}
	syncChangeInput struct {
		Claim
		ID   string `path:"id" doc:"Id or name"`
		Body SyncBody
	}
	endInput struct {
		Claim
		ID string `path:"id" doc:"Id or name"`
	}
	syncOutput struct {
		Location string `header:"Location"`
		Body     SyncView
	}
	syncsOutput struct{ Body List[SyncView] }
	resyncInput struct {
		ID   string `path:"id" doc:"Id or name"`
		Body *struct {
			Collections []string `json:"collections,omitempty" doc:"Default: all"`
		} `doc:"Without a body: every collection"`
	}
	syncLogInput struct {
		ID     string `path:"id" doc:"Id or name"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
		Cursor string `query:"cursor" doc:"next_cursor of the page before"`
	}
	syncLogOutput struct{ Body List[SyncEntryView] }
)

const syncTag = "syncs"

func (a *API) syncRoutes() {
	read := func(path string) Route {
		return Route{Method: http.MethodGet, Path: "/v1/syncs" + path, Need: auth.NeedRead}
	}
	write := func(method, path, action string) Route {
		return Route{Method: method, Path: "/v1/syncs" + path, Need: auth.NeedWrite, Audit: "sync." + action}
	}
	typed(a, read(""), about{"list-syncs", "List syncs", syncTag, 200}, a.listSyncs)
	typedAudited(a, write(http.MethodPost, "", "create"), about{"create-sync", "Mirror an account of an API", syncTag, 201}, a.createSync)
	typed(a, read("/{id}"), about{"get-sync", "Show a sync and how it is", syncTag, 200}, a.getSync)
	typedAudited(a, write(http.MethodPatch, "/{id}", "change"), about{"change-sync", "Change a sync: what is left out stays", syncTag, 200}, a.changeSync)
	typedAudited(a, write(http.MethodDelete, "/{id}", "delete"), about{"delete-sync", "End a sync and forget its state; its tables stay", syncTag, 204}, a.deleteSync)
	for _, s := range []struct {
		verb, summary string
		do            func(Syncs, context.Context, string) (syncs.View, error)
	}{
		{"run", "Ask the API for everything now", Syncs.Run},
		{"pause", "Ask the API nothing until resumed", Syncs.Pause},
		{"resume", "Go on where it was paused", Syncs.Resume},
	} {
		typedAudited(a, write(http.MethodPost, "/{id}/"+s.verb, s.verb), about{s.verb + "-sync", s.summary, syncTag, 200}, a.steerSync(s.do))
	}
	typedAudited(a, write(http.MethodPost, "/{id}/resync", "resync"), about{"resync-sync", "Read everything again; nothing is deleted for it", syncTag, 200}, a.resync)
	typed(a, read("/{id}/log"), about{"sync-log", "What a sync did, newest first", syncTag, 200}, a.syncLog)
	a.syncWaitRoutes(read, write)
	a.webhookRoutes()
}

// mirrors returns the syncs of the node.
func (a *API) mirrors() (Syncs, error) {
	if a.syncs == nil {
		return nil, noSyncs()
	}
	return a.syncs, nil
}

func (a *API) listSyncs(ctx context.Context, _ *noInput) (*syncsOutput, error) {
	set, err := a.mirrors()
	if err != nil {
		return nil, err
	}
	all, err := set.List(ctx)
	if err != nil {
		return nil, err
	}
	out := &syncsOutput{Body: List[SyncView]{Data: []SyncView{}}}
	for _, v := range all {
		out.Body.Data = append(out.Body.Data, viewOfSync(v))
	}
	return out, nil
}

func (a *API) getSync(ctx context.Context, in *idInput) (*syncOutput, error) {
	v, err := a.sync(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &syncOutput{Body: viewOfSync(v)}, nil
}

func (a *API) sync(ctx context.Context, ref string) (syncs.View, error) {
	set, err := a.mirrors()
	if err != nil {
		return syncs.View{}, err
	}
	return set.Get(ctx, ref)
}

func (a *API) createSync(ctx context.Context, in *syncInput) (*syncOutput, note, error) {
	set, err := a.mirrors()
	if err != nil {
		return nil, note{}, err
	}
	var d syncs.Definition
	var f faults
	in.Body.apply(&d, &f)
	if err := f.problem(); err != nil {
		return nil, note{}, err
	}
	in.take(&d.ManagedBy, &d.AppliedFrom)
	v, err := set.Create(ctx, d)
	if err != nil {
		return nil, note{}, f.invalidSync(err)
	}
	out := &syncOutput{Location: "/v1/syncs/" + v.Definition.ID, Body: viewOfSync(v)}
	return out, note{target: v.Definition.Name, after: auditOfSync(v.Definition)}, nil
}

func (a *API) changeSync(ctx context.Context, in *syncChangeInput) (*syncOutput, note, error) {
	set, err := a.mirrors()
	if err != nil {
		return nil, note{}, err
	}
	var before syncs.Definition
	v, err := set.Update(ctx, in.ID, func(d *syncs.Definition) error {
		before = *d
		if err := in.check(keeperOfSync(before)); err != nil {
			return err
		}
		in.take(&d.ManagedBy, &d.AppliedFrom)
		return in.Body.change(d)
	})
	if err != nil {
		return nil, note{}, faults{}.invalidSync(err)
	}
	after := auditOfSync(v.Definition)
	after.Renewed, after.Override = in.Body.Credential != nil, overrides(in.Override)
	return &syncOutput{Body: viewOfSync(v)}, note{target: before.Name, before: auditOfSync(before), after: after}, nil
}

// change writes what the body says into a definition that is in use.
func (b SyncBody) change(d *syncs.Definition) error {
	before := *d
	var f faults
	b.apply(d, &f)
	for _, fixed := range []struct{ field, was, is string }{
		{"provider", before.Provider, d.Provider}, {"database", before.Database, d.Database}, {"schema", before.Schema, d.Schema},
	} {
		if fixed.was != fixed.is {
			f.add(fixed.field, "it cannot be changed: make another sync")
		}
	}
	if before.Paused != d.Paused {
		f.add("paused", "it is changed by pause and resume")
	}
	b.moved(before, *d, &f)
	return f.problem()
}

func (a *API) deleteSync(ctx context.Context, in *endInput) (*emptyOutput, note, error) {
	v, err := a.sync(ctx, in.ID)
	if err != nil {
		return nil, note{}, err
	}
	d := v.Definition
	if err := in.check(keeperOfSync(d)); err != nil {
		return nil, note{}, err
	}
	return nil, note{target: d.Name, before: auditOfSync(d), after: in.after()}, a.syncs.Delete(ctx, d.ID)
}

func keeperOfSync(d syncs.Definition) keeper {
	return keeper{what: "sync", name: d.Name, managedBy: d.ManagedBy, appliedFrom: d.AppliedFrom, updated: d.UpdatedAt}
}

func (a *API) steerSync(do func(Syncs, context.Context, string) (syncs.View, error)) func(context.Context, *idInput) (*syncOutput, note, error) {
	return func(ctx context.Context, in *idInput) (*syncOutput, note, error) {
		before, err := a.sync(ctx, in.ID)
		if err != nil {
			return nil, note{}, err
		}
		after, err := do(a.syncs, ctx, before.Definition.ID)
		if err != nil {
			return nil, note{}, err
		}
		n := note{target: before.Definition.Name, before: pausing{before.Definition.Paused}, after: pausing{after.Definition.Paused}}
		return &syncOutput{Body: viewOfSync(after)}, n, nil
	}
}

func (a *API) resync(ctx context.Context, in *resyncInput) (*syncOutput, note, error) {
	set, err := a.mirrors()
	if err != nil {
		return nil, note{}, err
	}
	collections := []string{}
	if in.Body != nil {
		collections = append(collections, in.Body.Collections...)
	}
	v, err := set.Resync(ctx, in.ID, collections)
	if err != nil {
		return nil, note{}, unprocessable(err)
	}
	return &syncOutput{Body: viewOfSync(v)}, note{target: v.Definition.Name, after: map[string][]string{"collections": collections}}, nil
}

func (a *API) syncLog(ctx context.Context, in *syncLogInput) (*syncLogOutput, error) {
	set, err := a.mirrors()
	if err != nil {
		return nil, err
	}
	var before int64
	if in.Cursor != "" {
		if before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil || before < 1 {
			return nil, bad("query.cursor", "cursor must be the next_cursor of the page before")
		}
	}
	found, err := set.Log(ctx, in.ID, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := &syncLogOutput{Body: List[SyncEntryView]{Data: []SyncEntryView{}}}
	for _, e := range found[:min(len(found), in.Limit)] {
		out.Body.Data = append(out.Body.Data, viewOfEntry(e))
	}
	if len(found) > in.Limit {
		next := strconv.FormatInt(found[in.Limit-1].ID, 10)
		out.Body.NextCursor = &next
	}
	return out, nil
}
