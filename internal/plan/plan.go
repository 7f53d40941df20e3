// Package plan compares the syncs and consumers of a file with those of a node, and says
// what has to be done so that they are equal. It does nothing itself.
//
//  1. A plan that was carried out leaves nothing to do: the next one of the same file is
//     empty.
//  2. What the node's own file defines is never touched, and neither is what was applied
//     from another file, unless [Options] say so. What is not in the file is deleted only
//     when pruning, and never when a file cannot hold it.
//  3. No secret is in what a plan shows; only [Operation.Body] has them. Secrets that the
//     node does not show are compared by whether they are set.
//  4. [Export] of a node, read as a file, is an empty plan against that node. Its text
//     depends on nothing but the definitions.
//  5. Functions are pure: the same arguments give the same plan, and nothing is changed.
package plan

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"lockstep/client"
	"lockstep/internal/config"
)

// Server is what a node has.
type Server struct {
	Databases []string
	Syncs     []client.Sync
	Consumers []client.Consumer
	Tokens    []client.Token // for [Export] only
}

// Options says how far a plan goes.
type Options struct {
	From     string // the name that things are applied from; never empty
	Prune    bool   // delete what is not in the file
	Replace  bool   // delete and make anew what cannot be changed
	Secrets  bool   // send all secrets again
	Adopt    bool   // take over what is equal and was made by API
	Override bool   // also what was applied from another file
	// Shown returns the settings of a kind as a node shows them, without secrets.
	Shown func(kind string, settings json.RawMessage) json.RawMessage
}

// Action is what becomes of a sync or a consumer.
type Action string

// What becomes of a sync or a consumer.
const (
	Create  Action = "create"
	Change  Action = "change"
	Replace Action = "replace" // deleted, and made anew
	Delete  Action = "delete"
	Adopt   Action = "adopt" // it stays as it is, and belongs to the file from now on
	Same    Action = "same"
	Leave   Action = "leave" // it is not in the file
)

// The two sorts of definitions.
const (
	Sync     = "sync"
	Consumer = "consumer"
)

// Plan is the comparison of a file with a node: syncs first, each by name.
type Plan struct {
	From  string   `json:"from"`
	Items []Item   `json:"items"`
	Notes []string `json:"notes"` // about the file as a whole
}

// Item is one sync or consumer of the file or of the node.
type Item struct {
	What   string  `json:"what"` // [Sync] or [Consumer]
	Name   string  `json:"name"`
	Action Action  `json:"action"`
	Fields []Field `json:"fields,omitempty"` // that change; of one that is made, all
	// Notes are for people; nothing follows from them.
	Notes []string `json:"notes,omitempty"`
	// Problem says why it cannot be done, and what to do; empty: it can.
	Problem string `json:"problem,omitempty"`
	// Needs are the variables that must be set before it can be done.
	Needs       []string `json:"needs,omitempty"`
	ManagedBy   string   `json:"managed_by,omitempty"` // on the node
	AppliedFrom string   `json:"applied_from,omitempty"`

	id       string
	expected time.Time
	body     map[string]any // of a create or change
	place    string         // of a sync: its database and schema
}

// Field is one difference. Old and New are JSON with (secret) in the place of secrets;
// empty: not set.
type Field struct {
	Name string `json:"name"` // as in the file, such as backoff.first
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Changes counts the items that are not as the file has them, those with problems too.
func (p Plan) Changes() int {
	n := 0
	for _, i := range p.Items {
		if i.Differs() {
			n++
		}
	}
	return n
}

// Differs reports whether it is not as the file has it.
func (i Item) Differs() bool { return i.Action != Same && i.Action != Leave || i.Problem != "" }

// Count counts the items of an action that can be done.
func (p Plan) Count(a Action) int {
	n := 0
	for _, i := range p.Items {
		if i.Action == a && i.Problem == "" {
			n++
		}
	}
	return n
}

// Problems counts the items that cannot be done.
func (p Plan) Problems() int {
	n := 0
	for _, i := range p.Items {
		if i.Problem != "" {
			n++
		}
	}
	return n
}

// Needs returns the variables that must be set before the plan can be carried out.
func (p Plan) Needs() []string {
	var names []string
	for _, i := range p.Items {
		names = append(names, i.Needs...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Make compares a file with a node.
func Make(file *config.Config, server Server, o Options) Plan {
	m := maker{server: server, o: o, unfit: Unfit(server)}
	p := Plan{From: o.From, Items: []Item{}, Notes: databaseNotes(file, server)}
	var wanted []thing
	for _, s := range file.Syncs {
		wanted = append(wanted, syncOfFile(s))
	}
	p.Items = append(p.Items, m.compare(Sync, wanted, m.syncs())...)
	wanted = nil
	for _, c := range file.Consumers {
		wanted = append(wanted, m.consumerOfFile(c))
	}
	p.Items = append(p.Items, m.compare(Consumer, wanted, m.consumers())...)
	contested(p.Items)
	return p
}

// databaseNotes tells of databases that only one side has.
func databaseNotes(file *config.Config, server Server) []string {
	notes := []string{}
	for _, d := range file.Databases {
		if !slices.Contains(server.Databases, d.Name) {
			notes = append(notes, "database "+d.Name+" is not on the server: databases are changed in the server's file")
		}
	}
	for _, name := range server.Databases {
		if !slices.ContainsFunc(file.Databases, func(d config.Database) bool { return d.Name == name }) {
			notes = append(notes, "database "+name+" is not in the file: databases are changed in the server's file")
		}
	}
	return notes
}

type maker struct {
	server Server
	o      Options
	unfit  map[string]string
}

func (m maker) syncs() []thing {
	list := make([]thing, len(m.server.Syncs))
	for i, s := range m.server.Syncs {
		list[i] = syncOfServer(s)
	}
	return list
}

func (m maker) consumers() []thing {
	list := make([]thing, len(m.server.Consumers))
	for i, c := range m.server.Consumers {
		list[i] = m.consumerOfServer(c)
	}
	return list
}

// compare returns the items of one sort, by name.
func (m maker) compare(what string, wanted, there []thing) []Item {
	var items []Item
	for _, w := range wanted {
		i := slices.IndexFunc(there, func(t thing) bool { return t.name == w.name })
		if i < 0 {
			items = append(items, m.create(what, w))
			continue
		}
		items = append(items, m.update(what, w, there[i]))
	}
	for _, t := range there {
		if !slices.ContainsFunc(wanted, func(w thing) bool { return w.name == t.name }) {
			items = append(items, m.extra(what, t))
		}
	}
	slices.SortStableFunc(items, func(a, b Item) int { return cmp.Compare(a.Name, b.Name) })
	return items
}

func (m maker) create(what string, w thing) Item {
	item := Item{What: what, Name: w.name, Action: Create, Needs: w.needs(), place: w.place, body: w.create}
	for _, f := range w.fields {
		if f.shown != "" && !f.standard {
			item.Fields = append(item.Fields, Field{Name: f.name, New: visible(f.shown)})
		}
	}
	if !slices.Contains(m.server.Databases, w.database) {
		item.Problem = "the server has no database " + w.database + ": databases are added in the server's file"
	}
	return item
}

// update compares what is on both sides.
func (m maker) update(what string, w, t thing) Item {
	item := m.item(what, t)
	item.Action, item.Notes, item.place = Same, append(item.Notes, notes(w, t)...), t.place
	diff := m.diff(w, t)
	if len(diff) == 0 {
		return m.equal(item)
	}
	item.Action = Change
	for _, d := range diff {
		item.Fields = append(item.Fields, d.field)
		if d.fixed {
			item.Action = Replace
		}
	}
	switch {
	case t.managedBy == "file":
		item.Action, item.Problem = Same, "it is defined in the server's own file, and differs: change it there and restart the server, or make the two equal"
		return item
	case t.managedBy == "apply" && t.appliedFrom != m.o.From && !m.o.Override:
		item.Action, item.Problem = Same, "it was applied from "+t.appliedFrom+": change it there, or take it over with --override"
		return item
	case t.managedBy != "apply":
		item.Notes = append(item.Notes, "made by hand: "+m.o.From+" keeps it from now on")
	case t.appliedFrom != m.o.From:
		item.Notes = append(item.Notes, "applied from "+t.appliedFrom+": "+m.o.From+" keeps it from now on")
	}
	if item.Action == Replace {
		item.body, item.Needs, item.place = w.create, w.needs(), w.place
		if !m.o.Replace {
			item.Problem = "what is fixed when it is made differs: give --replace to delete it, with its progress, and make it anew, or give it another name"
		}
		return item
	}
	item.body = w.patch(diff)
	item.Needs = needsOf(item.body)
	return item
}

// equal is an item of which nothing differs.
func (m maker) equal(item Item) Item {
	foreign := item.ManagedBy == "apply" && item.AppliedFrom != m.o.From
	switch {
	case item.ManagedBy == "file":
		item.Notes = append(item.Notes, "defined in the server's own file")
	case foreign && (!m.o.Override || !m.o.Adopt):
		item.Notes = append(item.Notes, "applied from "+item.AppliedFrom)
	case (foreign || item.ManagedBy != "apply") && m.o.Adopt:
		item.Action, item.body = Adopt, map[string]any{}
	case item.ManagedBy != "apply":
		item.Notes = append(item.Notes, "made by hand: --adopt puts it under "+m.o.From)
	}
	return item
}

// extra is what only the node has.
func (m maker) extra(what string, t thing) Item {
	item := m.item(what, t)
	item.Action, item.place = Leave, t.place
	switch reason := m.unfit[key(what, t.name)]; {
	case t.managedBy == "file":
		item.Notes = append(item.Notes, "defined in the server's own file")
	case t.managedBy == "apply" && t.appliedFrom != m.o.From && !m.o.Override:
		item.Notes = append(item.Notes, "applied from "+t.appliedFrom)
	case reason != "":
		item.Notes = append(item.Notes, "cannot stand in a file: "+reason)
	case m.o.Prune:
		item.Action = Delete
	default:
		item.Notes = append(item.Notes, "not in the file: --prune deletes it")
	}
	return item
}

func (m maker) item(what string, t thing) Item {
	return Item{What: what, Name: t.name, ManagedBy: t.managedBy, AppliedFrom: t.appliedFrom, id: t.id, expected: t.updated}
}

// contested finds new syncs whose schema another one keeps.
func contested(items []Item) {
	keeps := map[string]string{}
	for _, i := range items {
		if i.What == Sync && !i.makes() && i.Action != Delete {
			keeps[i.place] = i.Name
		}
	}
	for n := range items {
		i := &items[n]
		if other, taken := keeps[i.place]; i.What == Sync && i.makes() && taken && i.Problem == "" {
			i.Problem = "its schema belongs to the sync " + other + ": give it a schema of its own, or delete the other one (--prune, if it is not in the file)"
		}
	}
}

// makes reports whether something new takes its place.
func (i Item) makes() bool { return i.Action == Create || i.Action == Replace }

func key(what, name string) string { return what + " " + name }
