// Package kinds lists the kinds of consumers that changes are sent to: what each needs
// to be told, and the sink that it makes of it. A further kind is one entry of [all].
//
//  1. Everything that is wrong with settings is found at once, by field.
//  2. No problem, error or view of settings holds a secret: see [Shown].
package kinds

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"lockstep"
	"lockstep/internal/pump"
	"lockstep/sink/nats"
	"lockstep/sink/stdout"
)

// Target is what a sink may need besides its settings.
type Target struct {
	Consumer string // its name
	Database string
	Stdout   *stdout.Lines
	Ordered  bool        // order_by names columns
	NATS     *NATSServer // the node's own; nil: it has none
}

// NATSServer is a NATS server of this process, which token lets the node publish.
type NATSServer struct {
	nats.InProcess
	Token string
}

// Lines shares a writer among consumers of kind stdout.
func Lines(w io.Writer) *stdout.Lines { return stdout.NewLines(w) }

// Problem is one fault of settings.
type Problem struct {
	Field   string // within the kind's settings, such as url or secrets[1]; empty: the whole
	Message string
	Remedy  string // may be empty
}

// kind is one entry of the list.
type kind struct {
	name string
	// empty returns a pointer to the kind's settings, with their defaults; nil: it has none.
	empty func() any
	// open makes the sink of settings. It does not connect: it is called to check them, too.
	open func(t Target, settings any) (pump.Opened, error)
}

// all are the kinds that there are.
func all() []kind {
	return []kind{
		{name: "webhook", empty: func() any { return &webhookSettings{} }, open: openWebhook},
		{name: "postgres", empty: func() any { return &postgresSettings{} }, open: openPostgres},
		{name: "nats", empty: func() any { return &natsSettings{} }, open: openNATS},
		{name: "kafka", empty: func() any { return &kafkaSettings{} }, open: openKafka},
		{name: "redis", empty: func() any { return &redisSettings{} }, open: openRedis},
		{name: "stdout", open: openStdout},
	}
}

func find(name string) (kind, bool) {
	list := all()
	i := slices.IndexFunc(list, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, false
	}
	return list[i], true
}

// Names returns the kinds that there are.
func Names() []string {
	var names []string
	for _, k := range all() {
		names = append(names, k.name)
	}
	return names
}

// Sends reports whether consumers of a kind are sent to.
func Sends(name string) bool {
	_, ok := find(name)
	return ok
}

// Check returns everything that is wrong with the settings of a kind.
func Check(name string, settings json.RawMessage) []Problem {
	k, ok := find(name)
	if !ok {
		return []Problem{{Message: fmt.Sprintf("there is no kind %q", name)}}
	}
	s, problems := k.read(settings)
	if len(problems) > 0 {
		return problems
	}
	opened, err := k.open(Target{Consumer: "a", Database: "a", Stdout: stdout.NewLines(&bytes.Buffer{}), NATS: &NATSServer{}}, s)
	if err == nil {
		_ = opened.Sink.Close(context.Background()) // it was never used
		return nil
	}
	return problemsOf(err)
}

// read decodes settings.
func (k kind) read(settings json.RawMessage) (any, []Problem) {
	if k.empty == nil {
		if members, _ := object(settings); len(members) > 0 {
			return nil, []Problem{{Message: "the kind " + k.name + " has no settings", Remedy: "remove them"}}
		}
		return nil, nil
	}
	s := k.empty()
	return s, decode(settings, s)
}

// Open makes the sink of a consumer. It connects when the first change is written, and
// errors wrap lockstep.ErrInvalid.
func Open(name string, t Target, settings json.RawMessage) (pump.Opened, error) {
	k, ok := find(name)
	if !ok {
		return pump.Opened{}, fmt.Errorf("there is no kind %q: %w", name, lockstep.ErrInvalid)
	}
	s, problems := k.read(settings)
	if len(problems) > 0 {
		return pump.Opened{}, fmt.Errorf("%s: %s: %w", problems[0].Field, problems[0].Message, lockstep.ErrInvalid)
	}
	return k.open(t, s)
}

// Shown returns settings without what is secret in them.
func Shown(name string, settings json.RawMessage) json.RawMessage {
	k, ok := find(name)
	if !ok || k.empty == nil || len(settings) == 0 {
		return nil
	}
	return hide(settings, k.empty())
}

// Merge returns the settings that a change makes of old ones: members that it has
// replace them, null removes them. What a change repeats as [Shown] shows it stays.
func Merge(name string, old, change json.RawMessage) (json.RawMessage, error) {
	patch, err := object(change)
	if err != nil {
		return nil, err
	}
	into, err := object(old)
	if err != nil {
		return nil, err
	}
	shown, _ := object(Shown(name, old))
	for field, value := range patch {
		switch {
		case bytes.Equal(bytes.TrimSpace(value), []byte("null")):
			delete(into, field)
		case shown[field] != nil && sameJSON(value, shown[field]) && into[field] != nil:
		default:
			into[field] = value
		}
	}
	if len(into) == 0 {
		return nil, nil
	}
	return json.Marshal(into)
}

func openStdout(t Target, _ any) (pump.Opened, error) {
	// One write at a time: lines come in the order of the log as far as keys allow.
	return pump.Opened{Sink: stdout.New(t.Stdout), Concurrency: 1, Batch: 100}, nil
}
