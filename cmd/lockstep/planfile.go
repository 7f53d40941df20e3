package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/config"
	"lockstep/internal/kinds"
	"lockstep/internal/plan"
)

// planFlags say which file is compared, and how far a plan goes.
type planFlags struct {
	Config   string `short:"c" default:"lockstep.yml" placeholder:"FILE" help:"The file; - is standard input. Only its syncs and consumers are meant."`
	As       string `placeholder:"NAME" help:"What the server is told that things were applied from. Default: the file's name without its folder."`
	Prune    bool   `help:"Delete what is not in the file: what was applied from it, and what was made by hand."`
	Replace  bool   `help:"Delete and make anew what differs in what cannot be changed, such as a consumer's kind. Its progress is lost."`
	Secrets  bool   `help:"Send secrets again. Without it they are compared by whether they are set."`
	Adopt    bool   `help:"Take over what is as the file has it and was made by hand."`
	Override bool   `help:"Also change what was applied from another file."`
}

// from is the name that things are applied from.
func (f planFlags) from() string {
	switch {
	case f.As != "":
		return f.As
	case f.Config == "-":
		return "stdin"
	}
	return filepath.Base(f.Config)
}

// comparison is a file beside a server.
type comparison struct {
	remote  *client.Client
	file    *config.Config
	options plan.Options
	plan    plan.Plan
}

// compare compares the file with the server.
func (f planFlags) compare(ctx context.Context, c *cli, s streams) (comparison, error) {
	remote, err := c.client()
	if err != nil {
		return comparison{}, err
	}
	name, data, err := f.read(s)
	if err != nil {
		return comparison{}, err
	}
	server, err := look(ctx, remote)
	if err != nil {
		return comparison{}, err
	}
	file, err := config.Parse(name, data, remoteOptions(s, server.Databases))
	if err == nil {
		err = identified(file)
	}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		_, _ = fmt.Fprintln(s.err, problems.Error())
		return comparison{}, usageError{errQuiet}
	}
	if err != nil {
		return comparison{}, err
	}
	o := plan.Options{From: f.from(), Prune: f.Prune, Replace: f.Replace, Secrets: f.Secrets, Adopt: f.Adopt, Override: f.Override, Shown: kinds.Shown}
	return comparison{remote, file, o, plan.Make(file, server, o)}, nil
}

// confirm looks again once everything was done: an error names what somebody else has
// made different meanwhile.
func (x comparison) confirm(ctx context.Context, done []plan.Operation) error {
	server, err := look(ctx, x.remote)
	if err != nil {
		return fmt.Errorf("look whether the server is now as %s has it: %w", x.options.From, err)
	}
	o := x.options
	o.Secrets = false // they were sent, and cannot be compared
	var other []string
	for _, i := range plan.Make(x.file, server, o).Items {
		mine := slices.ContainsFunc(done, func(d plan.Operation) bool { return d.What == i.What && d.Name == i.Name })
		if mine && i.Differs() {
			other = append(other, i.What+" "+i.Name)
		}
	}
	if len(other) > 0 {
		return fmt.Errorf("somebody else changed what was applied while it was: %s: see lockstep plan, and agree on who applies: %w", strings.Join(other, ", "), lockstep.ErrConflict)
	}
	return nil
}

func (f planFlags) read(s streams) (name string, data []byte, err error) {
	if name = f.Config; name == "-" {
		name = "standard input"
	}
	data, err = readInput(s, f.Config)
	if errors.Is(err, os.ErrNotExist) {
		return name, nil, fmt.Errorf("there is no file %s: name another one with -c, or write one with lockstep export: %w", name, lockstep.ErrInvalid)
	}
	if err != nil {
		return name, nil, fmt.Errorf("read %s: %w: %w", name, err, lockstep.ErrInvalid)
	}
	return name, data, nil
}

// look asks a server for what it has.
func look(ctx context.Context, remote *client.Client) (plan.Server, error) {
	var server plan.Server
	databases, err := remote.Databases(ctx)
	if err != nil {
		return server, fmt.Errorf("list the databases of the server: %w", err)
	}
	for _, d := range databases {
		server.Databases = append(server.Databases, d.Name)
	}
	if server.Syncs, err = remote.Syncs(ctx); err != nil {
		return server, fmt.Errorf("list the syncs of the server: %w", err)
	}
	if server.Consumers, err = remote.Consumers(ctx); err != nil {
		return server, fmt.Errorf("list the consumers of the server: %w", err)
	}
	return server, nil
}

// identified refuses a file in which the identity of something hangs on a variable that is not
// set: it would be taken for something else.
func identified(file *config.Config) error {
	var list []string
	for _, s := range file.Syncs {
		list = append(list, s.Name, s.Schema, s.Provider, s.Database)
	}
	for _, c := range file.Consumers {
		list = append(list, c.Name, c.Database)
	}
	for _, text := range list {
		if plan.IsUnset(text) {
			return fmt.Errorf("%s: a name, a database or a schema holds a variable that is not set (%s): set it: %w", file.File, strings.Join(plan.Needs(text), ", "), lockstep.ErrInvalid)
		}
	}
	return nil
}

// remoteOptions reads a file for a server elsewhere. Variables need not be set to compare:
// what holds one that is not set is not checked.
func remoteOptions(s streams, databases []string) config.Options {
	o := configOptions(s)
	o.Remote, o.Unset = &config.Remote{Databases: databases}, plan.Unset
	o.CheckFilter = whenSet(o.CheckFilter)
	o.CheckTransform = whenSet(o.CheckTransform)
	o.CheckPattern = whenSet(o.CheckPattern)
	o.CheckSync = checkSyncWhenSet
	o.CheckKind = checkKindWhenSet
	return o
}

func whenSet(check func(string) error) func(string) error {
	return func(text string) error {
		if plan.IsUnset(text) {
			return nil
		}
		return check(text)
	}
}

func checkKindWhenSet(kind, settings string) []config.KindFault {
	faults := checkKind(kind, settings)
	if !plan.IsUnset(settings) {
		return faults
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal([]byte(settings), &members) // an object, or it has faults itself
	var told []config.KindFault
	for _, f := range faults {
		member, _, _ := strings.Cut(f.Field, "[")
		if f.Field != "" && !plan.IsUnset(string(members[member])) {
			told = append(told, f)
		}
	}
	return told
}

// checkSyncWhenSet leaves out what is said about a credential that is not known.
func checkSyncWhenSet(s config.Sync) config.SyncCheck {
	known := true
	for _, value := range s.Credential.Properties {
		known = known && !plan.IsUnset(value.Reveal())
	}
	check := checkSync(s)
	var told []config.SyncFault
	for _, f := range check.Faults {
		if strings.HasPrefix(f.Field, "credential") && !known || f.Field == "base_url" && plan.IsUnset(s.BaseURL) {
			continue
		}
		told = append(told, f)
	}
	if len(told) > 0 || len(check.Faults) == 0 {
		check.Faults = told
		return check
	}
	return completed(s)
}

// completed is what a sync's provider would complete if it knew the credential.
func completed(s config.Sync) config.SyncCheck {
	check := config.SyncCheck{Schema: s.Provider}
	if s.Provider == "rest" {
		var spec struct {
			Name string `yaml:"name"`
		}
		_ = yaml.Unmarshal([]byte(s.Spec), &spec) // it has been checked
		check.Schema = spec.Name
	}
	for _, name := range s.Collections {
		if _, bare, ok := strings.Cut(name, ":"); ok {
			name = bare
		}
		if name == "*" {
			check.Collections = nil
			break
		}
		check.Collections = append(check.Collections, check.Schema+":"+name)
	}
	return check
}
