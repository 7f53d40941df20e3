package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

// family is one of the two sets of addresses under which consumers are found.
type family struct {
	base string // /v1/consumers
	noun string // for ids and summaries of operations
	kind string // only consumers of this kind are found here; empty: all
}

func families() []family {
	return []family{{base: "/v1/consumers", noun: "consumer"}, {base: "/v1/http-consumers", noun: "http-consumer", kind: "http"}}
}

type (
	consumerInput struct {
		Claim
		Body ConsumerBody
	}
	httpConsumerInput struct {
		Claim
		Body HTTPConsumerBody
	}
	changeInput struct {
		Claim
		ID   string `path:"id" doc:"Id or name"`
		Body ConsumerBody
	}
	httpChangeInput struct {
		Claim
		ID   string `path:"id" doc:"Id or name"`
		Body HTTPConsumerBody
	}
	consumerOutput struct {
		Location string `header:"Location"`
		Body     ConsumerView
	}
	httpConsumerOutput struct {
		Location string `header:"Location"`
		Body     HTTPConsumerView
	}
	consumersOutput     struct{ Body List[ConsumerView] }
	httpConsumersOutput struct{ Body List[HTTPConsumerView] }
)

// definer is a body that defines a consumer.
type definer interface {
	apply(d *deliver.Definition, f *faults)
	kindSettings() map[string]json.RawMessage
	collectionAt(i int) string
}

func (a *API) consumerRoutes() {
	for _, f := range families() {
		read := func(path string) Route {
			return Route{Method: http.MethodGet, Path: f.base + path, Need: auth.NeedRead, Consumer: path != ""}
		}
		write := func(method, path, action string) Route {
			return Route{Method: method, Path: f.base + path, Need: auth.NeedWrite, Audit: "consumer." + action, Consumer: path != ""}
		}
		list := about{"list-" + f.noun + "s", "List consumers", "consumers", 200}
		create := about{"create-" + f.noun, "Make a consumer", "consumers", 201}
		get := about{"get-" + f.noun, "Show a consumer", "consumers", 200}
		change := about{"change-" + f.noun, "Change a consumer: what is left out stays", "consumers", 200}
		if f.kind == "" {
			typed(a, read(""), list, a.listConsumers)
			typedAudited(a, write(http.MethodPost, "", "create"), create, a.createConsumer)
			typed(a, read("/{id}"), get, a.getConsumer)
			typedAudited(a, write(http.MethodPatch, "/{id}", "change"), change, a.changeConsumer)
		} else {
			typed(a, read(""), list, a.listHTTPConsumers)
			typedAudited(a, write(http.MethodPost, "", "create"), create, a.createHTTPConsumer)
			typed(a, read("/{id}"), get, a.getHTTPConsumer)
			typedAudited(a, write(http.MethodPatch, "/{id}", "change"), change, a.changeHTTPConsumer)
		}
		typedAudited(a, write(http.MethodDelete, "/{id}", "delete"), about{"delete-" + f.noun, "Delete a consumer, its position and its dead letters", "consumers", 204}, a.deleteConsumer(f))
		typedAudited(a, write(http.MethodPost, "/{id}/pause", "pause"), about{"pause-" + f.noun, "Hand out nothing until resumed", "consumers", 204}, a.pauseConsumer(f))
		typedAudited(a, write(http.MethodPost, "/{id}/resume", "resume"), about{"resume-" + f.noun, "Hand out again", "consumers", 204}, a.resumeConsumer(f))
		typedAudited(a, write(http.MethodPost, "/{id}/seek", "seek"), about{"seek-" + f.noun, "Replay from a place; outstanding tokens become stale", "consumers", 204}, a.seekConsumer(f))
	}
}

// consumer finds a consumer among those of the family.
func (a *API) consumer(f family, idOrName string) (Consumer, error) {
	c, err := a.consumers.Find(idOrName)
	if err != nil {
		return nil, err
	}
	if f.kind != "" && c.Definition().Kind != f.kind {
		return nil, fmt.Errorf("consumer %q is of kind %s, see /v1/consumers: %w", idOrName, c.Definition().Kind, lockstep.ErrNotFound)
	}
	return c, nil
}

func (a *API) list(f family) []Consumer {
	var out []Consumer
	for _, c := range a.consumers.List() {
		if f.kind == "" || c.Definition().Kind == f.kind {
			out = append(out, c)
		}
	}
	return out
}

func (a *API) listConsumers(context.Context, *noInput) (*consumersOutput, error) {
	out := &consumersOutput{Body: List[ConsumerView]{Data: []ConsumerView{}}}
	for _, c := range a.list(families()[0]) {
		out.Body.Data = append(out.Body.Data, a.viewOfConsumer(c))
	}
	return out, nil
}

func (a *API) listHTTPConsumers(context.Context, *noInput) (*httpConsumersOutput, error) {
	out := &httpConsumersOutput{Body: List[HTTPConsumerView]{Data: []HTTPConsumerView{}}}
	for _, c := range a.list(families()[1]) {
		out.Body.Data = append(out.Body.Data, a.viewOfHTTPConsumer(c))
	}
	return out, nil
}

func (a *API) getConsumer(_ context.Context, in *idInput) (*consumerOutput, error) {
	c, err := a.consumer(families()[0], in.ID)
	if err != nil {
		return nil, err
	}
	return &consumerOutput{Body: a.viewOfConsumer(c)}, nil
}

func (a *API) getHTTPConsumer(_ context.Context, in *idInput) (*httpConsumerOutput, error) {
	c, err := a.consumer(families()[1], in.ID)
	if err != nil {
		return nil, err
	}
	return &httpConsumerOutput{Body: a.viewOfHTTPConsumer(c)}, nil
}

func (a *API) createConsumer(ctx context.Context, in *consumerInput) (*consumerOutput, note, error) {
	c, err := a.define(ctx, in.Body, in.Claim)
	if err != nil {
		return nil, note{}, err
	}
	v := a.viewOfConsumer(c)
	return &consumerOutput{Location: "/v1/consumers/" + v.ID, Body: v}, note{target: v.Name, after: bodyOf(c.Definition())}, nil
}

func (a *API) createHTTPConsumer(ctx context.Context, in *httpConsumerInput) (*httpConsumerOutput, note, error) {
	c, err := a.define(ctx, in.Body, in.Claim)
	if err != nil {
		return nil, note{}, err
	}
	v := a.viewOfHTTPConsumer(c)
	return &httpConsumerOutput{Location: "/v1/http-consumers/" + v.ID, Body: v}, note{target: v.Name, after: bodyOf(c.Definition())}, nil
}

// define makes a consumer of a body.
func (a *API) define(ctx context.Context, body definer, claim Claim) (Consumer, error) {
	var d deliver.Definition
	claim.take(&d.ManagedBy, &d.AppliedFrom)
	var f faults
	body.apply(&d, &f)
	a.kindly(body.kindSettings(), &d, &f)
	a.checkCollections(nil, d.Collections, body, &f)
	db, err := a.databaseFor(&d)
	if err != nil {
		f.add("database", "%s", err)
	} else {
		resolveLast(&d, db.Log)
	}
	if d.Name == "" {
		f.add("name", "a consumer needs a name")
	}
	if err := f.problem(); err != nil {
		return nil, err
	}
	if d.Backfill && a.backfills == nil {
		return nil, noBackfills()
	}
	c, err := a.consumers.Create(ctx, d)
	if err != nil {
		return nil, f.invalid(err)
	}
	made := c.Definition()
	return c, a.wanted(ctx, deliver.Definition{}, made, func(ctx context.Context) error { return a.consumers.Delete(ctx, made.ID) })
}

// databaseFor returns the database that a definition names. The only one of the
// configuration need not be named, whatever others were made by API.
func (a *API) databaseFor(d *deliver.Definition) (Database, error) {
	all := a.databases()
	if d.Database == "" && len(all) > 0 && (len(all) == 1 || all[1].ManagedBy == keptByAPI) {
		d.Database = all[0].Name
	}
	var names []string
	for _, db := range all {
		if db.Name == d.Database {
			return db, nil
		}
		names = append(names, db.Name)
	}
	if d.Database == "" {
		return Database{}, fmt.Errorf("say which database's changes the consumer gets: one of %q", names)
	}
	return Database{}, fmt.Errorf("there is no database %q: use one of %q", d.Database, names)
}

func (a *API) changeConsumer(ctx context.Context, in *changeInput) (*consumerOutput, note, error) {
	c, n, err := a.change(ctx, families()[0], in.ID, in.Body, in.Claim)
	if err != nil {
		return nil, n, err
	}
	return &consumerOutput{Body: a.viewOfConsumer(c)}, n, nil
}

func (a *API) changeHTTPConsumer(ctx context.Context, in *httpChangeInput) (*httpConsumerOutput, note, error) {
	c, n, err := a.change(ctx, families()[1], in.ID, in.Body, in.Claim)
	if err != nil {
		return nil, n, err
	}
	return &httpConsumerOutput{Body: a.viewOfHTTPConsumer(c)}, n, nil
}

// changeTries bounds how often a change is made anew because another one came between.
const changeTries = 8

// change gives a consumer what the body says; the rest stays, as it is when the change is
// made.
func (a *API) change(ctx context.Context, fam family, idOrName string, body definer, claim Claim) (c Consumer, n note, err error) {
	for range changeTries {
		var stale *staleError
		if c, n, err = a.changeSeen(ctx, fam, idOrName, body, claim); !errors.As(err, &stale) {
			return c, n, err
		}
	}
	return nil, note{}, err
}

// changeSeen changes a consumer, unless it is changed meanwhile.
func (a *API) changeSeen(ctx context.Context, fam family, idOrName string, body definer, claim Claim) (Consumer, note, error) {
	c, err := a.consumer(fam, idOrName)
	if err != nil {
		return nil, note{}, err
	}
	before := c.Definition()
	if err := claim.check(keeperOfConsumer(before)); err != nil {
		return nil, note{}, err
	}
	after := before
	claim.take(&after.ManagedBy, &after.AppliedFrom)
	var f faults
	body.apply(&after, &f)
	if after.Kind == before.Kind {
		a.kindly(body.kindSettings(), &after, &f)
	}
	a.checkCollections(before.Collections, after.Collections, body, &f)
	for _, fixed := range []struct {
		field, was, is, remedy string
	}{
		{"database", before.Database, after.Database, "make another consumer"},
		{"kind", before.Kind, after.Kind, "make another consumer"},
		{"start", before.Start, after.Start, "it has begun already; use seek to go elsewhere"},
	} {
		if fixed.was != fixed.is {
			f.add(fixed.field, "it cannot be changed: %s", fixed.remedy)
		}
	}
	if err := f.problem(); err != nil {
		return nil, note{}, err
	}
	if after.Backfill && !before.Backfill && a.backfills == nil {
		return nil, note{}, noBackfills()
	}
	c, err = a.consumers.Change(ctx, after)
	if err != nil {
		return nil, note{}, f.invalid(err)
	}
	err = a.wanted(ctx, before, after, func(ctx context.Context) error {
		undone := before
		undone.UpdatedAt = c.Definition().UpdatedAt
		_, err := a.consumers.Change(ctx, undone)
		return err
	})
	if err != nil {
		return nil, note{}, err
	}
	changed := consumerAudit{ConsumerBody: bodyOf(c.Definition()), AppliedFrom: claim.AppliedFrom, Override: overrides(claim.Override)}
	return c, note{target: before.Name, before: bodyOf(before), after: changed}, nil
}

// consumerAudit is a definition as the audit keeps it: no secret is in it.
type consumerAudit struct {
	ConsumerBody
	AppliedFrom string    `json:"applied_from,omitempty"`
	Override    overrides `json:"override,omitempty"`
}

func keeperOfConsumer(d deliver.Definition) keeper {
	return keeper{what: "consumer", name: d.Name, managedBy: d.ManagedBy, appliedFrom: d.AppliedFrom, updated: d.UpdatedAt}
}

func (a *API) deleteConsumer(f family) func(context.Context, *endInput) (*emptyOutput, note, error) {
	return func(ctx context.Context, in *endInput) (*emptyOutput, note, error) {
		c, err := a.consumer(f, in.ID)
		if err != nil {
			return nil, note{}, err
		}
		d := c.Definition()
		if err := in.check(keeperOfConsumer(d)); err != nil {
			return nil, note{}, err
		}
		return nil, note{target: d.Name, before: bodyOf(d), after: in.after()}, a.consumers.Delete(ctx, d.ID)
	}
}

// pausing is what a consumer's state is in the audit.
type pausing struct {
	Paused bool `json:"paused"`
}

func (a *API) pauseConsumer(f family) func(context.Context, *idInput) (*emptyOutput, note, error) {
	return func(ctx context.Context, in *idInput) (*emptyOutput, note, error) {
		return a.switched(f, in.ID, func(id string) (Consumer, error) { return a.consumers.Pause(ctx, id) })
	}
}

func (a *API) resumeConsumer(f family) func(context.Context, *idInput) (*emptyOutput, note, error) {
	return func(ctx context.Context, in *idInput) (*emptyOutput, note, error) {
		return a.switched(f, in.ID, func(id string) (Consumer, error) { return a.consumers.Resume(ctx, id) })
	}
}

func (a *API) switched(f family, idOrName string, do func(id string) (Consumer, error)) (*emptyOutput, note, error) {
	c, err := a.consumer(f, idOrName)
	if err != nil {
		return nil, note{}, err
	}
	before := pausing{c.Standing().Paused}
	after, err := do(c.Definition().ID)
	if err != nil {
		return nil, note{}, err
	}
	return nil, note{target: c.Definition().Name, before: before, after: pausing{after.Standing().Paused}}, nil
}

type seekInput struct {
	ID   string `path:"id" doc:"Id or name"`
	Body struct {
		To string `json:"to" doc:"beginning, now, seq:42, a time such as 2026-11-01T00:00:00Z, or 1h for an hour ago" example:"beginning"`
	}
}

func (a *API) seekConsumer(f family) func(context.Context, *seekInput) (*emptyOutput, note, error) {
	return func(ctx context.Context, in *seekInput) (*emptyOutput, note, error) {
		c, err := a.consumer(f, in.ID)
		if err != nil {
			return nil, note{}, err
		}
		before := c.Standing().FloorSeq
		if err := c.Seek(ctx, in.Body.To); err != nil {
			return nil, note{}, err
		}
		n := note{target: c.Definition().Name, before: map[string]uint64{"floor_seq": before}, after: map[string]string{"to": in.Body.To}}
		return nil, n, nil
	}
}
