package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/client"
)

type backfillCmd struct {
	Start  backfillStartCmd  `cmd:"" help:"Send existing rows to a consumer, as action read."`
	Ls     backfillLsCmd     `cmd:"" help:"List backfills and repairs of gaps."`
	Watch  backfillWatchCmd  `cmd:"" help:"Follow a backfill to its end."`
	Pause  backfillPauseCmd  `cmd:"" help:"Stop reading until resumed."`
	Resume backfillResumeCmd `cmd:"" help:"Go on reading."`
	Cancel backfillCancelCmd `cmd:"" help:"End a backfill for good; what was sent stays sent."`
	Gap    backfillGapCmd    `cmd:"" default:"withargs" hidden:"" help:"Repair the open gaps of a database."`
}

// Help tells of the form without a command.
func (backfillCmd) Help() string {
	return `lockstep backfill --gap [--database NAME] [--watch] repairs the open gaps of a database: the rows that exist
are sent to every consumer as action read, and keys that are gone as deletes.

A backfill is named by its consumer (its active one), by CONSUMER/N, or by its id; a repair by its id.`
}

type backfillStartCmd struct {
	Consumer string   `arg:"" help:"Name or id of the consumer."`
	Tables   []string `arg:"" optional:"" name:"table" help:"Tables, such as public.orders; a name alone is one of public. Default: every table that the consumer selects."`
	Where    string   `placeholder:"SQL" help:"Only rows that fulfil this condition on their columns."`
	Watch    bool     `help:"Follow it to its end."`
}

// Run starts a backfill.
func (x *backfillStartCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	b, err := remote.StartBackfill(ctx, x.Consumer, client.BackfillRequest{Tables: patterns(x.Tables), Where: x.Where})
	if err != nil {
		return fmt.Errorf("start a backfill of consumer %s: %w", x.Consumer, err)
	}
	if x.Watch {
		return watch(ctx, remote, b, s, p)
	}
	return p.begun(b, "started "+refOf(b))
}

// begun tells of a backfill that runs from now on.
func (p printer) begun(b client.Backfill, said string) error {
	if p.format != "table" {
		return p.raw(b.Raw)
	}
	if p.quiet {
		_, err := fmt.Fprintln(p.out, refOf(b))
		return err
	}
	if _, err := fmt.Fprintln(p.out, said); err != nil {
		return err
	}
	p.note("lockstep backfill watch %s shows how far it is", refOf(b))
	return nil
}

// refOf is the shortest name that finds a backfill again.
func refOf(b client.Backfill) string {
	if b.Consumer == nil {
		return b.ID
	}
	return b.Consumer.Name + "/" + strconv.Itoa(b.N)
}

type backfillGapCmd struct {
	Gap      bool   `help:"Repair the open gaps of a database: send the rows that exist to every consumer, and deletes for keys that are gone."`
	Database string `placeholder:"NAME" help:"The database, by its name in the configuration. Default: the one that has open gaps."`
	Watch    bool   `help:"Follow it to its end."`
}

// Run repairs the gaps of a database.
func (x *backfillGapCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	if !x.Gap {
		return usageError{errors.New("what shall it do? give a command, or --gap to repair gaps, see lockstep backfill --help")}
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	database, err := x.database(ctx, remote)
	if err != nil {
		return err
	}
	b, err := remote.RepairGaps(ctx, database)
	if errors.Is(err, lockstep.ErrConflict) && x.Watch {
		if running, ok := repairOf(ctx, remote, database); ok {
			b, err = running, nil
		}
	}
	if err != nil {
		return fmt.Errorf("repair the gaps of database %s: %w", database, err)
	}
	if x.Watch {
		return watch(ctx, remote, b, s, p)
	}
	return p.begun(b, "repairing the gaps of "+database+" ("+b.ID+")")
}

// repairOf returns the repair of a database that is under way.
func repairOf(ctx context.Context, remote *client.Client, database string) (client.Backfill, bool) {
	list, err := remote.Backfills(ctx, client.BackfillFilter{Database: database, Active: true})
	if err != nil {
		return client.Backfill{}, false // that it could not be started is what counts
	}
	for _, b := range list {
		if b.Gap {
			return b, true
		}
	}
	return client.Backfill{}, false
}

// database returns the one that is named, or the one that has open gaps.
func (x *backfillGapCmd) database(ctx context.Context, remote *client.Client) (string, error) {
	if x.Database != "" {
		return x.Database, nil
	}
	all, err := remote.Databases(ctx)
	if err != nil {
		return "", fmt.Errorf("find the database with gaps: %w", err)
	}
	var open []string
	for _, d := range all {
		if len(d.Gaps) > 0 {
			open = append(open, d.Name)
		}
	}
	switch len(open) {
	case 0:
		return "", fmt.Errorf("no database of this node has an open gap: there is nothing to repair: %w", lockstep.ErrConflict)
	case 1:
		return open[0], nil
	}
	return "", usageError{fmt.Errorf("which database? give --database with one of %s", strings.Join(open, ", "))}
}

type backfillLsCmd struct {
	Consumer string `arg:"" optional:"" help:"Only those of this consumer."`
	Database string `placeholder:"NAME" help:"Only those of this database."`
	Active   bool   `help:"Only those that have not ended."`
}

// Run lists backfills, newest first.
func (x *backfillLsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	list, err := remote.Backfills(ctx, client.BackfillFilter{Consumer: x.Consumer, Database: x.Database, Active: x.Active})
	if err != nil {
		return fmt.Errorf("list backfills: %w", err)
	}
	t := table{head: []string{"BACKFILL", "DATABASE", "STATE", "ROWS", "OF ABOUT", "ROWS/S", "LEFT", "CREATED", "TABLES", "REASON"}}
	raws := make([]json.RawMessage, len(list))
	for i, b := range list {
		raws[i] = b.Raw
		about := "?"
		if b.Total > 0 {
			about = number(b.Total)
		}
		t.add(refOf(b), b.Database, b.State, number(b.Rows), about, fmt.Sprintf("%.0f", b.RowsPerSecond), cmp.Or(leftOf(b), "-"),
			b.CreatedAt.Local().Format(time.DateTime), tablesOf(b), truncate(b.Reason, 100))
	}
	return p.result(raws, t)
}

// tablesOf names a backfill's tables, the first of many.
func tablesOf(b client.Backfill) string {
	const shown = 3
	var names []string
	for _, t := range b.Tables {
		names = append(names, t.Name)
	}
	if more := len(names) - shown; more > 0 {
		names = append(names[:shown], fmt.Sprintf("and %d more", more))
	}
	text := strings.Join(names, " ")
	if b.Gap {
		return strings.TrimSpace("(gap) " + text)
	}
	return text
}

// leftOf is how long a backfill will take; empty: unknown, or over.
func leftOf(b client.Backfill) string {
	if b.SecondsLeft == nil || b.Ended() {
		return ""
	}
	return (time.Duration(*b.SecondsLeft) * time.Second).String()
}

type backfillWatchCmd struct {
	Ref string `arg:"" optional:"" name:"backfill" help:"A consumer, CONSUMER/N, or an id. Default: the only one that is active."`
}

// Run follows a backfill. One that has ended is told of as if just seen to end.
func (x *backfillWatchCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	b, err := findBackfill(ctx, remote, x.Ref, endedToo)
	if err != nil {
		return err
	}
	return watch(ctx, remote, b, s, p)
}

type backfillPauseCmd struct {
	Ref string `arg:"" optional:"" name:"backfill" help:"A consumer, CONSUMER/N, or an id. Default: the only one that is active."`
}

// Run pauses a backfill.
func (x *backfillPauseCmd) Run(ctx context.Context, c *cli, p printer) error {
	return steerBackfill(ctx, c, p, x.Ref, "pause", (*client.Client).PauseBackfill)
}

type backfillResumeCmd struct {
	Ref string `arg:"" optional:"" name:"backfill" help:"A consumer, CONSUMER/N, or an id. Default: the only one that is active."`
}

// Run resumes a backfill.
func (x *backfillResumeCmd) Run(ctx context.Context, c *cli, p printer) error {
	return steerBackfill(ctx, c, p, x.Ref, "resume", (*client.Client).ResumeBackfill)
}

type backfillCancelCmd struct {
	Ref string `arg:"" optional:"" name:"backfill" help:"A consumer, CONSUMER/N, or an id. Default: the only one that is active."`
}

// Run cancels a backfill.
func (x *backfillCancelCmd) Run(ctx context.Context, c *cli, p printer) error {
	return steerBackfill(ctx, c, p, x.Ref, "cancel", (*client.Client).CancelBackfill)
}

func steerBackfill(ctx context.Context, c *cli, p printer, ref, verb string, do func(*client.Client, context.Context, string) (client.Backfill, error)) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	b, err := findBackfill(ctx, remote, ref, activeOnly)
	if err != nil {
		return err
	}
	after, err := do(remote, ctx, b.ID)
	if err != nil {
		return fmt.Errorf("%s backfill %s: %w", verb, refOf(b), err)
	}
	if p.format != "table" {
		return p.raw(after.Raw)
	}
	p.note("%s is %s", refOf(after), after.State)
	return nil
}

// scope says which backfills a name that fits several may mean.
type scope int

const (
	activeOnly scope = iota
	endedToo         // when none is active: the newest
)

// findBackfill finds what a person named: by id, as CONSUMER/N, or as the only active
// one of a consumer or of all.
func findBackfill(ctx context.Context, remote *client.Client, ref string, within scope) (client.Backfill, error) {
	if _, err := uuid.Parse(ref); err == nil {
		b, err := remote.Backfill(ctx, ref)
		if !errors.Is(err, lockstep.ErrNotFound) {
			return b, named(ref, err)
		}
		// It may be the id of a consumer.
	}
	if slash := strings.LastIndexByte(ref, '/'); slash >= 0 {
		if n, err := strconv.Atoi(ref[slash+1:]); err == nil {
			b, err := remote.ConsumerBackfill(ctx, ref[:slash], n)
			return b, named(ref, err)
		}
	}
	list, err := remote.Backfills(ctx, client.BackfillFilter{Consumer: ref, Active: true})
	if err != nil {
		return client.Backfill{}, named(ref, err)
	}
	if len(list) == 0 && within == endedToo {
		if list, err = remote.Backfills(ctx, client.BackfillFilter{Consumer: ref}); err != nil {
			return client.Backfill{}, named(ref, err)
		}
		list = list[:min(len(list), 1)]
	}
	return onlyOne(list, ref)
}

func named(ref string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("find the backfill %s: %w", ref, err)
}

func onlyOne(list []client.Backfill, ref string) (client.Backfill, error) {
	switch len(list) {
	case 1:
		return list[0], nil
	case 0:
		whose := "no backfill is active"
		if ref != "" {
			whose = "consumer " + ref + " has no active backfill"
		}
		return client.Backfill{}, fmt.Errorf("%s; lockstep backfill ls shows those that have ended: %w", whose, lockstep.ErrNotFound)
	}
	var refs []string
	for _, b := range list {
		refs = append(refs, refOf(b))
	}
	return client.Backfill{}, usageError{fmt.Errorf("which backfill? %s are active", strings.Join(refs, ", "))}
}
