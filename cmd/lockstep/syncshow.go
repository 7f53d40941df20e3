package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

type syncShowCmd struct {
	Name  string `arg:"" help:"Name or id."`
	Watch bool   `short:"w" help:"Show it again whenever it changes."`
}

// Run shows a sync.
func (x *syncShowCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	one, err := remote.Sync(ctx, x.Name)
	if err != nil {
		return fmt.Errorf("show sync %s: %w", x.Name, err)
	}
	if !x.Watch {
		return p.sync(one)
	}
	return x.watch(ctx, remote, one, s, p)
}

// watch shows a sync until it is interrupted. On a terminal the new picture takes the
// place of the old one.
func (x *syncShowCmd) watch(ctx context.Context, remote *client.Client, one client.Sync, s streams, p printer) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	screen := picture{out: p.out}
	if p.format == "table" && s.animates(p.out) {
		screen.columns, screen.over = columns(p.out), true
	}
	for {
		var text bytes.Buffer
		drawn := p
		drawn.out = &text
		if err := drawn.watched(one); err != nil {
			return err
		}
		if err := screen.show(text.String()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Canceled
		}
		next, err := remote.Sync(ctx, x.Name)
		switch {
		case err == nil:
			one = next
		case ctx.Err() != nil:
			return context.Canceled
		case !errors.Is(err, lockstep.ErrUnavailable): // a node that is started anew goes on with its syncs
			return fmt.Errorf("show sync %s: %w", x.Name, err)
		}
	}
}

// watched is a sync as it is shown again and again: a line of JSON, or as shown once.
func (p printer) watched(s client.Sync) error {
	if p.format == "json" {
		return writeLine(p.out, bytes.Clone(s.Raw))
	}
	if p.format == "yaml" {
		if _, err := io.WriteString(p.out, "---\n"); err != nil {
			return err
		}
	}
	return p.sync(s)
}

// picture writes texts that take each other's place.
type picture struct {
	out     io.Writer
	over    bool // the old one can be written over
	columns int
	last    string
}

func (c *picture) show(text string) error {
	if text == c.last {
		return nil
	}
	lines := strings.SplitAfter(text, "\n")
	var b strings.Builder
	if c.over {
		if up := strings.Count(c.last, "\n"); up > 0 {
			fmt.Fprintf(&b, "\x1b[%dA\x1b[J", up)
		}
		for i, line := range lines {
			// A line that the terminal breaks would take two.
			if cut := truncate(strings.TrimSuffix(line, "\n"), c.columns); line != "" {
				lines[i] = cut + "\n"
			}
		}
	}
	b.WriteString(strings.Join(lines, ""))
	c.last = text
	_, err := io.WriteString(c.out, b.String())
	return err
}

// sync writes a sync, as tables: what it is, its collections, and what is left of the
// API's limits.
func (p printer) sync(s client.Sync) error {
	if p.format != "table" {
		return p.raw(s.Raw)
	}
	if p.quiet {
		_, err := fmt.Fprintln(p.out, s.State)
		return err
	}
	t := table{head: []string{"SYNC", printable(s.Name)}}
	for _, line := range [][2]string{
		{"id", s.ID}, {"provider", s.Provider}, {"account", s.Account}, {"base url", s.BaseURL}, {"tables", s.Database + ", schema " + s.Schema},
		{"external id", s.ExternalID}, {"managed by", keptBy(s.ManagedBy, s.AppliedFrom)}, {"state", s.State}, {"reason", whyOf(s)}, {"backfilled", localTime(s.BackfilledAt)},
	} {
		if line[1] != "" {
			t.add(line[0], line[1])
		}
	}
	if err := p.table(t); err != nil {
		return err
	}
	if err := p.collections(s.Collections); err != nil {
		return err
	}
	return p.quotas(s.Quotas)
}

func (p printer) collections(list []client.SyncCollection) error {
	if len(list) == 0 {
		return nil
	}
	t := table{head: []string{"COLLECTION", "TABLE", "STATE", "READ", "PER S", "CHANGED", "DELETED", "PARKED", "POLLED", "SWEPT", "REASON"}}
	for _, c := range list {
		rate := "-"
		if c.State == client.SyncBackfilling {
			rate = grouped(uint64(max(c.Rate, 0)))
		}
		t.add(c.Name, c.Table, c.State, grouped(c.Records), rate, grouped(c.Changed), grouped(c.Deleted), fmt.Sprint(c.Parked), localTime(c.PolledAt), localTime(c.SweptAt), truncate(c.Reason, 100))
	}
	return p.below(t)
}

func (p printer) quotas(list []client.SyncQuota) error {
	if len(list) == 0 {
		return nil
	}
	t := table{head: []string{"LIMIT", "LEFT", "OF", "RESET", "REQUESTS", "REFUSALS", "PAUSED TO"}}
	for _, q := range list {
		t.add(q.Bucket, orUnknown(q.Remaining), orUnknown(q.Limit), localTime(q.ResetAt), grouped(q.Requests), grouped(q.Refusals), localTime(q.PausedTo))
	}
	return p.below(t)
}

// below writes a table under another one.
func (p printer) below(t table) error {
	if _, err := fmt.Fprintln(p.out); err != nil {
		return err
	}
	return p.table(t)
}

func orUnknown(n *float64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprintf("%g", *n)
}
