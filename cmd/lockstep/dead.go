package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lockstep/client"
)

type deadCmd struct {
	Ls    deadLsCmd    `cmd:"" help:"List dead letters."`
	Show  deadShowCmd  `cmd:"" help:"Show a dead letter with what it held."`
	Retry deadRetryCmd `cmd:"" help:"Hand changes out again."`
	Drop  deadDropCmd  `cmd:"" help:"Give changes up for good."`
}

type deadLsCmd struct {
	Consumer string `arg:"" help:"Name or id of the consumer."`
	Limit    int    `short:"n" default:"100" help:"How many at most; 0: all."`
}

// Run lists dead letters, oldest first.
func (x *deadLsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	t := table{head: []string{"SEQ", "STATE", "ATTEMPTS", "AT", "TABLE", "KEY", "REASON"}}
	raws := []json.RawMessage{}
	more := false
	err = eachDead(ctx, remote, x.Consumer, func(d client.DeadLetter) error {
		if len(raws) == x.Limit && x.Limit > 0 {
			more = true
			return errEnough
		}
		raws = append(raws, d.Raw)
		t.add(number(d.Seq), d.State, fmt.Sprint(d.Attempts), d.At.Local().Format(time.DateTime), d.Table, keyOf(d.PKs), truncate(d.Reason, 100))
		return nil
	})
	if err != nil {
		return fmt.Errorf("list dead letters of consumer %s: %w", x.Consumer, err)
	}
	if err := p.result(raws, t); err != nil {
		return err
	}
	if more {
		p.note("there are more, -n 0 shows all")
	}
	return nil
}

// keyOf shows a JSON list of key values as tail does.
func keyOf(pks json.RawMessage) string {
	var values []string
	if json.Unmarshal(pks, &values) != nil {
		return string(pks)
	}
	return keyText(values)
}

// errEnough ends eachDead without being an error.
var errEnough = errors.New("enough")

// eachDead calls do with each dead letter until it returns an error.
func eachDead(ctx context.Context, remote *client.Client, consumer string, do func(client.DeadLetter) error) error {
	cursor := ""
	for {
		page, next, err := remote.DeadLetters(ctx, consumer, cursor)
		if err != nil {
			return err
		}
		for _, d := range page {
			if err := do(d); errors.Is(err, errEnough) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}

type deadShowCmd struct {
	Consumer string `arg:"" help:"Name or id of the consumer."`
	Seq      uint64 `arg:"" help:"The change's seq."`
}

// Run shows a dead letter.
func (x *deadShowCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	d, err := remote.DeadLetter(ctx, x.Consumer, x.Seq)
	if err != nil {
		return fmt.Errorf("show dead letter %d of consumer %s: %w", x.Seq, x.Consumer, err)
	}
	return p.object(d.Raw)
}

type deadRetryCmd struct {
	Consumer string   `arg:"" help:"Name or id of the consumer."`
	Seqs     []uint64 `arg:"" optional:"" name:"seq" help:"The changes' seqs."`
	All      bool     `help:"All of the consumer's dead letters that wait for a person."`
	Reason   string   `placeholder:"TEXT" help:"With --all: only those whose reason has this part."`
	Before   string   `placeholder:"TIME" help:"With --all: only those written before a time, or 1h for an hour ago."`
}

// Run hands changes out again.
func (x *deadRetryCmd) Run(ctx context.Context, c *cli, p printer) error {
	w := deadWork{consumer: x.Consumer, seqs: x.Seqs, verb: "retry", done: "retried", do: (*client.Client).RetryDead, many: (*client.Client).RetryDeadMany}
	w.asked = client.DeadWork{All: true, Reason: x.Reason, Before: x.Before}
	if x.All {
		return w.all(ctx, c, p)
	}
	return w.each(ctx, c, p)
}

type deadDropCmd struct {
	Consumer string   `arg:"" help:"Name or id of the consumer."`
	Seqs     []uint64 `arg:"" optional:"" name:"seq" help:"The changes' seqs."`
	All      bool     `help:"All of the consumer's dead letters that wait for a person."`
	Reason   string   `placeholder:"TEXT" help:"With --all: only those whose reason has this part."`
	Before   string   `placeholder:"TIME" help:"With --all: only those written before a time, or 1h for an hour ago."`
}

// Run gives changes up.
func (x *deadDropCmd) Run(ctx context.Context, c *cli, p printer) error {
	w := deadWork{consumer: x.Consumer, seqs: x.Seqs, verb: "drop", done: "dropped", do: (*client.Client).DropDead, many: (*client.Client).DropDeadMany}
	w.asked = client.DeadWork{All: true, Reason: x.Reason, Before: x.Before}
	if x.All {
		return w.all(ctx, c, p)
	}
	return w.each(ctx, c, p)
}

// deadWork does one thing to several dead letters.
type deadWork struct {
	consumer   string
	seqs       []uint64
	verb, done string
	do         func(*client.Client, context.Context, string, uint64) error
	many       func(*client.Client, context.Context, string, client.DeadWork) (client.DeadProgress, error)
	asked      client.DeadWork // of many
}

// each goes on after a seq that it cannot be done to, and returns all errors.
func (w deadWork) each(ctx context.Context, c *cli, p printer) error {
	if w.asked.Reason != "" || w.asked.Before != "" {
		return usageError{fmt.Errorf("--reason and --before narrow --all")}
	}
	if len(w.seqs) == 0 {
		return usageError{fmt.Errorf("which dead letters? give their seqs, or --all")}
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	var failed []error
	for _, seq := range w.seqs {
		if err := w.do(remote, ctx, w.consumer, seq); err != nil {
			failed = append(failed, fmt.Errorf("%s dead letter %d of consumer %s: %w", w.verb, seq, w.consumer, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		p.note("%s %d", w.done, seq)
	}
	return errors.Join(failed...)
}

// all works as long as there is something left that was not looked at.
func (w deadWork) all(ctx context.Context, c *cli, p printer) error {
	if len(w.seqs) > 0 {
		return usageError{fmt.Errorf("give seqs or --all, not both")}
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	n := 0
	var skipped []error
	for {
		got, err := w.many(remote, ctx, w.consumer, w.asked)
		n += got.Retried + got.Dropped
		if err == nil && got.Stopped != "" {
			err = errors.New(got.Stopped)
		}
		if got.Skipped > 0 {
			skipped = append(skipped, fmt.Errorf("%s could not be %s: %s", count(got.Skipped, "dead letter"), w.done, got.Why))
		}
		if err != nil || got.Next == "" {
			p.note("%s %d", w.done, n)
			if err != nil {
				return fmt.Errorf("%s dead letters of consumer %s: %w", w.verb, w.consumer, err)
			}
			return errors.Join(skipped...)
		}
		p.note("%s %d, %s left to look at", w.done, n, count(int(got.Left), "dead letter"))
		w.asked.Cursor = got.Next
	}
}
