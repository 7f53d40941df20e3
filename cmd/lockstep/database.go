package main

import (
	"context"
	"fmt"
	"strings"

	"lockstep"
	"lockstep/client"
)

type databaseCmd struct {
	Ls     databaseLsCmd     `cmd:"" help:"List databases and how their capture stands."`
	Show   databaseShowCmd   `cmd:"" help:"Show a database: where it is, its slot, and what is wrong."`
	Create databaseCreateCmd `cmd:"" help:"Capture another database, until it is deleted."`
	Delete databaseDeleteCmd `cmd:"" help:"End the capture of databases that were made by API, and drop their slots and publications."`
}

type databaseLsCmd struct{}

// Run lists databases.
func (databaseLsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	list, err := remote.Databases(ctx)
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	t := table{head: []string{"NAME", "CAPTURE", "STATUS", "AT", "LAST SEQ", "LAG BYTES", "MANAGED BY", "REASON"}}
	for _, d := range list {
		t.add(d.Name, d.Capture, d.Status, placeOf(d), fmt.Sprint(d.LastSeq), fmt.Sprint(d.LagBytes), dash(d.ManagedBy), truncate(d.Reason, 100))
	}
	return p.result(list, t)
}

// placeOf is where a database is.
func placeOf(d client.Database) string {
	if d.Connection == nil {
		return "private"
	}
	return fmt.Sprintf("%s@%s:%d/%s", d.Connection.User, d.Connection.Host, d.Connection.Port, d.Connection.Database)
}

type databaseShowCmd struct {
	Name string `arg:"" help:"Its name."`
}

// Run shows a database.
func (x *databaseShowCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	d, err := remote.Database(ctx, x.Name)
	if err != nil {
		return fmt.Errorf("show database %s: %w", x.Name, err)
	}
	return p.result(d, databaseTable(d))
}

func databaseTable(d client.Database) table {
	t := table{head: []string{"FIELD", "VALUE"}}
	t.add("name", d.Name)
	t.add("managed by", dash(d.ManagedBy))
	t.add("at", placeOf(d))
	t.add("capture", d.Capture)
	t.add("status", d.Status)
	if d.Reason != "" {
		t.add("reason", d.Reason)
	}
	if d.Slot != nil {
		t.add("slot", d.Slot.Name)
		t.add("slot keeps", fmt.Sprintf("%d bytes", d.Slot.RetainedBytes))
	}
	t.add("publication", dash(d.Publication))
	t.add("tables", dash(strings.Join(d.Patterns, " ")))
	t.add("seqs", fmt.Sprintf("%d to %d", d.FirstSeq, d.LastSeq))
	t.add("lag", fmt.Sprintf("%d bytes", d.LagBytes))
	for _, g := range d.Gaps {
		t.add("gap", g.Reason+" since "+localTime(&g.At)+"; "+g.Remedy)
	}
	for _, w := range d.Warnings {
		t.add("warning", w)
	}
	return t
}

type databaseCreateCmd struct {
	Name        string   `arg:"" help:"Its name in Lockstep."`
	URL         string   `required:"" env:"LOCKSTEP_DATABASE_URL" placeholder:"URL" help:"postgres://user:password@host:5432/database; @FILE reads it from a file, where others do not see it, and @- from standard input."`
	Capture     string   `enum:"wal,none" default:"wal" help:"wal or none."`
	Slot        string   `placeholder:"NAME" help:"Made when it is missing. Default: lockstep_ and the name."`
	Publication string   `placeholder:"NAME" help:"Made when it is missing. Default: lockstep_ and the name."`
	Tables      []string `placeholder:"PATTERN" help:"Such as public.* or -public.audit. Default: everything but system schemas."`
	Int8        string   `enum:"number,string" default:"number" help:"How 8-byte integers are written."`
	RetainWAL   string   `name:"retain-wal" placeholder:"50GB" help:"How much write-ahead log the slot may hold back; 0: no limit."`
	NoCheck     bool     `name:"no-check" help:"Do not connect to it before it is stored."`
}

// Run makes a database.
func (x *databaseCreateCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	address := x.URL
	if file, ok := strings.CutPrefix(address, "@"); ok {
		data, err := readInput(s, file)
		if err != nil {
			return fmt.Errorf("read the URL: %w: %w", err, lockstep.ErrInvalid)
		}
		address = strings.TrimSpace(string(data))
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	made, err := remote.CreateDatabase(ctx, client.DatabaseDefinition{
		Name: x.Name, URL: address, Capture: x.Capture, Slot: x.Slot, Publication: x.Publication, Tables: x.Tables, Int8: x.Int8, RetainWAL: x.RetainWAL, Unchecked: x.NoCheck,
	})
	if err != nil {
		return fmt.Errorf("create database %s: %w", x.Name, err)
	}
	if p.format == "table" && !p.quiet {
		p.note("created %s; lockstep database show %s tells how it is", printable(made.Name), printable(made.Name))
	}
	return p.result(made, databaseTable(made))
}

type databaseDeleteCmd struct {
	Names    []string `arg:"" name:"name" help:"Their names."`
	KeepSlot bool     `name:"keep-slot" help:"Leave slot and publications where they are: nobody connects to the database."`
}

// Run deletes databases.
func (x *databaseDeleteCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	slot := client.DropSlot
	if x.KeepSlot {
		slot = client.KeepSlot
	}
	for _, name := range x.Names {
		gone, err := remote.DeleteDatabase(ctx, name, slot)
		if err != nil {
			return fmt.Errorf("delete database %s: %w", name, err)
		}
		p.note("deleted %s; its changes stay in the stream until retention takes them", printable(name))
		for _, what := range gone.Dropped {
			p.note("dropped %s", printable(what))
		}
		for _, what := range gone.Left {
			p.note("still there: %s", printable(what))
		}
	}
	return nil
}
