package main

import (
	"errors"
	"fmt"

	"lockstep/internal/config"
)

type validateCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"The configuration; default lockstep.yml here, or the defaults when there is none."`
}

// Run checks the configuration. Everything that is wrong goes to standard error, one
// line each; with -o json or yaml to standard output.
func (v *validateCmd) Run(s streams, p printer) error {
	c, err := config.Load(v.Config, configOptions(s))
	if problems, ok := errors.AsType[config.Problems](err); ok {
		if p.format != "table" {
			if err := p.result(validation{Problems: problems}, table{}); err != nil {
				return err
			}
			return usageError{errQuiet}
		}
		_, _ = fmt.Fprintln(s.err, problems.Error())
		return usageError{errQuiet}
	}
	if err != nil {
		return err
	}
	if p.format != "table" {
		return p.result(validation{OK: true, Problems: config.Problems{}}, table{})
	}
	name := c.File
	if name == "" {
		name = "the default configuration"
	}
	_, err = fmt.Fprintf(s.out, "ok: %s: %s, %s, %s, %s\n", name, count(len(c.Databases), "database"), count(len(c.Syncs), "sync"), count(len(c.Consumers), "consumer"), count(len(c.Tokens), "token"))
	return err
}

type validation struct {
	OK       bool            `json:"ok"`
	Problems config.Problems `json:"problems"`
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
