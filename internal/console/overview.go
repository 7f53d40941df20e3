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
	Pace     map[string]rate   // changes captured per second, by database, of the last sample
	Speed    rate              // of all databases together
	Uptime   time.Duration
}

// shownConsumers is how many the picture has room for, pacedDatabases of how many it
// tells how fast they are: each is a call.
const (
	shownConsumers = 8
	pacedDatabases = 6
)

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
	if err := v.pace(c); err != nil {
		return nil, err
	}
	v.busy()
	return v, nil
}

// pace asks how fast capture is. A database beyond the first ones leaves the sum unknown.
func (v *overviewView) pace(c *visit) error {
	v.Pace = map[string]rate{}
	for _, d := range v.Node.Databases[:min(len(v.Node.Databases), pacedDatabases)] {
		h, err := c.api.History(c.ctx, client.HistoryQuery{Database: d.Name, Minutes: 1})
		if err != nil {
			return err
		}
		if now, known := last(h.Databases[d.Name].Changes); known {
			v.Pace[d.Name] = rate{Known: true, PerSecond: now}
			v.Speed.PerSecond += now
		}
	}
	v.Speed.Known = len(v.Pace) > 0 && len(v.Pace) == len(v.Node.Databases)
	return nil
}

// last returns the newest sample.
func last(samples []*float64) (value float64, known bool) {
	if len(samples) == 0 || samples[len(samples)-1] == nil {
		return 0, false
	}
	return *samples[len(samples)-1], true
}

// busy chooses the consumers that are shown, and orders them so that they keep their
// places while the numbers move.
func (v *overviewView) busy() {
	v.Busy = slices.Clone(v.Node.Consumers)
	slices.SortStableFunc(v.Busy, func(a, b client.Consumer) int {
		return cmp.Or(cmp.Compare(urgency(b), urgency(a)), cmp.Compare(b.Stats.Pending, a.Stats.Pending), cmp.Compare(a.Name, b.Name))
	})
	if len(v.Busy) > shownConsumers {
		v.Busy, v.Rest = v.Busy[:shownConsumers], len(v.Busy)-shownConsumers
	}
	slices.SortStableFunc(v.Busy, func(a, b client.Consumer) int {
		return cmp.Or(cmp.Compare(urgency(b), urgency(a)), cmp.Compare(a.Name, b.Name))
	})
}

// Rate is how fast a consumer settles changes.
func (v *overviewView) Rate(s client.Stats) rate { return rateOf(s) }

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
