package main

import (
	"context"
	"fmt"
	"slices"

	"lockstep/client"
)

type filterCmd struct {
	Test filterTestCmd `cmd:"" help:"Try a filter and a transform on the last changes; nothing is made or changed."`
}

type filterTestCmd struct {
	Tables     []string `arg:"" optional:"" name:"table" help:"Tables, such as public.orders or stripe.*; a name alone is one of public. Default: all."`
	Database   string   `placeholder:"NAME" help:"The database, by its name in the configuration. Default: the only one, or app."`
	Filter     string   `placeholder:"EXPR" help:"Changes for which it is false are left out."`
	Transform  string   `placeholder:"EXPR" help:"Its result takes the place of record."`
	Collection []string `placeholder:"NAME" help:"In the place of tables: collections of syncs, such as stripe:customer or stripe:*."`
	Sync       string   `placeholder:"NAME" help:"With --collection: only those of this sync."`
	Action     []string `placeholder:"ACTION" help:"Only these: insert, update, delete."`
	Last       int      `default:"100" help:"How many changes are tried, up to 1000."`
}

// Run tries them and shows what became of each change, the oldest first.
func (x *filterTestCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	database, err := (&tailCmd{Database: x.Database}).database(ctx, remote)
	if err != nil {
		return err
	}
	got, err := remote.Try(ctx, database, client.Trial{
		Tables: patterns(x.Tables), Collections: x.Collection, Sync: x.Sync, Actions: x.Action, Filter: x.Filter, Transform: x.Transform, Limit: x.Last,
	})
	if err != nil {
		return fmt.Errorf("try the filter on database %s: %w", database, err)
	}
	if p.format != "table" {
		return p.raw(got.Raw)
	}
	t := table{head: []string{"SEQ", "RESULT", "ACTION", "TABLE", "CHANGE"}}
	for _, r := range slices.Backward(got.Results) {
		t.add(number(r.Seq), trialWord(r), r.Action, r.Table, trialText(r))
	}
	if err := p.result(nil, t); err != nil {
		return err
	}
	p.note("%d of %d passed, %d failed, %d filtered out; %s", got.Passed, got.Matched, got.Failed, got.Matched-got.Passed-got.Failed, lookedText(got))
	return nil
}

func trialWord(r client.TrialResult) string {
	switch {
	case r.Error != "":
		return "failed"
	case r.Passed:
		return "passed"
	}
	return "filtered"
}

// trialText is what a person wants to see of the change: what a worker would get, or
// why it would not.
func trialText(r client.TrialResult) string {
	const room = 100
	if r.Error != "" {
		return truncate(r.Error, room)
	}
	message := r.Message
	if !r.Passed {
		message = r.Before
	}
	if message == nil {
		return fmt.Sprintf("(%d bytes)", r.Large)
	}
	change, err := client.ParseChange(message)
	if err != nil {
		return truncate(string(message), room)
	}
	if change.Action == "gap" {
		return truncate(string(change.Metadata.Gap), room)
	}
	return truncate(string(change.Record), room)
}

// lookedText says how far back it looked, and why no further.
func lookedText(r client.TrialReport) string {
	text := fmt.Sprintf("looked at %s, back to seq %d", count(int(r.Looked), "change"), r.FromSeq)
	switch r.Stopped {
	case "beginning":
		return text + ", where the stream begins"
	case "time":
		return text + ", as far as the time allowed"
	case "damaged":
		return text + ", what lies before cannot be read"
	case "looked_at":
		return text + ", as far as it looks"
	}
	return text
}
