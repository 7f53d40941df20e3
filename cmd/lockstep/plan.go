package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"lockstep/internal/plan"
)

type planCmd struct {
	planFlags
	DetailedExitCode bool `name:"detailed-exitcode" help:"End with the exit code 4 when there is something to change."`
}

// Run shows what apply would do.
func (x *planCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	found, err := x.compare(ctx, c, s)
	if err != nil {
		return err
	}
	if err := p.plan(found.plan); err != nil {
		return err
	}
	switch {
	case found.plan.Problems() > 0:
		return usageError{errQuiet}
	case x.DetailedExitCode && found.plan.Changes() > 0:
		return errChanges
	}
	return nil
}

// planResult is a plan as programs read it.
type planResult struct {
	plan.Plan
	Changes  int      `json:"changes"` // 0: the server is as the file has it
	Problems int      `json:"problems"`
	Needs    []string `json:"needs"` // variables to set before it is applied
}

func resultOf(found plan.Plan) planResult {
	return planResult{Plan: found, Changes: found.Changes(), Problems: found.Problems(), Needs: append([]string{}, found.Needs()...)}
}

// plan writes a plan.
func (p printer) plan(found plan.Plan) error {
	if p.format != "table" {
		return p.result(resultOf(found), table{})
	}
	var b strings.Builder
	for _, note := range found.Notes {
		fmt.Fprintf(&b, "  note: %s\n", printable(note))
	}
	for _, i := range found.Items {
		if i.Action == plan.Same && i.Problem == "" && len(i.Notes) == 0 {
			continue
		}
		writeItem(&b, i)
	}
	if needs := found.Needs(); len(needs) > 0 {
		fmt.Fprintf(&b, "  to apply it, set %s\n", strings.Join(needs, ", "))
	}
	b.WriteString(summary(found) + "\n")
	_, err := io.WriteString(p.out, b.String())
	return err
}

func writeItem(b *strings.Builder, i plan.Item) {
	mark, word := markOf(i)
	fmt.Fprintf(b, "%3s %s %s: %s", mark, i.What, printable(i.Name), word)
	if len(i.Notes) > 0 {
		fmt.Fprintf(b, " (%s)", printable(strings.Join(i.Notes, "; ")))
	}
	b.WriteString("\n")
	if i.Problem != "" {
		fmt.Fprintf(b, "      %s\n", printable(i.Problem))
	}
	for _, f := range i.Fields {
		switch {
		case f.Old == "" && i.Action == plan.Create:
			fmt.Fprintf(b, "      %s: %s\n", printable(f.Name), oneLine(f.New))
		default:
			fmt.Fprintf(b, "      %s: %s → %s\n", printable(f.Name), oneLine(f.Old), oneLine(f.New))
		}
	}
}

// markOf is what becomes of an item, as people read it.
func markOf(i plan.Item) (mark, word string) {
	if i.Problem != "" {
		return "!", "cannot be done"
	}
	switch i.Action {
	case plan.Create:
		return "+", "is made"
	case plan.Change:
		return "~", "is changed"
	case plan.Replace:
		return "-/+", "is deleted and made anew, its progress is lost"
	case plan.Delete:
		return "-", deleted(i.What)
	case plan.Adopt:
		return "~", "is taken over as it is"
	case plan.Leave:
		return " ", "is left alone"
	case plan.Same:
	}
	return " ", "is the same"
}

func deleted(what string) string {
	if what == plan.Sync {
		return "is deleted; its tables stay"
	}
	return "is deleted with its position and its dead letters"
}

// oneLine is a value in one line.
func oneLine(value string) string {
	if value == "" {
		return "-"
	}
	var text string
	if json.Unmarshal([]byte(value), &text) == nil && strings.Contains(text, "\n") {
		return fmt.Sprintf("(%s)", count(strings.Count(strings.TrimRight(text, "\n"), "\n")+1, "line"))
	}
	if strings.HasPrefix(value, `"(secret)"`) {
		value = strings.Replace(value, `"(secret)"`, "(secret)", 1)
	}
	return truncate(printable(value), 300)
}

func summary(found plan.Plan) string {
	if found.Changes() == 0 {
		return fmt.Sprintf("nothing to change: %s as in %s", count(found.Count(plan.Same), "definition"), found.From)
	}
	parts := []string{fmt.Sprintf("%d to make", found.Count(plan.Create)), fmt.Sprintf("%d to change", found.Count(plan.Change)+found.Count(plan.Adopt))}
	for _, more := range []struct {
		n    int
		text string
	}{{found.Count(plan.Replace), "to make anew"}, {found.Count(plan.Delete), "to delete"}, {found.Problems(), "that cannot be done"}} {
		if more.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", more.n, more.text))
		}
	}
	return "plan: " + strings.Join(parts, ", ") + fmt.Sprintf("; %d the same", found.Count(plan.Same))
}
