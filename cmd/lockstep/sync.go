package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep/client"
)

type syncCmd struct {
	Ls     syncLsCmd     `cmd:"" help:"List syncs and how they are."`
	Show   syncShowCmd   `cmd:"" help:"Show a sync, its collections and what is left of the API's limits."`
	Create syncCreateCmd `cmd:"" help:"Mirror an account of an API."`
	Delete syncDeleteCmd `cmd:"" help:"End syncs and forget their state; their tables stay."`
	Run    syncRunCmd    `cmd:"" help:"Ask the API for everything now."`
	Pause  syncPauseCmd  `cmd:"" help:"Ask the API nothing until resumed."`
	Resume syncResumeCmd `cmd:"" help:"Go on where it was paused."`
	Resync syncResyncCmd `cmd:"" help:"Read everything again; nothing is deleted for it."`
	Wait   syncWaitCmd   `cmd:"" help:"Wait until everything that is in the API now is in Postgres."`
	Log    syncLogCmd    `cmd:"" help:"Show what a sync did, newest first."`
}

type syncLsCmd struct{}

// Run lists syncs.
func (syncLsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	list, err := remote.Syncs(ctx)
	if err != nil {
		return fmt.Errorf("list syncs: %w", err)
	}
	t := table{head: []string{"NAME", "PROVIDER", "ACCOUNT", "DATABASE", "SCHEMA", "COLLECTIONS", "STATE", "POLLED", "MANAGED BY", "REASON"}}
	raws := make([]json.RawMessage, len(list))
	for i, s := range list {
		raws[i] = s.Raw
		t.add(s.Name, s.Provider, dash(s.Account), s.Database, s.Schema, fmt.Sprint(len(s.CollectionIDs)), s.State, localTime(polled(s)), keptBy(s.ManagedBy, s.AppliedFrom), truncate(whyOf(s), 100))
	}
	return p.result(raws, t)
}

// whyOf is why a sync is not well.
func whyOf(s client.Sync) string {
	if s.Reason != "" || s.Health.Status != "warn" && s.Health.Status != "error" {
		return s.Reason
	}
	return s.Health.Reason
}

// polled is up to when the mirror has everything: the oldest of its collections.
func polled(s client.Sync) *time.Time {
	var oldest *time.Time
	for _, c := range s.Collections {
		if c.PolledAt == nil {
			return nil
		}
		if oldest == nil || c.PolledAt.Before(*oldest) {
			oldest = c.PolledAt
		}
	}
	return oldest
}

func localTime(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

type syncDeleteCmd struct {
	Names    []string `arg:"" name:"name" help:"Names or ids."`
	Override bool     `help:"Also what was applied from a file, which would make it again."`
}

// Run deletes syncs.
func (x *syncDeleteCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	for _, name := range x.Names {
		if err := remote.With(client.Claim{Override: x.Override}).DeleteSync(ctx, name); err != nil {
			return fmt.Errorf("delete sync %s: %w", name, err)
		}
		p.note("deleted %s; its tables stay", name)
	}
	return nil
}

type syncRunCmd struct {
	Names []string `arg:"" name:"name" help:"Names or ids."`
}

// Run has syncs ask for everything now.
func (x *syncRunCmd) Run(ctx context.Context, c *cli, p printer) error {
	return eachSync(ctx, c, p, x.Names, "run", (*client.Client).RunSync)
}

type syncPauseCmd struct {
	Names []string `arg:"" name:"name" help:"Names or ids."`
}

// Run pauses syncs.
func (x *syncPauseCmd) Run(ctx context.Context, c *cli, p printer) error {
	return eachSync(ctx, c, p, x.Names, "pause", (*client.Client).PauseSync)
}

type syncResumeCmd struct {
	Names []string `arg:"" name:"name" help:"Names or ids."`
}

// Run resumes syncs.
func (x *syncResumeCmd) Run(ctx context.Context, c *cli, p printer) error {
	return eachSync(ctx, c, p, x.Names, "resume", (*client.Client).ResumeSync)
}

type syncResyncCmd struct {
	Name        string   `arg:"" help:"Name or id."`
	Collections []string `arg:"" optional:"" name:"collection" help:"Such as stripe:customer. Default: all."`
}

// Run has a sync read everything again.
func (x *syncResyncCmd) Run(ctx context.Context, c *cli, p printer) error {
	do := func(remote *client.Client, ctx context.Context, name string) (client.Sync, error) {
		return remote.ResyncSync(ctx, name, x.Collections...)
	}
	return eachSync(ctx, c, p, []string{x.Name}, "resync", do)
}

// eachSync does something to each sync and stops at the first that it cannot be done to.
func eachSync(ctx context.Context, c *cli, p printer, names []string, verb string, do func(*client.Client, context.Context, string) (client.Sync, error)) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	for _, name := range names {
		s, err := do(remote, ctx, name)
		if err != nil {
			return fmt.Errorf("%s sync %s: %w", verb, name, err)
		}
		if p.format != "table" {
			if err := p.raw(s.Raw); err != nil {
				return err
			}
			continue
		}
		p.note("%s is %s", printable(s.Name), s.State)
	}
	return nil
}

type syncWaitCmd struct {
	Name     string        `arg:"" help:"Name or id."`
	Timeout  time.Duration `default:"30s" help:"How long at most, up to 10m."`
	Consumer string        `placeholder:"NAME" help:"Also until this consumer has acked it."`
}

// Run waits; when the time is up, that is a failure.
func (x *syncWaitCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	if x.Timeout <= 0 {
		return usageError{errors.New("--timeout must be longer than 0")}
	}
	waited, err := remote.WaitSync(ctx, x.Name, client.SyncWait{Timeout: x.Timeout, Consumer: x.Consumer})
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Status == http.StatusGatewayTimeout {
		return fmt.Errorf("wait for sync %s: %s", x.Name, problem.Detail)
	}
	if err != nil {
		return fmt.Errorf("wait for sync %s: %w", x.Name, err)
	}
	if p.format != "table" {
		return p.result(map[string]int64{"waited_ms": waited.Milliseconds()}, table{})
	}
	p.note("%s is there after %s", x.Name, waited)
	return nil
}

type syncLogCmd struct {
	Name  string `arg:"" help:"Name or id."`
	Limit int    `short:"n" default:"50" help:"How many lines at most; 0: all."`
}

// Run shows the log of a sync.
func (x *syncLogCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	t := table{head: []string{"ID", "AT", "KIND", "COLLECTION", "OUTCOME", "MESSAGE"}}
	raws := []json.RawMessage{}
	var before int64
	for x.Limit == 0 || len(raws) < x.Limit {
		size := 1000
		if x.Limit > 0 {
			size = min(x.Limit-len(raws), size)
		}
		lines, err := remote.SyncLog(ctx, x.Name, before, size)
		if err != nil {
			return fmt.Errorf("read the log of sync %s: %w", x.Name, err)
		}
		for _, e := range lines {
			raws = append(raws, e.Raw)
			t.add(fmt.Sprint(e.ID), e.At.Local().Format(time.DateTime), e.Kind, dash(e.Collection), e.Outcome, strings.TrimSpace(e.Message))
			before = e.ID
		}
		if len(lines) < size {
			break
		}
	}
	return p.result(raws, t)
}
