package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/config"
	"lockstep/internal/connect"
	"lockstep/internal/obs"
	"lockstep/internal/pull"
	"lockstep/internal/pull/limit"
	"lockstep/internal/secret"
	"lockstep/internal/stage"
	"lockstep/internal/syncs"
)

// openSyncs prepares the syncs of the configuration. Those made by API follow when
// their databases are there.
func (e *Engine) openSyncs(context.Context) (func() error, error) {
	key, err := e.sealer()
	if err != nil {
		return nil, err
	}
	c := syncs.Config{
		Resolve: e.resolve, Named: e.mirrored.name, Settled: e.settled, Sealer: key, Logger: e.Logger.With(obs.KeyStage, "sync"),
	}
	for _, d := range e.databases.all() {
		c.Targets = append(c.Targets, e.target(d))
	}
	for _, s := range e.cfg.Syncs {
		c.File = append(c.File, syncDefinition(s))
	}
	e.syncs = syncs.New(c)
	e.mirrored.learn(e.syncs.Tables)
	if err := obs.RegisterSyncs(e.registry, e.observedSyncs); err != nil {
		return nil, fmt.Errorf("declare the metrics of syncs: %w", err)
	}
	return nil, nil
}

// sealer is the key that seals what is secret in the control plane.
func (e *Engine) sealer() (*secret.Key, error) {
	raw := e.dir.derive("credentials")
	if given := e.cfg.Key.Reveal(); given != "" {
		raw = []byte(given)
	}
	key, err := secret.NewKey(raw)
	if err != nil {
		return nil, fmt.Errorf("LOCKSTEP_KEY: %w", err)
	}
	return key, nil
}

func (e *Engine) syncStage() stage.Stage {
	return stage.Stage{Name: "syncs", Run: e.syncs.Work, Grace: 20 * time.Second}
}

// fileSyncs is the namespace of the ids of syncs that a configuration defines: the
// same name has the same id, and so the same progress, for ever.
var fileSyncs = uuid.MustParse("b0a0f3a4-1f0e-4d0b-8d5f-6f1f7c0f2c55")

func syncDefinition(s config.Sync) syncs.Definition {
	return syncs.Definition{
		ID: uuid.NewSHA1(fileSyncs, []byte(s.Name)).String(), Name: s.Name, Provider: s.Provider, Spec: s.Spec, SpecFile: s.SpecFile, BaseURL: s.BaseURL,
		Credential: syncs.Credential{Kind: s.Credential.Kind, Properties: revealed(s.Credential.Properties)}, Collections: s.Collections,
		Database: s.Database, Schema: s.Schema, Every: s.Every,
		RateLimit: syncs.RateLimit{RequestsPerSecond: s.RateLimit.RequestsPerSecond, MaxConcurrent: s.RateLimit.MaxConcurrent, Reserve: s.RateLimit.Reserve},
	}
}

func revealed(properties map[string]config.Secret) map[string]string {
	plain := make(map[string]string, len(properties))
	for name, value := range properties {
		plain[name] = value.Reveal()
	}
	return plain
}

// resolve finds the account of a definition.
func (e *Engine) resolve(d syncs.Definition) (syncs.Account, []syncs.Problem) {
	a, err := connect.Resolve(connect.Definition{
		Provider: d.Provider, Spec: d.Spec, SpecFile: d.SpecFile, BaseURL: d.BaseURL, Kind: d.Credential.Kind,
		Properties: d.Credential.Properties, Collections: d.Collections,
	})
	if err == nil {
		return account{a}, nil
	}
	list, ok := errors.AsType[connect.Problems](err)
	if !ok {
		return nil, []syncs.Problem{{Field: "provider", Message: err.Error()}}
	}
	var problems []syncs.Problem
	for _, p := range list {
		message := p.Message
		if p.Remedy != "" {
			message += "; " + p.Remedy
		}
		if p.Spec != nil { // where in the spec, whatever its file is called
			message = strings.TrimPrefix(p.Spec.String(), p.Spec.File+":")
			message = strings.TrimSpace(message)
		}
		problems = append(problems, syncs.Problem{Field: p.Field, Message: message})
	}
	return nil, problems
}

// account gives syncs a provider's account in their words.
type account struct{ *connect.Account }

// Open implements [syncs.Account].
func (a account) Open(d syncs.Definition, tokens syncs.Tokens) (syncs.Connection, error) {
	l := limit.New(a.Limits(limit.Narrow{
		RequestsPerSecond: d.RateLimit.RequestsPerSecond, MaxConcurrent: d.RateLimit.MaxConcurrent, Reserve: d.RateLimit.Reserve,
	}))
	s, err := a.Account.Open(connect.Options{Limiter: l, Tokens: keptTokens{tokens}})
	if err != nil {
		return syncs.Connection{}, err
	}
	return syncs.Connection{Source: s, Second: s.Beside(), Quotas: func() []pull.Quota { return quotas(l) }}, nil
}

func quotas(l *limit.Limiter) []pull.Quota {
	var list []pull.Quota
	for _, q := range l.Quotas() {
		list = append(list, pull.Quota{
			Bucket: q.Bucket, Limit: q.Limit, Remaining: q.Remaining, ResetAt: q.ResetAt, PausedTo: q.PausedTo, Refusals: q.Refusals, Requests: q.Requests,
			Waiting: q.Waiting,
		})
	}
	return list
}

// keptTokens gives a source its tokens as it knows them.
type keptTokens struct{ syncs.Tokens }

// Load implements [connect.Tokens].
func (k keptTokens) Load(ctx context.Context) (connect.Token, error) {
	var t connect.Token
	data, err := k.Tokens.Load(ctx)
	if err != nil || data == nil {
		return t, err
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("the stored token cannot be read: %w: %w", err, lockstep.ErrCorrupt)
	}
	return t, nil
}

// Save implements [connect.Tokens].
func (k keptTokens) Save(ctx context.Context, t connect.Token) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return k.Tokens.Save(ctx, data)
}

const (
	// settledPoll is how often it is looked whether a consumer has caught up.
	settledPoll = 10 * time.Millisecond
	// reachAgain is how soon capture is asked again for its place, when it did not stream.
	reachAgain = 200 * time.Millisecond
)

// settled waits until a consumer has acked everything that is in the database now:
// first until capture has it in the log, then until the consumer is through.
func (e *Engine) settled(ctx context.Context, name, consumer string) error {
	c, err := e.broker.Find(consumer)
	if err != nil {
		return err
	}
	d := e.database(name)
	if d == nil || d.capture == nil {
		return fmt.Errorf("nothing is captured from the database %s, so that no consumer gets what is synced: %w", name, lockstep.ErrInvalid)
	}
	if c.Definition().Database != name {
		return fmt.Errorf("consumer %q is of the database %s and the sync of %s: %w", consumer, c.Definition().Database, name, lockstep.ErrInvalid)
	}
	last, err := d.reach(ctx)
	if err != nil {
		return fmt.Errorf("wait for consumer %q: %w", consumer, err)
	}
	tick := time.NewTicker(settledPoll)
	defer tick.Stop()
	for {
		s := c.Stats() //nolint:contextcheck // it has a bound of its own
		if s.Err != nil {
			return fmt.Errorf("consumer %q: %w", consumer, s.Err)
		}
		if s.Floor >= last {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for consumer %q: %w", consumer, context.Cause(ctx))
		}
	}
}

// reach waits until what is committed in the database is in the log, also over
// connections that break, and returns the seq of the last change then.
func (d *database) reach(ctx context.Context) (uint64, error) {
	tick := time.NewTicker(reachAgain)
	defer tick.Stop()
	for {
		seq, err := d.capture.Reach(ctx)
		if err == nil || ctx.Err() != nil || !errors.Is(err, lockstep.ErrUnavailable) {
			return seq, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// syncParts tell how the syncs are, beside readiness: an API that is away keeps
// nothing from being delivered.
func (e *Engine) syncParts(ctx context.Context) []api.Part {
	views, err := e.syncs.List(ctx)
	if err != nil {
		return nil
	}
	var parts []api.Part
	for _, v := range views {
		part := api.Part{Name: "sync " + v.Definition.Name, Ready: true}
		if s := v.Status.State; s == pull.Failing || s == pull.Blocked || s == pull.Waiting {
			part.Reason = string(s) + ": " + v.Status.Reason
		}
		parts = append(parts, part)
	}
	return parts
}

// observedSyncs is what the metrics show of the syncs.
func (e *Engine) observedSyncs() []obs.SyncNow {
	views, err := e.syncs.List(context.Background())
	if err != nil {
		return nil
	}
	list := make([]obs.SyncNow, 0, len(views))
	for _, v := range views {
		now := obs.SyncNow{Name: v.Definition.Name, Up: v.Status.State == pull.Backfilling || v.Status.State == pull.Polling}
		for _, c := range v.Status.Collections {
			now.Collections = append(now.Collections, obs.SyncCollection{Name: c.Name, Polled: c.PolledAt, Changed: c.Changed, Deleted: c.Deleted, Parked: c.Parked})
		}
		for _, q := range v.Status.Quotas {
			now.Quotas = append(now.Quotas, obs.SyncQuota{Bucket: q.Bucket, Requests: q.Requests, Refusals: q.Refusals, Remaining: q.Remaining})
		}
		list = append(list, now)
	}
	return list
}

// prefixes are what may stand before the colon of a collection: the providers, and the
// names of the specs of syncs that there are.
func (e *Engine) prefixes() []string {
	list := slices.DeleteFunc(connect.Providers(), func(p string) bool { return p == connect.Rest })
	for _, p := range e.mirrored.prefixes() {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	views, err := e.syncs.List(context.Background())
	if err != nil {
		return list
	}
	for _, v := range views {
		if account, problems := e.resolve(v.Definition); len(problems) == 0 && !slices.Contains(list, account.Prefix()) {
			list = append(list, account.Prefix())
		}
	}
	return list
}
