package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"lockstep/client"
)

// cli is the command line. Each command has a file of its own.
type cli struct {
	Output  string           `short:"o" enum:"table,json,yaml" default:"table" help:"How results are written: table, json or yaml."`
	Server  string           `env:"LOCKSTEP_SERVER" default:"http://127.0.0.1:7300" placeholder:"URL" help:"The node to talk to."`
	Token   string           `env:"LOCKSTEP_TOKEN" placeholder:"TOKEN" help:"Bearer token for that node."`
	Quiet   bool             `short:"q" help:"Write results only: no headings, no notes."`
	Version kong.VersionFlag `help:"Print the version."`

	Serve      serveCmd      `cmd:"" help:"Run a node."`
	Demo       demoCmd       `cmd:"" help:"Run everything once, with a load and workers: no configuration needed."`
	Init       initCmd       `cmd:"" help:"Make what Lockstep needs in a database."`
	Doctor     doctorCmd     `cmd:"" help:"Check everything that a node needs, and say what to do about what is wrong."`
	Validate   validateCmd   `cmd:"" help:"Check a configuration and tell everything that is wrong."`
	Plan       planCmd       `cmd:"" help:"Compare the syncs and consumers of a file with those of a server."`
	Apply      applyCmd      `cmd:"" help:"Make the syncs and consumers of a server as a file has them."`
	Export     exportCmd     `cmd:"" help:"Write the syncs and consumers of a server as a file for plan and apply."`
	Tail       tailCmd       `cmd:"" help:"Follow changes as they come."`
	Listen     listenCmd     `cmd:"" help:"Forward changes to a program on this machine as a webhook does, and show them."`
	Consumer   consumerCmd   `cmd:"" help:"Look at consumers, make them, take and settle changes."`
	Sync       syncCmd       `cmd:"" help:"Look at syncs, make them, pause them, wait for them."`
	Database   databaseCmd   `cmd:"" help:"Look at databases, make and delete them while the node runs."`
	Verify     verifyCmd     `cmd:"" help:"Compare an API with its tables."`
	Backfill   backfillCmd   `cmd:"" help:"Send existing rows to a consumer, or repair gaps."`
	Dead       deadCmd       `cmd:"" help:"Look at dead letters, retry or drop them."`
	Filter     filterCmd     `cmd:"" help:"Try filters and transforms on real changes."`
	Tokens     tokenCmd      `cmd:"" name:"token" help:"Make, list and revoke API tokens."`
	Sandbox    sandboxCmd    `cmd:"" help:"Serve simulated APIs: Stripe and GitHub with worlds that live, limits and faults."`
	Bench      benchCmd      `cmd:"" help:"Measure this machine."`
	Completion completionCmd `cmd:"" help:"Write a completion script for a shell."`
	About      versionCmd    `cmd:"" name:"version" help:"Print the version."`
}

// streams is what a process is given.
type streams struct {
	in       io.Reader
	out, err io.Writer
	lookup   func(name string) (string, bool) // of the environment
}

// run runs the command that args name and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	if len(args) > 0 && args[0] == completeCommand {
		return exitCode(complete(s.out, args[1:]))
	}
	err := dispatch(ctx, args, s)
	if err != nil && !silent(err) {
		_, _ = fmt.Fprintln(s.err, "lockstep: "+explain(err))
	}
	return exitCode(err)
}

func dispatch(ctx context.Context, args []string, s streams) (err error) {
	var c cli
	parser, err := newParser(&c, s)
	if err != nil {
		return err
	}
	// Kong ends the process after --help and --version; a panic is its documented way
	// out for programs that want to go on.
	defer func() {
		r := recover()
		if exit, ok := r.(parserExit); ok {
			err = exit.err()
		} else if r != nil {
			panic(r)
		}
	}()
	if len(args) == 0 {
		return usageOf(parser, s)
	}
	k, err := parser.Parse(args)
	if err != nil {
		return parseError(err)
	}
	k.BindTo(ctx, (*context.Context)(nil))
	return k.Run(&c, s, printer{out: s.out, err: s.err, format: c.Output, quiet: c.Quiet})
}

func newParser(c *cli, s streams) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("lockstep"),
		kong.Description("Every committed change of a Postgres reaches its consumers: in order per row, processed exactly once."),
		kong.Writers(s.out, s.err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Exit(func(code int) { panic(parserExit(code)) }),
		kong.Vars{"version": version()},
	)
}

// parserExit is the code with which the parser wanted to end the process.
type parserExit int

func (e parserExit) err() error {
	if e == 0 {
		return nil
	}
	return usageError{errors.New("bad command line")}
}

// usageOf writes the help to standard error: no command was given.
func usageOf(parser *kong.Kong, s streams) error {
	parser.Stdout = s.err
	k, err := kong.Trace(parser, nil)
	if err != nil {
		return err
	}
	if err := k.PrintUsage(false); err != nil {
		return err
	}
	return usageError{errQuiet}
}

// parseError adds where to read on.
func parseError(err error) error {
	command := "lockstep"
	var p *kong.ParseError
	if errors.As(err, &p) && p.Context != nil {
		node := p.Context.Selected()
		for node != nil && node.Hidden {
			node = node.Parent // a command that its group stands for
		}
		if node != nil && node.Parent != nil {
			command += " " + node.Path()
		}
	}
	return usageError{fmt.Errorf("%w, see %s --help", err, command)}
}

// client returns a client for the node that the flags name.
func (c *cli) client() (*client.Client, error) {
	return client.New(client.Config{Server: c.Server, Token: c.Token, Agent: "lockstep/" + version()})
}
