package main

import (
	"context"
	"fmt"

	"lockstep/client"
)

type verifyCmd struct {
	Sync       string   `arg:"" help:"Name or id of the sync."`
	Repair     bool     `help:"Put right what differs."`
	Collection []string `placeholder:"NAME" help:"Only this collection, such as stripe:customer. May be repeated."`
}

// Help tells what the exit codes mean.
func (verifyCmd) Help() string {
	return `Reads everything that the API lists, within its limits, and compares it with the tables, record by record.
Exit code 0: they are equal, or were made equal by --repair. 1: they differ, or nothing could be compared.`
}

// Run compares an API with its mirror. That they differ is a failure.
func (x *verifyCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	found, err := remote.VerifySync(ctx, x.Sync, client.VerifyOptions{Collections: x.Collection, Repair: x.Repair})
	if err != nil {
		return fmt.Errorf("verify sync %s: %w", x.Sync, err)
	}
	if err := p.verification(found); err != nil {
		return err
	}
	differ := found.MissingN + found.StaleN + found.ExtraN
	switch {
	case !found.Equal && x.Repair:
		return fmt.Errorf("%s of %s records that differ could not be put right", grouped(differ-found.Repaired), grouped(differ))
	case !found.Equal:
		return fmt.Errorf("%s records differ; lockstep verify %s --repair puts them right", grouped(differ), x.Sync)
	case found.Checked == 0 && len(found.Unchecked) > 0:
		return fmt.Errorf("nothing could be compared")
	}
	return nil
}

// verification writes what a comparison found.
func (p printer) verification(v client.Verification) error {
	if p.format != "table" {
		return p.raw(v.Raw)
	}
	if p.quiet {
		return nil
	}
	t := table{head: []string{"DIFFERENCE", "COLLECTION", "ID"}}
	for _, group := range []struct {
		name    string
		records []client.SyncRecord
		n       uint64
	}{{"missing", v.Missing, v.MissingN}, {"stale", v.Stale, v.StaleN}, {"extra", v.Extra, v.ExtraN}} {
		for _, r := range group.records {
			t.add(group.name, r.Collection, r.ID)
		}
		if more := group.n - min(uint64(len(group.records)), group.n); more > 0 {
			t.add(group.name, "…", fmt.Sprintf("and %s more", grouped(more)))
		}
	}
	if len(t.rows) > 0 {
		if err := p.table(t); err != nil {
			return err
		}
	}
	for _, u := range v.Unchecked {
		p.note("not compared: %s: %s", printable(u.Collection), printable(u.Reason))
	}
	_, err := fmt.Fprintln(p.out, summaryOfVerify(v))
	return err
}

func summaryOfVerify(v client.Verification) string {
	text := grouped(v.Checked) + " compared: "
	if v.MissingN+v.StaleN+v.ExtraN == 0 {
		text += "equal"
	} else {
		text += fmt.Sprintf("%s missing, %s stale, %s extra", grouped(v.MissingN), grouped(v.StaleN), grouped(v.ExtraN))
	}
	if v.Repaired > 0 {
		text += ", " + grouped(v.Repaired) + " repaired"
	}
	return text
}
