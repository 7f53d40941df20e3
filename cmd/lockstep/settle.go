package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"lockstep/client"
)

type consumerNextCmd struct {
	Name  string        `arg:"" help:"Name or id."`
	Batch int           `short:"n" default:"1" help:"How many changes at most, 1 to 1000."`
	Wait  time.Duration `default:"0s" help:"How long to wait for the first."`
	Ack   bool          `help:"Settle them at once, after they were written."`
}

// Run takes changes. They stay handed out until they are settled or their lease ends.
func (x *consumerNextCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	batch, err := remote.Next(ctx, x.Name, x.Batch, x.Wait)
	if err != nil {
		return fmt.Errorf("take changes of consumer %s: %w", x.Name, err)
	}
	if err := writeBatch(p, batch); err != nil {
		return err
	}
	if !x.Ack || len(batch.Deliveries) == 0 {
		return nil
	}
	if err := remote.Ack(ctx, x.Name, tokensOf(batch)...); err != nil {
		return fmt.Errorf("ack changes of consumer %s: %w", x.Name, err)
	}
	p.note("acked %d", len(batch.Deliveries))
	return nil
}

func writeBatch(p printer, batch client.Batch) error {
	if p.format != "table" {
		return p.raw(batch.Raw)
	}
	t := table{head: []string{"TOKEN", "SEQ", "ATTEMPT", "ACTION", "TABLE", "KEY", "RECORD"}}
	for i := range batch.Deliveries {
		d := &batch.Deliveries[i]
		m := &d.Metadata
		t.add(d.Token, number(m.Seq), strconv.Itoa(d.Attempt), d.Action, m.Table(), keyText(m.RecordPKs), truncate(details(&d.Change), 80))
	}
	if err := p.table(t); err != nil {
		return err
	}
	p.note("%d pending, %d in flight", batch.Pending, batch.InFlight)
	return nil
}

func tokensOf(batch client.Batch) []string {
	out := make([]string, len(batch.Deliveries))
	for i := range batch.Deliveries {
		out[i] = batch.Deliveries[i].Token
	}
	return out
}

type consumerAckCmd struct {
	Name   string   `arg:"" help:"Name or id."`
	Tokens []string `arg:"" name:"token" help:"Ack tokens; - reads them from standard input."`
}

// Run settles changes.
func (x *consumerAckCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	tokens, err := tokensFrom(s, x.Tokens)
	if err != nil {
		return err
	}
	if err := remote.Ack(ctx, x.Name, tokens...); err != nil {
		return fmt.Errorf("ack changes of consumer %s: %w", x.Name, err)
	}
	p.note("acked %d", len(tokens))
	return nil
}

type consumerNackCmd struct {
	Name    string        `arg:"" help:"Name or id."`
	Tokens  []string      `arg:"" name:"token" help:"Ack tokens; - reads them from standard input."`
	Delay   time.Duration `placeholder:"30s" help:"How long until they are handed out again. Default: the consumer's backoff."`
	Reason  string        `placeholder:"TEXT" help:"Why; shown with the change."`
	Release bool          `help:"Give back without counting an attempt."`
}

// Run gives changes back.
func (x *consumerNackCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	tokens, err := tokensFrom(s, x.Tokens)
	if err != nil {
		return err
	}
	n := client.Nack{Delay: x.Delay, Reason: x.Reason, Release: x.Release}
	if err := remote.Nack(ctx, x.Name, n, tokens...); err != nil {
		return fmt.Errorf("nack changes of consumer %s: %w", x.Name, err)
	}
	p.note("gave back %d", len(tokens))
	return nil
}

// tokensFrom replaces - by the words of standard input.
func tokensFrom(s streams, args []string) ([]string, error) {
	if len(args) != 1 || args[0] != "-" {
		return args, nil
	}
	data, err := readAll(s.in)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var out []string
	for word := range bytes.FieldsSeq(data) {
		out = append(out, string(word))
	}
	if len(out) == 0 {
		return nil, usageError{fmt.Errorf("standard input held no token, write one per line")}
	}
	return out, nil
}

type consumerSeekCmd struct {
	Name string `arg:"" help:"Name or id."`
	To   string `arg:"" help:"beginning, now, seq:42 (or 42), or a time such as 2026-11-01T00:00:00Z."`
}

// Run moves the consumer. Tokens that are out become stale.
func (x *consumerSeekCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	to := x.To
	if _, err := strconv.ParseUint(to, 10, 64); err == nil {
		to = "seq:" + to
	}
	if err := remote.Seek(ctx, x.Name, to); err != nil {
		return fmt.Errorf("seek consumer %s: %w", x.Name, err)
	}
	p.note("%s reads from %s", x.Name, to)
	return nil
}

// maxInput limits what is read from a file or standard input.
const maxInput = 16 << 20

func readAll(in io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err == nil && len(data) > maxInput {
		return nil, fmt.Errorf("the input is larger than %d bytes", maxInput)
	}
	return data, err
}
