package console

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"lockstep/client"
)

// concern is something that needs a person: what, why, and what to do.
type concern struct {
	Level  string // error or warn
	What   string
	Where  string // the page about it
	Reason string
	Remedy string // SQL or a command; empty: the reason says it
}

type overviewView struct {
	frame
	Node     client.Node
	Syncs    []client.Sync
	Concerns []concern
	Busy     []client.Consumer // those with the most to do, and at most shownConsumers
	Rest     int               // consumers that are not shown
	Newest   uint64            // changes captured, of all databases
	Kept     uint64            // of them, those that can be replayed
	Uptime   time.Duration
}

// shownConsumers is how many the picture has room for.
const shownConsumers = 8

// overview shows whether all is well, what moves, and what needs a person.
func overview(c *visit) (framed, error) {
	node, err := c.api.Status(c.ctx)
	if err != nil {
		return nil, err
	}
	syncs, err := c.api.Syncs(c.ctx)
	if err != nil {
		return nil, err
	}
	v := &overviewView{
		frame: frame{Title: "Overview", Nav: "overview", Live: Prefix}, Node: node, Syncs: syncs,
		Concerns: concerns(node, syncs), Uptime: c.now().Sub(node.StartedAt),
	}
	for _, d := range node.Databases {
		v.Newest += d.LastSeq
		if d.LastSeq >= d.FirstSeq && d.FirstSeq > 0 {
			v.Kept += d.LastSeq - d.FirstSeq + 1
		}
	}
	v.Busy = slices.Clone(node.Consumers)
	slices.SortStableFunc(v.Busy, func(a, b client.Consumer) int {
		return cmp.Or(cmp.Compare(urgency(b), urgency(a)), cmp.Compare(b.Stats.Pending, a.Stats.Pending), cmp.Compare(a.Name, b.Name))
	})
	if len(v.Busy) > shownConsumers {
		v.Busy, v.Rest = v.Busy[:shownConsumers], len(v.Busy)-shownConsumers
	}
	return v, nil
}

// urgency orders consumers by how much they need a person.
func urgency(c client.Consumer) int {
	return slices.Index([]string{"paused", "ok", "warn", "error"}, c.Health.Status)
}

// concerns collects what needs a person, errors first.
func concerns(node client.Node, syncs []client.Sync) []concern {
	var list []concern
	for _, d := range node.Databases {
		list = append(list, databaseConcerns(d)...)
	}
	for _, s := range syncs {
		if s.Health.Status == "warn" || s.Health.Status == "error" {
			list = append(list, concern{Level: s.Health.Status, What: "sync " + s.Name, Where: "syncs/" + s.ID, Reason: cmp.Or(s.Health.Reason, s.Reason)})
		}
	}
	for _, k := range node.Consumers {
		if k.Health.Status == "warn" || k.Health.Status == "error" {
			list = append(list, concern{Level: k.Health.Status, What: "consumer " + k.Name, Where: "consumers/" + k.ID, Reason: k.Health.Reason})
		}
	}
	known := map[string]bool{}
	for _, one := range list {
		known[one.What] = true
	}
	for _, p := range node.Parts {
		if (!p.Ready || p.Reason != "") && !known[p.Name] {
			list = append(list, concern{Level: map[bool]string{true: "warn", false: "error"}[p.Ready], What: p.Name, Where: "setup", Reason: p.Reason})
		}
	}
	slices.SortStableFunc(list, func(a, b concern) int { return cmp.Compare(a.Level, b.Level) })
	return list
}

func databaseConcerns(d client.Database) []concern {
	var list []concern
	what, where := "database "+d.Name, "databases/"+d.Name
	if d.Status == "error" {
		list = append(list, concern{Level: "error", What: what, Where: where, Reason: d.Reason})
	}
	for _, g := range d.Gaps {
		list = append(list, concern{
			Level: "error", What: what, Where: where, Remedy: g.Remedy,
			Reason: fmt.Sprintf("changes may be missing since %s (%s)", when(g.At), g.Reason),
		})
	}
	for _, w := range d.Warnings {
		list = append(list, concern{Level: "warn", What: what, Where: where, Reason: w})
	}
	for _, t := range d.Tables {
		if t.Reason != "" {
			list = append(list, concern{Level: "warn", What: "table " + t.Name, Where: where, Reason: t.Reason, Remedy: t.Remedy})
		}
	}
	return list
}
