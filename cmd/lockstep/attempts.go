package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep/client"
)

type consumerAttemptsCmd struct {
	Name   string `arg:"" help:"Name or id."`
	Failed bool   `help:"Only those that failed; they are kept longer."`
	Limit  int    `short:"n" default:"20" help:"How many at most."`
	Watch  bool   `short:"w" help:"Go on with those that come."`
}

// Run shows the last attempts to deliver, the newest last.
func (x *consumerAttemptsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	list, err := x.last(ctx, remote, 0)
	if err != nil {
		return fmt.Errorf("attempts of consumer %s: %w", x.Name, err)
	}
	if !x.Watch {
		raws := make([]json.RawMessage, len(list))
		t := attemptTable()
		for i, a := range list {
			raws[i] = a.Raw
			t.add(attemptRow(a)...)
		}
		return p.result(raws, t)
	}
	return x.watch(ctx, remote, p, list)
}

func attemptTable() table {
	return table{head: []string{"AT", "OUTCOME", "STATUS", "TOOK", "TRY", "SEQS", "REQUEST", "ERROR"}}
}

func attemptRow(a client.Attempt) []string {
	status := "-"
	if a.Status != 0 {
		status = strconv.Itoa(a.Status)
	}
	took := time.Duration(a.DurationMS * float64(time.Millisecond)).Round(100 * time.Microsecond)
	return []string{
		a.At.Local().Format("2006-01-02 15:04:05.000"), a.Outcome, status, took.String(), strconv.Itoa(a.Attempt), seqsText(a),
		strings.TrimSpace(a.Method + " " + a.URL), truncate(a.Error, 100),
	}
}

// seqsText shows a few seqs, and how many there are.
func seqsText(a client.Attempt) string {
	const shown = 3
	var parts []string
	for _, seq := range a.Seqs[:min(len(a.Seqs), shown)] {
		parts = append(parts, number(seq))
	}
	if a.Changes > shown {
		return strings.Join(parts, ",") + fmt.Sprintf(",… (%d)", a.Changes)
	}
	return strings.Join(parts, ",")
}

const (
	attemptsEvery = 500 * time.Millisecond
	attemptsPage  = 100
)

// last returns the newest attempts above an id, oldest first.
func (x *consumerAttemptsCmd) last(ctx context.Context, remote *client.Client, above uint64) ([]client.Attempt, error) {
	limit := x.Limit
	if above > 0 {
		limit = attemptsPage
	}
	var list []client.Attempt
	for cursor := ""; len(list) < limit; {
		page, next, err := remote.Attempts(ctx, x.Name, client.AttemptQuery{Failed: x.Failed, Limit: min(limit-len(list), attemptsPage), Cursor: cursor})
		if err != nil {
			return nil, err
		}
		for _, a := range page {
			if id, _ := strconv.ParseUint(a.ID, 10, 64); id <= above {
				next = ""
				break
			}
			list = append(list, a)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	slices.Reverse(list)
	return list, nil
}

// watch shows what comes until somebody ends it.
func (x *consumerAttemptsCmd) watch(ctx context.Context, remote *client.Client, p printer, list []client.Attempt) error {
	tick := time.NewTicker(attemptsEvery)
	defer tick.Stop()
	above := uint64(0)
	for {
		for _, a := range list {
			above, _ = strconv.ParseUint(a.ID, 10, 64)
			if p.format != "table" {
				if err := p.raw(a.Raw); err != nil {
					return err
				}
				continue
			}
			if _, err := fmt.Fprintln(p.out, strings.Join(attemptRow(a), "  ")); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var err error
		if list, err = x.last(ctx, remote, max(above, 1)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("attempts of consumer %s: %w", x.Name, err)
		}
	}
}

type consumerReplayCmd struct {
	Name        string   `arg:"" help:"Name or id."`
	Seqs        []uint64 `arg:"" optional:"" name:"seq" help:"The changes' seqs."`
	From        string   `placeholder:"PLACE" help:"Those from here on: a seq, a time, or 1h for an hour ago."`
	To          string   `placeholder:"PLACE" help:"With --from: up to here. Default: now."`
	FailedSince string   `placeholder:"1h" help:"What went to the dead letters since then."`
}

// Run delivers changes again.
func (x *consumerReplayCmd) Run(ctx context.Context, c *cli, p printer) error {
	forms := 0
	for _, given := range []bool{len(x.Seqs) > 0, x.From != "", x.FailedSince != ""} {
		if given {
			forms++
		}
	}
	if forms != 1 || x.To != "" && x.From == "" {
		return usageError{errors.New("which changes? give their seqs, or --from with --to, or --failed-since")}
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	asked := []client.Replay{{From: x.From, To: x.To, FailedSince: x.FailedSince}}
	if len(x.Seqs) > 0 {
		asked = nil
		for _, seq := range x.Seqs {
			asked = append(asked, client.Replay{Seq: seq})
		}
	}
	total := 0
	for _, one := range asked {
		n, err := remote.Replay(ctx, x.Name, one)
		if err != nil {
			return fmt.Errorf("replay to consumer %s: %w", x.Name, err)
		}
		total += n
	}
	p.note("replayed %d", total)
	return nil
}

type consumerTestCmd struct {
	Name string `arg:"" help:"Name or id."`
}

// Run sends a test event.
func (x *consumerTestCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	got, err := remote.TestConsumer(ctx, x.Name)
	if err != nil {
		return fmt.Errorf("test consumer %s: %w", x.Name, err)
	}
	if !got.Delivered {
		return fmt.Errorf("test consumer %s: %s", x.Name, got.Error)
	}
	p.note("delivered in %s", time.Duration(got.DurationMS*float64(time.Millisecond)).Round(100*time.Microsecond))
	return nil
}
