package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lockstep/client"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Make a token. It is shown once."`
	Ls     tokenLsCmd     `cmd:"" help:"List tokens."`
	Revoke tokenRevokeCmd `cmd:"" help:"End tokens."`
}

type tokenCreateCmd struct {
	Name    string        `arg:"" help:"What it is for."`
	Scopes  []string      `name:"scope" required:"" placeholder:"SCOPE" help:"What it allows: read, consume, consume:NAME, write or admin. May be given more than once."`
	Expires time.Duration `placeholder:"720h" help:"How long it is valid. Default: until it is revoked."`
}

// Run makes a token and writes it to standard output.
func (x *tokenCreateCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	asked := client.NewToken{Name: x.Name, Scopes: x.Scopes}
	if x.Expires > 0 {
		at := time.Now().Add(x.Expires).UTC().Truncate(time.Second)
		asked.ExpiresAt = &at
	}
	made, err := remote.CreateToken(ctx, asked)
	if err != nil {
		return fmt.Errorf("create token %s: %w", x.Name, err)
	}
	if p.format != "table" {
		return p.result(made, table{})
	}
	if _, err := fmt.Fprintln(p.out, made.Token); err != nil {
		return err
	}
	p.note("id %s, allows %s. Keep it now: it is not shown again.", made.ID, strings.Join(made.Scopes, " "))
	if made.Warning != "" {
		p.note("warning: %s", made.Warning)
	}
	return nil
}

type tokenLsCmd struct{}

// Run lists tokens.
func (tokenLsCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	list, err := remote.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	if list == nil {
		list = []client.Token{}
	}
	t := table{head: []string{"ID", "NAME", "STATE", "SCOPES", "CREATED", "LAST USED", "EXPIRES"}}
	for _, one := range list {
		t.add(one.ID, one.Name, one.State, strings.Join(one.Scopes, " "), moment(one.CreatedAt), moment(one.LastUsedAt), moment(one.ExpiresAt))
	}
	return p.result(list, t)
}

func moment(at *time.Time) string {
	if at == nil || at.IsZero() {
		return "-"
	}
	return at.Local().Format(time.DateTime)
}

type tokenRevokeCmd struct {
	IDs []string `arg:"" name:"id" help:"Ids or names."`
}

// Run ends tokens.
func (x *tokenRevokeCmd) Run(ctx context.Context, c *cli, p printer) error {
	remote, err := c.client()
	if err != nil {
		return err
	}
	for _, id := range x.IDs {
		if err := remote.RevokeToken(ctx, id); err != nil {
			return fmt.Errorf("revoke token %s: %w", id, err)
		}
		p.note("revoked %s", id)
	}
	return nil
}
