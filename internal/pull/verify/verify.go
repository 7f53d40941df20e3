package verify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/obs"
	"lockstep/source"
)

// Config says what is compared with what.
type Config struct {
	// Source is the API, with its limiter inside. While a sync reads the same lists,
	// verify needs a Source of its own (of the same limiter): a Source takes two readers
	// of one list for a list that goes in circles.
	Source      source.Source
	Mirror      *mirror.Mirror
	Pool        *pgxpool.Pool // of the mirror's database; its role may make temporary tables
	Collections []source.Collection
	Provider    string       // stands before a collection's name in the result
	Logger      *slog.Logger // default: none
	// Settle is how long a difference must last; default: what a collection's changes
	// take to arrive, and 3 seconds.
	Settle time.Duration
	// Workers is how many collections are compared at once; default 3. Each takes a
	// connection of its own besides those of Pool.
	Workers int
}

// Options says what is done about differences.
type Options struct {
	Repair bool // needs the mirror's lock
}

const (
	workers = 3
	// leastSettle and mostSettle bound how long a difference must last by default.
	leastSettle = 3 * time.Second
	mostSettle  = time.Minute
)

// Run compares the collections. The result is whole but for Unchecked. The error is
// the context's, or one of the database: then the result is what was found until
// then.
func Run(ctx context.Context, config Config, options Options) (Result, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Workers <= 0 {
		config.Workers = workers
	}
	t := &tally{provider: config.Provider, result: Result{StartedAt: time.Now().UTC()}}
	g, ctx := errgroup.WithContext(source.WithPriority(ctx, source.Sweeping))
	g.SetLimit(config.Workers)
	for _, c := range config.Collections {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return (&check{config: config, options: options, c: c, tally: t, log: config.Logger.With(obs.KeyCollection, t.name(c.Name))}).whole(ctx)
		})
	}
	err := g.Wait()
	t.result.EndedAt = time.Now().UTC()
	t.order()
	return t.result, err
}

// tally is the result as the checks add to it.
type tally struct {
	provider string

	mu     sync.Mutex
	result Result
}

// order makes the result the same whichever collection was first.
func (t *tally) order() {
	for _, list := range [][]Difference{t.result.Missing, t.result.Stale, t.result.Extra} {
		slices.SortFunc(list, func(a, b Difference) int {
			return cmp.Or(cmp.Compare(a.Collection, b.Collection), cmp.Compare(a.ID, b.ID))
		})
	}
	slices.SortFunc(t.result.Unchecked, func(a, b Unchecked) int { return cmp.Compare(a.Collection, b.Collection) })
}

func (t *tally) name(collection string) string { return t.provider + ":" + collection }

func (t *tally) unchecked(collection, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Unchecked = append(t.result.Unchecked, Unchecked{Collection: t.name(collection), Reason: reason})
}

func (t *tally) add(collection string, f figures, found []finding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.result
	r.Checked += f.Checked
	r.Repaired += f.Repaired
	for _, d := range found {
		list, n := &r.Stale, &r.StaleN
		switch d.kind {
		case missing:
			list, n = &r.Missing, &r.MissingN
		case extra:
			list, n = &r.Extra, &r.ExtraN
		}
		if *n++; len(*list) < Shown {
			*list = append(*list, Difference{Collection: t.name(collection), ID: d.id, Hint: d.hint})
		}
	}
}

// kind is how a record differs. Its values are those of the column kind.
type kind string

const (
	missing kind = "missing"
	stale   kind = "stale"
	extra   kind = "extra"
)

// finding is a record that differs for sure.
type finding struct {
	kind     kind
	id, hint string
	record   source.Record // as the API has it; Deleted for extra
}

// figures are what one collection's check has counted.
type figures struct {
	Checked  uint64 `json:"checked"`
	Missing  uint64 `json:"missing"`
	Stale    uint64 `json:"stale"`
	Extra    uint64 `json:"extra"`
	Repaired uint64 `json:"repaired"`
}

func (f figures) differences() uint64 { return f.Missing + f.Stale + f.Extra }

// check is the comparison of one collection.
type check struct {
	config  Config
	options Options
	c       source.Collection
	tally   *tally
	log     *slog.Logger

	stage *stage
	pages int // of the list
	count figures
	held  int // extras that a repair has left alone
}

// whole compares the collection and writes the sync's log about it. What goes wrong
// with this collection alone is noted, and no error.
func (k *check) whole(ctx context.Context) error {
	err := k.run(ctx)
	if reason, ok := ofCollection(ctx, err); ok {
		k.tally.unchecked(k.c.Name, reason)
		k.log.WarnContext(ctx, "a collection could not be compared with its mirror", obs.KeyReason, reason)
		return k.note(ctx, "failed", "not compared: "+reason)
	}
	if err != nil {
		return fmt.Errorf("compare %s with its mirror: %w", k.tally.name(k.c.Name), err)
	}
	k.tally.add(k.c.Name, figures{Checked: k.count.Checked, Repaired: k.count.Repaired}, nil)
	outcome, f := "equal", k.count
	switch {
	case f.differences() > 0 && f.Repaired == f.differences():
		outcome = "repaired"
	case f.differences() > 0:
		outcome = "different"
	}
	message := fmt.Sprintf("compared %d records: %d missing, %d stale, %d extra; %d repaired", f.Checked, f.Missing, f.Stale, f.Extra, f.Repaired)
	if k.held > 0 {
		message += fmt.Sprintf("; %d extra were left: too many to delete without asking the API for each, which it has no way for", k.held)
	}
	return k.note(ctx, outcome, message)
}

// ofCollection says whether an error concerns one collection only, and how to put it.
func ofCollection(ctx context.Context, err error) (reason string, ok bool) {
	if err == nil || ctx.Err() != nil || errors.Is(err, lockstep.ErrFenced) {
		return "", false
	}
	if refusal, ok := errors.AsType[*source.Error](err); ok {
		return refusal.Error(), true
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); ok || errors.Is(err, lockstep.ErrInvalid) {
		return err.Error(), true
	}
	return "", false
}

func (k *check) note(ctx context.Context, outcome, message string) error {
	payload, err := json.Marshal(k.count)
	if err != nil {
		return err
	}
	return k.config.Mirror.Log(ctx, mirror.Entry{Kind: "verify", Collection: k.c.Name, Outcome: outcome, Message: message, Payload: payload})
}

func (k *check) run(ctx context.Context) (err error) {
	if k.c.Virtual {
		return k.virtual(ctx)
	}
	if k.stage, err = openStage(ctx, k.config, k.c.Name); err != nil {
		return err
	}
	defer k.stage.close(ctx)
	started, err := k.list(ctx)
	if err != nil {
		return err
	}
	if k.count.Checked, err = k.stage.compare(ctx, started); err != nil {
		return err
	}
	if err := k.edited(ctx); err != nil {
		return err
	}
	return k.confirm(ctx)
}

// settle is how long a difference must last.
func (k *check) settle() time.Duration {
	if k.config.Settle > 0 {
		return k.config.Settle
	}
	return min(k.c.Every+k.c.Settle+leastSettle, mostSettle)
}

// editedPage is how many rows are looked at at once.
const editedPage = 500

// edited suspects the rows that somebody seems to have changed by hand.
func (k *check) edited(ctx context.Context) error {
	for after := ""; ; {
		list, _, next, err := k.config.Mirror.Edited(ctx, k.c.Name, after, editedPage)
		if err != nil {
			return err
		}
		ids := make([]string, len(list))
		for i, e := range list {
			ids[i] = e.ID
		}
		if err := k.stage.suspect(ctx, ids); err != nil {
			return err
		}
		if after = next; after == "" {
			return nil
		}
	}
}

// virtual checks records that the API computes anew whenever it is asked: only whether
// their columns are what was read last.
func (k *check) virtual(ctx context.Context) error {
	for after := ""; ; {
		list, seen, next, err := k.config.Mirror.Edited(ctx, k.c.Name, after, editedPage)
		if err != nil {
			return err
		}
		k.count.Checked += uint64(seen)
		var found []finding
		for _, e := range list {
			if !e.Raw {
				found = append(found, finding{kind: stale, id: e.ID})
			}
		}
		if len(found) > 0 && k.options.Repair {
			mended, _, err := k.config.Mirror.Mend(ctx, k.c.Name, after, editedPage)
			if err != nil {
				return err
			}
			k.count.Repaired += uint64(len(mended))
		}
		k.found(found)
		if after = next; after == "" {
			return nil
		}
	}
}

// found counts and lists what differs for sure.
func (k *check) found(list []finding) {
	for _, d := range list {
		switch d.kind {
		case missing:
			k.count.Missing++
		case extra:
			k.count.Extra++
		default:
			k.count.Stale++
		}
	}
	k.tally.add(k.c.Name, figures{}, list)
}
