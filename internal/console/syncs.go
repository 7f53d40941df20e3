package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// syncPages registers pages of syncs.
func (s *Console) syncPages() {
	s.page("syncs", "syncs", syncsPage)
	s.page("syncs/{id}", "sync", syncPage)
	s.action("syncs/{id}/run", steerSync("Everything is asked for now.", (*client.Client).RunSync))
	s.action("syncs/{id}/pause", steerSync("Paused: the API is asked nothing until it is resumed.", (*client.Client).PauseSync))
	s.action("syncs/{id}/resume", steerSync("Resumed.", (*client.Client).ResumeSync))
	s.action("syncs/{id}/resync", resync)
	s.action("syncs/{id}/delete", deleteSync)
	s.mux.HandleFunc("POST "+Prefix+"syncs/{id}/verify", s.signedIn(verifySync))
}

type syncsView struct {
	frame
	Syncs []syncLine
}

// syncLine is a sync in one line of the list.
type syncLine struct {
	client.Sync
	Changed, Deleted uint64
	Parked           int
	Polled           *time.Time // the collection that was read longest ago
	Why              string
}

func syncsPage(c *visit) (framed, error) {
	list, err := c.api.Syncs(c.ctx)
	if err != nil {
		return nil, err
	}
	v := &syncsView{frame: frame{Title: "Syncs", Nav: "syncs", Live: Prefix + "syncs"}}
	for i := range list {
		v.Syncs = append(v.Syncs, lineOf(list[i]))
	}
	return v, nil
}

func lineOf(s client.Sync) syncLine {
	l := syncLine{Sync: s, Why: cmp.Or(s.Reason, s.Health.Reason)}
	for i, one := range s.Collections {
		l.Changed, l.Deleted, l.Parked = l.Changed+one.Changed, l.Deleted+one.Deleted, l.Parked+one.Parked
		switch {
		case i == 0:
			l.Polled = one.PolledAt
		case l.Polled != nil && (one.PolledAt == nil || one.PolledAt.Before(*l.Polled)):
			l.Polled = one.PolledAt // nil: one of them has never been read to its end
		}
	}
	return l
}

// logShown is a page of a sync's log.
const logShown = 50

type syncView struct {
	frame
	Sync        syncLine
	Address     string // of this page, without what was asked for
	Collections []client.SyncCollection
	Read        int // collections that were read to their end once
	Records     uint64
	Rate        float64
	Quotas      []quotaView
	Log         []client.SyncEntry
	Errors      []client.SyncEntry // the last ones that the newest part of the log has
	Older       string
	First       bool
	now         time.Time
	Fixed       string // why it cannot be deleted here; empty: it can
}

// quotaView is a quota as a meter.
type quotaView struct {
	client.SyncQuota
	Known bool   // how much is left is known
	Left  int    // in percent
	Rest  string // what is left, in words
}

func syncPage(c *visit) (framed, error) {
	s, err := c.api.Sync(c.ctx, c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	here := Prefix + "syncs/" + escape(c.r.PathValue("id"))
	v := &syncView{frame: frame{Title: s.Name, Nav: "syncs", Live: here}, Address: here, Sync: lineOf(s), now: c.now()}
	v.judge()
	before, _ := strconv.ParseInt(c.r.FormValue("before"), 10, 64) // what is no number is the beginning
	v.First = before <= 0
	if !v.First {
		v.Live = "" // a page of the past does not change
	}
	if v.Log, err = c.api.SyncLog(c.ctx, s.ID, before, logShown+1); err != nil {
		return nil, err
	}
	if len(v.Log) > logShown {
		v.Log = v.Log[:logShown]
		v.Older = here + "?before=" + strconv.FormatInt(v.Log[logShown-1].ID, 10) + "#log"
	}
	for _, e := range v.Log {
		if v.First && troubled(e.Outcome) && len(v.Errors) < 3 {
			v.Errors = append(v.Errors, e)
		}
	}
	return v, nil
}

// troubled says whether an outcome is worth a person's look.
func troubled(outcome string) bool {
	return slices.Contains([]string{"failed", "blocked", "refused", "parked", "held", "error"}, outcome)
}

// judge puts what needs a person first, and sums up.
func (v *syncView) judge() {
	s := v.Sync.Sync
	rank := func(c client.SyncCollection) int {
		return slices.Index([]string{client.SyncPolling, client.SyncPaused, client.SyncWaiting, client.SyncStarting, client.SyncBackfilling, client.SyncFailing, client.SyncBlocked}, c.State)
	}
	v.Collections = slices.Clone(s.Collections)
	slices.SortStableFunc(v.Collections, func(a, b client.SyncCollection) int { return cmp.Compare(rank(b), rank(a)) })
	for _, one := range s.Collections {
		v.Records += one.Records
		v.Rate += one.Rate
		if one.State != client.SyncBackfilling && one.PolledAt != nil {
			v.Read++
		}
	}
	for _, q := range s.Quotas {
		one := quotaView{SyncQuota: q, Rest: restOf(q)}
		if q.Limit != nil && q.Remaining != nil && *q.Limit > 0 {
			one.Known, one.Left = true, int(100*min(max(*q.Remaining/(*q.Limit), 0), 1))
		}
		v.Quotas = append(v.Quotas, one)
	}
	switch s.ManagedBy {
	case "file":
		v.Fixed = "It is defined in the node's configuration: change or remove it there."
	case "apply":
		v.Fixed = "It is defined in " + cmp.Or(s.AppliedFrom, "a file") + ": change or remove it there, then run lockstep apply."
	}
}

// restOf says what is left of a quota.
func restOf(q client.SyncQuota) string {
	switch {
	case q.Remaining != nil && q.Limit != nil:
		return amount(*q.Remaining) + " of " + amount(*q.Limit)
	case q.Remaining != nil:
		return amount(*q.Remaining)
	case q.Limit != nil:
		return amount(*q.Limit) + " at most"
	}
	return "no limit is known"
}

// amount writes a number of requests, which may be a part of one.
func amount(n float64) string {
	whole, rest, _ := strings.Cut(strconv.FormatFloat(n, 'f', 1, 64), ".")
	if rest == "0" {
		return count(whole)
	}
	return count(whole) + "." + rest
}

// steerSync is a button that calls one method.
func steerSync(done string, call func(*client.Client, context.Context, string) (client.Sync, error)) func(*visit) (string, error) {
	return func(c *visit) (string, error) {
		id := c.r.PathValue("id")
		_, err := call(c.api, c.ctx, id)
		if !errors.Is(err, lockstep.ErrConflict) {
			return done, err
		}
		if s, unknown := c.api.Sync(c.ctx, id); unknown == nil { // people know it by its name
			err = errors.New(strings.ReplaceAll(words(err), id, s.Name))
		}
		return "", err
	}
}

func resync(c *visit) (string, error) {
	var collections []string
	if one := c.r.PostFormValue("collection"); one != "" {
		collections = []string{one}
	}
	if _, err := c.api.ResyncSync(c.ctx, c.r.PathValue("id"), collections...); err != nil {
		return "", err
	}
	return cmp.Or(strings.Join(collections, ", "), "Every collection") + " is read again from its beginning. The rows stay meanwhile.", nil
}

func deleteSync(c *visit) (string, error) {
	if err := c.api.DeleteSync(c.ctx, c.r.PathValue("id")); err != nil {
		return "", err
	}
	return "The sync is deleted. Its tables stay.", nil
}

// verifyWithin is how long a person waits for a comparison. What takes longer is for
// the command line.
const verifyWithin = 2 * time.Minute

type verifyView struct {
	frame
	Sync       client.Sync
	Address    string
	Collection string // empty: all
	Result     client.Verification
	Took       time.Duration
	Lists      []verifyList
	Different  uint64
	Repaired   bool // it was asked to put right what differs
	Late       bool // it took too long and was stopped
	Command    string
}

// verifyList is one kind of difference.
type verifyList struct {
	Word, Meaning string
	Count         uint64
	Records       []client.SyncRecord
	More          uint64
}

// recordsShown is how many records of a kind of difference are named.
const recordsShown = 100

// verifySync compares while the reader waits. It is no action: its result is a page.
func verifySync(c *visit) {
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, 64<<10)
	s, err := c.api.Sync(c.ctx, c.r.PathValue("id"))
	if err != nil {
		c.fail(err)
		return
	}
	v := &verifyView{
		frame: frame{Title: "Comparison of " + s.Name, Nav: "syncs"}, Sync: s, Address: Prefix + "syncs/" + escape(s.ID),
		Collection: c.r.PostFormValue("collection"), Repaired: c.r.PostFormValue("repair") != "",
	}
	o := client.VerifyOptions{Repair: v.Repaired}
	v.Command = "lockstep verify " + shellWord(s.Name)
	if v.Collection != "" {
		o.Collections = []string{v.Collection}
	}
	if v.Repaired {
		v.Command += " --repair"
	}
	// Without a deadline for the answer: it comes as late as the comparison ends.
	_ = http.NewResponseController(c.w).SetWriteDeadline(c.now().Add(verifyWithin + time.Minute))
	ctx, cancel := context.WithTimeout(c.ctx, verifyWithin)
	defer cancel()
	v.Result, err = c.api.VerifySync(ctx, s.ID, o)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		v.Late = true
	case err != nil:
		c.fail(err)
		return
	}
	v.list()
	c.show(http.StatusOK, "verify", v)
}

func (v *verifyView) list() {
	r := v.Result
	v.Took = r.EndedAt.Sub(r.StartedAt)
	v.Different = r.MissingN + r.StaleN + r.ExtraN
	for _, l := range []verifyList{
		{Word: "missing", Meaning: "in the API and not in Postgres", Count: r.MissingN, Records: r.Missing},
		{Word: "stale", Meaning: "different in Postgres", Count: r.StaleN, Records: r.Stale},
		{Word: "extra", Meaning: "in Postgres and not in the API", Count: r.ExtraN, Records: r.Extra},
	} {
		l.Records = l.Records[:min(len(l.Records), recordsShown)]
		l.More = l.Count - min(l.Count, uint64(len(l.Records)))
		v.Lists = append(v.Lists, l)
	}
}

// shellWord quotes a word for a shell when it needs that.
func shellWord(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Limited names the collections in words for a head line.
func (v *verifyView) Limited() string {
	if v.Collection == "" {
		return fmt.Sprintf("all %d collections", len(v.Sync.Collections))
	}
	return v.Collection
}

// Figures writes what a line of the log counts, in the order that it came.
func (v *syncView) Figures(e client.SyncEntry) string {
	fields, _ := membersOf(e.Payload, 8) // what is no object has no figures
	parts := make([]string, 0, len(fields))
	for _, f := range fields {
		text := brief(f.Value, 60)
		if took, err := time.ParseDuration(text + "s"); err == nil && f.Name == "seconds" {
			parts = append(parts, "in "+spanText(took))
			continue
		}
		parts = append(parts, strings.ReplaceAll(f.Name, "_", " ")+" "+strings.Trim(count(text), `"`))
	}
	return strings.Join(parts, ", ")
}

// Due says whether a collection is asked as soon as there is room.
func (v *syncView) Due(next *time.Time) bool { return next != nil && !next.After(v.now) }
