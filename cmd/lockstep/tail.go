package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"lockstep/client"
)

type tailCmd struct {
	Tables   []string `arg:"" optional:"" name:"table" help:"Tables to follow, such as public.orders or stripe.*; a name alone is one of public. Default: all."`
	Database string   `placeholder:"NAME" help:"The database, by its name in the configuration. Default: the only one, or app."`
	From     string   `placeholder:"SEQ|beginning" help:"Where to begin: a seq, beginning, a time, or 1h for an hour ago. Default: now."`
	Action   []string `placeholder:"ACTION" help:"Only these: insert, update, delete, truncate, read, gap."`
	Filter   string   `placeholder:"EXPR" help:"Only changes for which the expression is true."`
	Limit    int      `short:"n" placeholder:"N" help:"Stop after so many changes."`
}

// Run follows changes until it is interrupted, which is its normal end.
func (t *tailCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	database, err := t.database(ctx, remote)
	if err != nil {
		return err
	}
	lost := false
	options := client.TailOptions{Tables: patterns(t.Tables), Actions: t.Action, Filter: t.Filter, From: t.from(), Interrupted: func(err error) {
		if !lost {
			p.note("lockstep: %s; going on when it is back", reason(err))
		}
		lost = true
	}}
	write := t.writer(s, p)
	seen := 0
	for event, err := range remote.Tail(ctx, database, options) {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("follow database %s: %w", database, err)
		}
		lost = false
		if err := write(event); err != nil {
			return err
		}
		if seen++; seen == t.Limit {
			return nil
		}
	}
	return nil
}

// database returns the database that was named, or else the one there is.
func (t *tailCmd) database(ctx context.Context, remote *client.Client) (string, error) {
	if t.Database != "" {
		return t.Database, nil
	}
	all, err := remote.Databases(ctx)
	if err != nil {
		return "", fmt.Errorf("find the database to follow: %w", err)
	}
	names := make([]string, len(all))
	for i, d := range all {
		names[i] = d.Name
	}
	switch {
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0 || slices.Contains(names, "app"):
		return "app", nil
	}
	return "", usageError{fmt.Errorf("which database? give --database with one of %s", strings.Join(names, ", "))}
}

// patterns reads a name alone as a table of public, as Postgres does.
func patterns(tables []string) []string {
	out := make([]string, len(tables))
	for i, name := range tables {
		out[i] = name
		if !strings.ContainsAny(name, `.*"-`) {
			out[i] = "public." + name
		}
	}
	return out
}

func (t *tailCmd) from() string {
	if _, err := strconv.ParseUint(t.From, 10, 64); err == nil {
		return "seq:" + t.From
	}
	return t.From
}

func (t *tailCmd) writer(s streams, p printer) func(client.Event) error {
	switch p.format {
	case "json":
		return func(e client.Event) error { return writeLine(s.out, e.Data) }
	case "yaml":
		return func(e client.Event) error {
			text, err := toYAML(e.Data)
			if err != nil {
				return err
			}
			_, err = s.out.Write(append([]byte("---\n"), text...))
			return err
		}
	}
	paint := plainPaint()
	if s.colours(s.out) {
		paint = colourPaint()
	}
	return func(e client.Event) error {
		if e.Name == "error" {
			p.note("lockstep: seq %s: the filter failed: %s", e.ID, printable(string(e.Data)))
			return nil
		}
		change, err := client.ParseChange(e.Data)
		if err != nil {
			return err
		}
		line := changeLine(&change, paint, columns(s.out))
		_, err = io.WriteString(s.out, line+"\n")
		return err
	}
}

// writeLine writes one message as one line. A line's end inside of it can only be
// space between values: in JSON strings it is escaped.
func writeLine(w io.Writer, message []byte) error {
	line := bytes.ReplaceAll(message, []byte("\n"), []byte(" "))
	line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
	_, err := w.Write(append(line, '\n'))
	return err
}
