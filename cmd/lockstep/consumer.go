package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

type consumerCmd struct {
	Ls       consumerLsCmd       `cmd:"" help:"List consumers and where they are."`
	Attempts consumerAttemptsCmd `cmd:"" help:"Show the last attempts to deliver to a destination."`
	Replay   consumerReplayCmd   `cmd:"" help:"Deliver changes again."`
	Test     consumerTestCmd     `cmd:"" help:"Send a test event to a destination."`
	Show     consumerShowCmd     `cmd:"" help:"Show one consumer."`
	Create   consumerCreateCmd   `cmd:"" help:"Make a consumer."`
	Delete   consumerDeleteCmd   `cmd:"" help:"Delete consumers with their positions and dead letters."`
	Next     consumerNextCmd     `cmd:"" help:"Take changes."`
	Ack      consumerAckCmd      `cmd:"" help:"Settle changes for good."`
	Nack     consumerNackCmd     `cmd:"" help:"Give changes back."`
	Seek     consumerSeekCmd     `cmd:"" help:"Move a consumer to another place of the stream."`
	Pause    consumerPauseCmd    `cmd:"" help:"Stop handing out changes."`
	Resume   consumerResumeCmd   `cmd:"" help:"Go on handing out changes."`
}

type consumerLsCmd struct{}

// Run lists consumers.
func (consumerLsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	list, err := remote.Consumers(ctx)
	if err != nil {
		return fmt.Errorf("list consumers: %w", err)
	}
	t := table{head: []string{"NAME", "KIND", "DATABASE", "STATE", "PENDING", "IN FLIGHT", "DEAD", "TABLES", "MANAGED BY"}}
	raws := make([]json.RawMessage, len(list))
	for i, one := range list {
		raws[i] = one.Raw
		t.add(one.Name, one.Kind, one.Database, stateOf(one), number(one.Stats.Pending), number(one.Stats.InFlight), number(one.Stats.Dead), gets(one), keptBy(one.ManagedBy, one.AppliedFrom))
	}
	return p.result(raws, t)
}

// stateOf is the consumer's status, or what is wrong with it.
func stateOf(c client.Consumer) string {
	if c.Health.Status == "warn" || c.Health.Status == "error" {
		return c.Health.Status + ": " + c.Health.Reason
	}
	return c.Status
}

// keptBy says who keeps a definition: api, file, or the file that it was applied from.
func keptBy(managedBy, from string) string {
	if from != "" {
		return managedBy + " (" + from + ")"
	}
	return dash(managedBy)
}

// gets names the tables or collections whose changes the consumer gets.
func gets(c client.Consumer) string {
	names := append(append([]string{}, c.Tables...), c.Collections...)
	if len(names) == 0 {
		return "all"
	}
	return strings.Join(names, " ")
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

type consumerShowCmd struct {
	Name string `arg:"" help:"Name or id."`
}

// Run shows a consumer: every field that the server tells.
func (x *consumerShowCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	one, err := remote.Consumer(ctx, x.Name)
	if err != nil {
		return fmt.Errorf("show consumer %s: %w", x.Name, err)
	}
	return p.object(one.Raw)
}

// object writes a JSON object, as a table one member per line.
func (p printer) object(raw json.RawMessage) error {
	if p.format != "table" {
		return p.raw(raw)
	}
	t := table{head: []string{"FIELD", "VALUE"}}
	var add func(prefix string, object json.RawMessage)
	add = func(prefix string, object json.RawMessage) {
		for _, m := range members(object) {
			if inner := members(m.value); len(inner) > 0 {
				add(prefix+m.name+".", m.value)
				continue
			}
			var text string
			if json.Unmarshal(m.value, &text) != nil {
				text = string(m.value)
			}
			t.add(prefix+m.name, text)
		}
	}
	add("", raw)
	return p.table(t)
}

type consumerCreateCmd struct {
	Name        string        `arg:"" optional:"" help:"Its name; may stand in the file instead."`
	File        string        `short:"f" placeholder:"FILE" help:"YAML of one consumer as in lockstep.yml; - is standard input. Flags go before it."`
	Kind        string        `placeholder:"KIND" help:"How it gets its changes: http, webhook or stdout. Default: http, or webhook with --url."`
	URL         string        `placeholder:"URL" help:"Of kind webhook: where changes are sent. Its other settings stand in the file."`
	Batch       int           `placeholder:"1" help:"Of kinds that send: at most so many changes in one request."`
	Database    string        `placeholder:"NAME" help:"The database. Default: the only one."`
	Tables      []string      `placeholder:"PATTERN" help:"Tables, such as public.orders or stripe.*; a name alone is one of public. Default: all."`
	Collections []string      `name:"collection" aliases:"collections" placeholder:"NAME" help:"Collections of syncs in the place of tables, such as stripe:customer or stripe:*."`
	Sync        string        `placeholder:"NAME" help:"With collections: only those of this sync."`
	Actions     []string      `placeholder:"ACTION" help:"insert, update, delete. Default: all."`
	Filter      string        `placeholder:"EXPR" help:"Only changes for which the expression is true."`
	Transform   string        `placeholder:"EXPR" help:"What becomes of the record."`
	Start       string        `placeholder:"PLACE" help:"now, beginning, seq:1234, a time, or 1h for an hour ago. Default: now."`
	Backfill    bool          `help:"Existing rows first, as action read."`
	OrderBy     string        `placeholder:"WHAT" help:"key, none, or columns separated by commas. Default: key."`
	AckWait     time.Duration `placeholder:"30s" help:"How long a worker has before a change is handed out again."`
	MaxInFlight int           `placeholder:"1000" help:"How many changes may be out at a time."`
	MaxAttempts int           `placeholder:"0" help:"How often a change is tried; 0: for ever."`
	OnExhausted string        `placeholder:"WHAT" help:"After the last attempt: park, park_key or block."`
}

// Run makes a consumer from the file and the flags.
func (x *consumerCreateCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	definition, err := x.definition(s)
	if err != nil {
		return err
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	made, err := remote.CreateConsumer(ctx, definition)
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", x.Name, err)
	}
	if p.format != "table" {
		return p.raw(made.Raw)
	}
	if p.quiet {
		_, err = fmt.Fprintln(p.out, made.Name)
		return err
	}
	_, err = fmt.Fprintf(p.out, "created %s (%s)\n", made.Name, made.ID)
	return err
}

// definition returns the file's fields with those of the flags put over them.
func (x *consumerCreateCmd) definition(s streams) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	if x.File != "" {
		if err := readDefinition(s, x.File, &fields); err != nil {
			return nil, err
		}
	}
	set := func(name string, value any, given bool) {
		if given {
			// Texts, numbers and lists of texts always marshal.
			fields[name], _ = json.Marshal(value)
		}
	}
	set("name", x.Name, x.Name != "")
	set("kind", x.Kind, x.Kind != "")
	if x.URL != "" {
		if err := withURL(fields, x.URL); err != nil {
			return nil, err
		}
	}
	set("batch", map[string]int{"size": x.Batch}, x.Batch != 0)
	set("database", x.Database, x.Database != "")
	set("tables", patterns(x.Tables), len(x.Tables) > 0)
	set("collections", x.Collections, len(x.Collections) > 0)
	set("sync", x.Sync, x.Sync != "")
	set("actions", x.Actions, len(x.Actions) > 0)
	set("filter", x.Filter, x.Filter != "")
	set("transform", x.Transform, x.Transform != "")
	set("start", x.Start, x.Start != "")
	set("backfill", true, x.Backfill)
	set("order_by", orderBy(x.OrderBy), x.OrderBy != "")
	set("ack_wait", x.AckWait.String(), x.AckWait != 0)
	set("max_in_flight", x.MaxInFlight, x.MaxInFlight != 0)
	set("max_attempts", x.MaxAttempts, x.MaxAttempts != 0)
	set("on_exhausted", x.OnExhausted, x.OnExhausted != "")
	if fields["name"] == nil {
		return nil, usageError{fmt.Errorf("the consumer has no name, give it one: lockstep consumer create NAME")}
	}
	if fields["kind"] == nil {
		set("kind", "http", true)
	}
	_ = json.Unmarshal(fields["name"], &x.Name)
	return fields, nil
}

// withURL makes the consumer a webhook to an address.
func withURL(fields map[string]json.RawMessage, address string) error {
	settings := map[string]json.RawMessage{}
	if raw := fields["webhook"]; raw != nil && json.Unmarshal(raw, &settings) != nil {
		return fmt.Errorf("read the definition: webhook: expected keys and values: %w", lockstep.ErrInvalid)
	}
	// Texts always marshal.
	settings["url"], _ = json.Marshal(address)
	fields["webhook"], _ = json.Marshal(settings)
	if fields["kind"] == nil {
		fields["kind"] = json.RawMessage(`"webhook"`)
	}
	return nil
}

func orderBy(text string) any {
	if text == "key" || text == "none" {
		return text
	}
	return strings.Split(text, ",")
}

func readDefinition(s streams, file string, fields *map[string]json.RawMessage) error {
	data, err := readInput(s, file)
	if err != nil {
		return fmt.Errorf("read the definition: %w: %w", err, lockstep.ErrInvalid)
	}
	raw, err := fromYAML(file, data)
	if err != nil {
		return fmt.Errorf("%w: %w", err, lockstep.ErrInvalid)
	}
	if err := json.Unmarshal(raw, fields); err != nil || *fields == nil {
		return fmt.Errorf("read %s: expected the keys of one consumer, such as name: orders: %w", file, lockstep.ErrInvalid)
	}
	return nil
}

type consumerDeleteCmd struct {
	Names    []string `arg:"" name:"name" help:"Names or ids."`
	Override bool     `help:"Also what was applied from a file, which would make it again."`
}

// Run deletes consumers.
func (x *consumerDeleteCmd) Run(ctx context.Context, c *cli, p printer) error {
	remove := func(remote *client.Client, ctx context.Context, name string) error {
		return remote.With(client.Claim{Override: x.Override}).DeleteConsumer(ctx, name)
	}
	return eachName(ctx, c, p, x.Names, "delete", "deleted", remove)
}

type consumerPauseCmd struct {
	Names []string `arg:"" name:"name" help:"Names or ids."`
}

// Run pauses consumers.
func (x *consumerPauseCmd) Run(ctx context.Context, c *cli, p printer) error {
	return eachName(ctx, c, p, x.Names, "pause", "paused", (*client.Client).PauseConsumer)
}

type consumerResumeCmd struct {
	Names []string `arg:"" name:"name" help:"Names or ids."`
}

// Run resumes consumers.
func (x *consumerResumeCmd) Run(ctx context.Context, c *cli, p printer) error {
	return eachName(ctx, c, p, x.Names, "resume", "resumed", (*client.Client).ResumeConsumer)
}

// eachName does something to each consumer and stops at the first that it cannot be
// done to.
func eachName(ctx context.Context, c *cli, p printer, names []string, verb, done string, do func(*client.Client, context.Context, string) error) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := do(remote, ctx, name); err != nil {
			return fmt.Errorf("%s consumer %s: %w", verb, name, err)
		}
		p.note("%s %s", done, name)
	}
	return nil
}

func readInput(s streams, file string) ([]byte, error) {
	if file == "-" {
		return readAll(s.in)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readAll(f)
}
