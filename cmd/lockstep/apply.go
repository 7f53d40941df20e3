package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/plan"
)

type applyCmd struct {
	planFlags
	Yes bool `short:"y" help:"Do it without asking."`
}

// Run carries a plan out: it stops at the first call that fails, and says what was done.
func (x *applyCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	against, err := x.compare(ctx, c, s)
	if err != nil {
		return err
	}
	found, shown := against.plan, p
	if p.format != "table" {
		shown.out, shown.format = p.err, "table" // standard output has the result alone
	}
	if err := shown.plan(found); err != nil {
		return err
	}
	todo := found.Operations()
	switch {
	case found.Problems() > 0:
		return usageError{errors.New("nothing was done: mend first what cannot be done")}
	case len(todo) == 0:
		return p.applied(found, nil, nil, nil)
	case len(found.Needs()) > 0:
		return usageError{fmt.Errorf("nothing was done: set %s first", strings.Join(found.Needs(), ", "))}
	}
	if err := x.agreed(s); err != nil {
		return err
	}
	done, err := carryOut(ctx, against.remote, client.Claim{AppliedFrom: found.From, Override: x.Override}, todo, p)
	if err == nil {
		err = against.confirm(ctx, done)
	}
	return p.applied(found, done, todo[len(done):], err)
}

// agreed asks a person.
func (x *applyCmd) agreed(s streams) error {
	if x.Yes {
		return nil
	}
	in, ok := s.in.(*os.File)
	if !ok || x.Config == "-" || !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("nothing was done: there is no terminal to ask at, give --yes")}
	}
	_, _ = fmt.Fprint(s.err, "type yes to do this: ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return usageError{errors.New("nothing was done: the answer was not yes")}
	}
	return nil
}

// carryOut makes the calls in their order and returns those that were made.
func carryOut(ctx context.Context, remote *client.Client, claim client.Claim, todo []plan.Operation, p printer) ([]plan.Operation, error) {
	for n, o := range todo {
		claim.Expected = o.Expected
		if err := call(ctx, remote.With(claim), o); err != nil {
			return todo[:n], fmt.Errorf("%s %s %s: %w", o.Action, o.What, o.Name, err)
		}
		p.note("%s %s %s", past(o.Action), o.What, printable(o.Name))
	}
	return todo, nil
}

// call carries one operation out. Ids are used where they are known: another thing may
// have got the name meanwhile.
func call(ctx context.Context, remote *client.Client, o plan.Operation) (err error) {
	switch {
	case o.Action == plan.Delete && o.What == plan.Sync:
		err = remote.DeleteSync(ctx, o.ID)
	case o.Action == plan.Delete:
		err = remote.DeleteConsumer(ctx, o.ID)
	case o.Action == plan.Create && o.What == plan.Sync:
		_, err = remote.CreateSync(ctx, o.Body)
	case o.Action == plan.Create:
		_, err = remote.CreateConsumer(ctx, o.Body)
	case o.What == plan.Sync:
		_, err = remote.UpdateSync(ctx, o.ID, o.Body)
	default:
		_, err = remote.UpdateConsumer(ctx, o.ID, o.Body)
	}
	if o.Action == plan.Delete && errors.Is(err, lockstep.ErrNotFound) {
		return nil // somebody else was faster
	}
	return err
}

func past(a plan.Action) string {
	switch a {
	case plan.Create:
		return "made"
	case plan.Delete:
		return "deleted"
	default:
		return "changed"
	}
}

// applyResult is what apply did, as programs read it.
type applyResult struct {
	planResult
	Done   []step `json:"done"`
	Undone []step `json:"not_done"`
	Error  string `json:"error,omitempty"`
}

type step struct {
	Action plan.Action `json:"action"`
	What   string      `json:"what"`
	Name   string      `json:"name"`
}

func steps(list []plan.Operation) []step {
	out := make([]step, len(list))
	for i, o := range list {
		out[i] = step{o.Action, o.What, o.Name}
	}
	return out
}

// applied tells what was done and what was not.
func (p printer) applied(found plan.Plan, done, left []plan.Operation, failed error) error {
	if p.format != "table" {
		result := applyResult{planResult: resultOf(found), Done: steps(done), Undone: steps(left)}
		if failed != nil {
			result.Error = reason(failed)
		}
		return errors.Join(p.result(result, table{}), failed)
	}
	if failed == nil {
		if len(done) > 0 {
			p.note("done: %s", count(len(done), "step"))
		}
		return nil
	}
	if len(left) == 0 {
		return fmt.Errorf("everything was done, but: %w", failed)
	}
	p.note("stopped after %d of %s; not done:", len(done), count(len(done)+len(left), "step"))
	for n, o := range left {
		doubt := ""
		if n == 0 && errors.Is(failed, lockstep.ErrUnavailable) {
			doubt = " (or done: no answer came)"
		}
		p.note("  %s %s %s%s", o.Action, o.What, printable(o.Name), doubt)
	}
	return fmt.Errorf("%w\n  run lockstep apply again: it goes on from here", failed)
}
