package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"lockstep/client"
	"lockstep/sink/webhook"
)

type listenCmd struct {
	Port     uint16        `arg:"" help:"Where the program listens, on 127.0.0.1."`
	Path     string        `default:"/" placeholder:"/hooks" help:"The path that is posted to."`
	Consumer string        `placeholder:"NAME" help:"Forward what this consumer of kind http gets. Its position moves. Default: a consumer that is made for it, and deleted at the end."`
	Tables   []string      `name:"table" aliases:"tables" placeholder:"PATTERN" help:"Only changes of these tables, such as public.orders or stripe.*; a name alone is one of public. Default: all."`
	Action   []string      `placeholder:"ACTION" help:"Only these: insert, update, delete."`
	Filter   string        `placeholder:"EXPR" help:"Only changes for which the expression is true."`
	Database string        `placeholder:"NAME" help:"The database, by its name in the configuration. Default: the only one."`
	From     string        `placeholder:"SEQ|beginning" help:"Where to begin: a seq, beginning, a time, or 1h for an hour ago. Default: now."`
	Secret   string        `env:"WEBHOOK_SECRET" placeholder:"whsec_…" help:"Signs requests. Others on this machine see a command's flags, but not its environment."`
	Format   string        `enum:"lockstep,cloudevents,cloudevents-structured,cloudevents-batch,plain" default:"lockstep" help:"lockstep, cloudevents, cloudevents-structured, cloudevents-batch or plain."`
	Timeout  time.Duration `default:"15s" help:"How long the program may take to answer, 1ms to 10m."`
}

// Run forwards changes until it is interrupted, which is its normal end.
func (x *listenCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	if err := x.check(); err != nil {
		return usageError{err}
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	f := &forwarder{remote: remote, consumer: x.Consumer, note: p.note, show: forwardedWriter(s, p), timeout: x.Timeout}
	if f.to, err = x.sink(f); err != nil {
		return usageError{fmt.Errorf("listen: %w", err)}
	}
	defer func() { _ = f.to.Close(ctx) }()
	if x.Consumer == "" {
		made, err := remote.CreateConsumer(ctx, x.temporary())
		if err != nil {
			return fmt.Errorf("make a consumer to listen with: %w", err)
		}
		f.consumer = made.Name
		defer x.remove(ctx, remote, made.Name, p)
	}
	p.note("forwarding %s to %s; Ctrl-C ends it", x.what(f.consumer), x.url())
	err = f.run(ctx)
	p.note("%d delivered, %d failed attempts", f.delivered, f.failed)
	return err
}

func (x *listenCmd) check() error {
	if x.Port == 0 {
		return errors.New("listen: 0 is no port, give the one that your program listens on")
	}
	if x.Timeout < time.Millisecond || x.Timeout > 10*time.Minute {
		return fmt.Errorf("listen: --timeout %s is out of range: use 1ms to 10m", x.Timeout)
	}
	if x.Consumer == "" {
		return nil
	}
	for flag, given := range map[string]bool{
		"--table": len(x.Tables) > 0, "--action": len(x.Action) > 0, "--filter": x.Filter != "", "--database": x.Database != "", "--from": x.From != "",
	} {
		if given {
			return fmt.Errorf("listen: %s is for a consumer that is made, and --consumer names one that is there: leave one of them out", flag)
		}
	}
	return nil
}

func (x *listenCmd) url() string {
	address := "http://127.0.0.1:" + strconv.Itoa(int(x.Port))
	if u, err := url.Parse(x.Path); err == nil && !strings.HasPrefix(u.Path, "/") {
		address += "/"
	}
	return address + x.Path
}

// sink is what sends: the same as of consumers of kind webhook.
func (x *listenCmd) sink(f *forwarder) (*webhook.Webhook, error) {
	config := webhook.Config{
		URL: x.url(), Format: webhook.Format(x.Format), Timeout: x.Timeout, AllowPrivate: true, Kept: -1,
		Attempt: func(_ context.Context, a webhook.Attempt) { f.attempt = a },
	}
	if x.Secret != "" {
		config.Secrets = []webhook.Secret{{Key: x.Secret}}
	}
	return webhook.New(config)
}

// temporary is the consumer of one run.
func (x *listenCmd) temporary() client.Definition {
	from := tailCmd{From: x.From}
	return client.Definition{
		Name: "listen-" + uuid.NewString()[:13], Kind: "http", Database: x.Database, Tables: patterns(x.Tables), Actions: x.Action, Filter: x.Filter,
		Start: from.from(), Backoff: &client.Backoff{First: "1s", Max: "30s"},
	}
}

const removeWait = 10 * time.Second

// remove deletes the consumer of this run, also when that was interrupted.
func (x *listenCmd) remove(ctx context.Context, remote *client.Client, name string, p printer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWait)
	defer cancel()
	if err := remote.DeleteConsumer(ctx, name); err != nil {
		p.note("lockstep: the consumer of this run is still there: %s\n  lockstep consumer delete %s", reason(err), name)
	}
}

func (x *listenCmd) what(consumer string) string {
	switch {
	case x.Consumer != "":
		return "what consumer " + consumer + " gets"
	case len(x.Tables) > 0:
		return "changes of " + strings.Join(patterns(x.Tables), ", ")
	}
	return "all changes"
}
