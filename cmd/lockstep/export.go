package main

import (
	"context"
	"fmt"
	"os"

	"lockstep/internal/plan"
)

type exportCmd struct {
	File string `short:"f" placeholder:"FILE" help:"Where it is written. Default: standard output."`
}

// Run writes what the server has.
func (x *exportCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	server, err := look(ctx, remote)
	if err != nil {
		return err
	}
	// Whoever may not see tokens gets the rest: only their names would be told.
	server.Tokens, _ = remote.Tokens(ctx)
	text := plan.Export(server)
	if x.File == "" {
		_, err = p.out.Write(text)
		return err
	}
	if err := os.WriteFile(x.File, text, 0o600); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	p.note("wrote %s: %s, %s", x.File, count(len(server.Syncs), "sync"), count(len(server.Consumers), "consumer"))
	return nil
}
