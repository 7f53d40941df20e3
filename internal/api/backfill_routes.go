package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

type (
	startInput struct {
		ID   string        `path:"id" doc:"Id or name of the consumer"`
		Body *BackfillBody `doc:"Without a body: every row of every table that the consumer selects"`
	}
	numberInput struct {
		ID string `path:"id" doc:"Id or name of the consumer"`
		N  string `path:"n" doc:"Its number at the consumer, or its id" example:"1"`
	}
	steerInput struct {
		ID   string `path:"id" doc:"Id or name of the consumer"`
		N    string `path:"n" doc:"Its number at the consumer, or its id" example:"1"`
		Body SteerBody
	}
	backfillIDInput struct {
		ID string `path:"id" doc:"The backfill's id"`
	}
	steerIDInput struct {
		ID   string `path:"id" doc:"The backfill's id"`
		Body SteerBody
	}
	// PageInput asks for a page; exported, or the library that reads inputs skips it.
	PageInput struct {
		Active bool   `query:"active" doc:"Only those that have not ended"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
		Cursor string `query:"cursor" doc:"next_cursor of the page before"`
	}
	consumerBackfillsInput struct {
		ID string `path:"id" doc:"Id or name of the consumer"`
		PageInput
	}
	backfillsInput struct {
		Consumer string `query:"consumer" doc:"Only those of this consumer, by id or name"`
		Database string `query:"database" doc:"Only those of this database"`
		PageInput
	}
	backfillOutput struct {
		Location string `header:"Location"`
		Body     BackfillView
	}
	backfillsOutput struct{ Body List[BackfillView] }
)

func (a *API) backfillRoutes() {
	const tag = "backfills"
	for _, f := range families() {
		route := func(method, path string, need auth.Need, audit string) Route {
			return Route{Method: method, Path: f.base + "/{id}/backfills" + path, Need: need, Audit: audit, Consumer: true}
		}
		typed(a, route(http.MethodGet, "", auth.NeedRead, ""), about{"list-" + f.noun + "-backfills", "List a consumer's backfills, newest first", tag, 200}, a.consumerBackfills(f))
		typedAudited(a, route(http.MethodPost, "", auth.NeedWrite, "backfill.start"),
			about{"start-" + f.noun + "-backfill", "Send existing rows to a consumer, as action read, between the changes", tag, 201}, a.startBackfill(f))
		typed(a, route(http.MethodGet, "/{n}", auth.NeedRead, ""), about{"get-" + f.noun + "-backfill", "Show a backfill", tag, 200}, a.getConsumerBackfill(f))
		typedAudited(a, route(http.MethodPatch, "/{n}", auth.NeedWrite, "backfill.change"),
			about{"change-" + f.noun + "-backfill", "Pause, resume or cancel a backfill", tag, 200}, a.steerConsumerBackfill(f))
	}
	read := func(path string) Route { return Route{Method: http.MethodGet, Path: path, Need: auth.NeedRead} }
	typed(a, read("/v1/backfills"), about{"list-backfills", "List backfills and repairs of gaps, newest first", tag, 200}, a.listBackfills)
	typed(a, read("/v1/backfills/{id}"), about{"get-backfill", "Show a backfill or the repair of a gap", tag, 200}, a.getBackfill)
	typedAudited(a, Route{Method: http.MethodPatch, Path: "/v1/backfills/{id}", Need: auth.NeedWrite, Audit: "backfill.change"},
		about{"change-backfill", "Pause, resume or cancel a backfill or the repair of a gap", tag, 200}, a.steerBackfill)
	typedAudited(a, Route{Method: http.MethodPost, Path: "/v1/databases/{name}/gaps/backfill", Need: auth.NeedWrite, Audit: "gap.backfill"},
		about{"repair-gaps", "Read what the open gaps of a database may have cost, deletes included, to every consumer", tag, 201}, a.repairGaps)
}

func (a *API) startBackfill(f family) func(context.Context, *startInput) (*backfillOutput, note, error) {
	return func(ctx context.Context, in *startInput) (*backfillOutput, note, error) {
		c, err := a.backfilled(f, in.ID)
		if err != nil {
			return nil, note{}, err
		}
		var body BackfillBody
		if in.Body != nil {
			body = *in.Body
		}
		tables, err := body.tables()
		if err != nil {
			return nil, note{}, err
		}
		b, err := a.backfills.Start(ctx, BackfillRequest{ConsumerID: c.Definition().ID, Tables: tables, Where: body.Where})
		if err != nil {
			return nil, note{}, unprocessable(err)
		}
		return madeBackfill(b), note{target: nameOfBackfill(b), after: viewOfBackfill(b)}, nil
	}
}

func madeBackfill(b Backfill) *backfillOutput {
	return &backfillOutput{Location: "/v1/backfills/" + b.ID, Body: viewOfBackfill(b)}
}

// nameOfBackfill is what people call a backfill.
func nameOfBackfill(b Backfill) string {
	if b.Gap {
		return "database " + b.Database + "/" + strconv.Itoa(b.N)
	}
	return cmp.Or(b.Consumer, b.ConsumerID) + "/" + strconv.Itoa(b.N)
}

// backfilled finds the consumer of a call, on a node that runs backfills.
func (a *API) backfilled(f family, idOrName string) (Consumer, error) {
	c, err := a.consumer(f, idOrName)
	if err == nil && a.backfills == nil {
		err = noBackfills()
	}
	return c, err
}

func (a *API) consumerBackfills(f family) func(context.Context, *consumerBackfillsInput) (*backfillsOutput, error) {
	return func(ctx context.Context, in *consumerBackfillsInput) (*backfillsOutput, error) {
		c, err := a.backfilled(f, in.ID)
		if err != nil {
			return nil, err
		}
		return a.page(ctx, BackfillFilter{ConsumerID: c.Definition().ID, Active: in.Active}, in.PageInput)
	}
}

// consumerBackfill finds a backfill of a consumer, by its number there or its id.
func (a *API) consumerBackfill(ctx context.Context, f family, idOrName, n string) (Backfill, error) {
	c, err := a.backfilled(f, idOrName)
	if err != nil {
		return Backfill{}, err
	}
	d := c.Definition()
	if number, err := strconv.Atoi(n); err == nil && number > 0 {
		return a.backfills.ByNumber(ctx, d.ID, number)
	}
	if _, err := uuid.Parse(n); err != nil {
		return Backfill{}, bad("path.n", "%q names no backfill: use its number at the consumer, from 1, or its id", n)
	}
	b, err := a.backfills.Get(ctx, n)
	if err == nil && b.ConsumerID != d.ID {
		err = fmt.Errorf("backfill %s of consumer %q: %w", n, d.Name, lockstep.ErrNotFound)
	}
	return b, err
}

func (a *API) getConsumerBackfill(f family) func(context.Context, *numberInput) (*backfillOutput, error) {
	return func(ctx context.Context, in *numberInput) (*backfillOutput, error) {
		b, err := a.consumerBackfill(ctx, f, in.ID, in.N)
		if err != nil {
			return nil, err
		}
		return &backfillOutput{Body: viewOfBackfill(b)}, nil
	}
}

func (a *API) steerConsumerBackfill(f family) func(context.Context, *steerInput) (*backfillOutput, note, error) {
	return func(ctx context.Context, in *steerInput) (*backfillOutput, note, error) {
		before, err := a.consumerBackfill(ctx, f, in.ID, in.N)
		if err != nil {
			return nil, note{}, err
		}
		return a.steered(ctx, before, in.Body)
	}
}

// steering is what a backfill's state is in the audit.
type steering struct {
	State string `json:"state"`
}

func (a *API) steered(ctx context.Context, before Backfill, body SteerBody) (*backfillOutput, note, error) {
	verb, err := body.verb()
	if err != nil {
		return nil, note{}, err
	}
	after, err := a.steer(ctx, before.ID, verb)
	if err != nil {
		return nil, note{}, err
	}
	return &backfillOutput{Body: viewOfBackfill(after)}, note{target: nameOfBackfill(before), before: steering{before.State}, after: steering{after.State}}, nil
}

func (a *API) listBackfills(ctx context.Context, in *backfillsInput) (*backfillsOutput, error) {
	if a.backfills == nil {
		return nil, noBackfills()
	}
	f := BackfillFilter{Database: in.Database, Active: in.Active}
	if in.Consumer != "" {
		c, err := a.consumers.Find(in.Consumer)
		if err != nil {
			return nil, err
		}
		f.ConsumerID = c.Definition().ID
	}
	if in.Database != "" {
		if _, err := a.database(in.Database); err != nil {
			return nil, err
		}
	}
	return a.page(ctx, f, in.PageInput)
}

// page returns a page of a list, newest first. The cursor is the last id shown, and
// stands even when that backfill has ended meanwhile and is not listed any more.
func (a *API) page(ctx context.Context, f BackfillFilter, in PageInput) (*backfillsOutput, error) {
	found, err := a.backfills.List(ctx, f)
	if err != nil {
		return nil, err
	}
	out := &backfillsOutput{Body: List[BackfillView]{Data: []BackfillView{}}}
	if in.Cursor != "" {
		if _, err := uuid.Parse(in.Cursor); err != nil {
			return nil, bad("query.cursor", "cursor must be the next_cursor of the page before")
		}
		found = slices.DeleteFunc(slices.Clone(found), func(b Backfill) bool { return b.ID >= in.Cursor })
	}
	// Ids are of version 7: they sort by when they were made.
	slices.SortFunc(found, func(x, y Backfill) int { return cmp.Compare(y.ID, x.ID) })
	for _, b := range found[:min(len(found), in.Limit)] {
		out.Body.Data = append(out.Body.Data, viewOfBackfill(b))
	}
	if len(found) > in.Limit {
		out.Body.NextCursor = &found[in.Limit-1].ID
	}
	return out, nil
}

func (a *API) anyBackfill(ctx context.Context, id string) (Backfill, error) {
	if a.backfills == nil {
		return Backfill{}, noBackfills()
	}
	if _, err := uuid.Parse(id); err != nil {
		return Backfill{}, fmt.Errorf("backfill %q: backfills have uuids, /v1/backfills lists them: %w", id, lockstep.ErrNotFound)
	}
	return a.backfills.Get(ctx, id)
}

func (a *API) getBackfill(ctx context.Context, in *backfillIDInput) (*backfillOutput, error) {
	b, err := a.anyBackfill(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &backfillOutput{Body: viewOfBackfill(b)}, nil
}

func (a *API) steerBackfill(ctx context.Context, in *steerIDInput) (*backfillOutput, note, error) {
	before, err := a.anyBackfill(ctx, in.ID)
	if err != nil {
		return nil, note{}, err
	}
	return a.steered(ctx, before, in.Body)
}

func (a *API) repairGaps(ctx context.Context, in *nameInput) (*backfillOutput, note, error) {
	if _, err := a.database(in.Name); err != nil {
		return nil, note{}, err
	}
	if a.backfills == nil {
		return nil, note{}, noBackfills()
	}
	b, err := a.backfills.Repair(ctx, in.Name)
	if err != nil {
		return nil, note{}, unprocessable(err)
	}
	return madeBackfill(b), note{target: in.Name, after: viewOfBackfill(b)}, nil
}

// wanted starts the backfill that a definition asks for. A consumer that was to have
// its existing rows and cannot get them must not look as if it had them: undo takes
// back what was done to it.
func (a *API) wanted(ctx context.Context, before, after deliver.Definition, undo func(context.Context) error) error {
	if !after.Backfill || before.Backfill {
		return nil
	}
	err := a.backfills.Ensure(ctx, after.ID)
	if err == nil {
		return nil
	}
	// The caller may be gone; the half must not stay.
	if back := undo(context.WithoutCancel(ctx)); back != nil {
		return errors.Join(err, back)
	}
	return unprocessable(err)
}
