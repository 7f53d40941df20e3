package pull

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep/internal/mirror"
	"lockstep/internal/obs"
)

// Status says how the sync is, as far as this process knows: of its collections what
// it knew last, while it does not work on them.
func (s *Sync) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{State: s.state, Reason: s.reason, Account: s.account}
	if s.paused {
		out.State, out.Reason = Paused, ""
	}
	if s.last != nil {
		for _, c := range s.last.collections {
			one := c.status()
			if s.work == nil || s.paused {
				one.State, one.Reason, one.NextAt = out.State, out.Reason, time.Time{}
			}
			out.Collections = append(out.Collections, one)
		}
		slices.SortFunc(out.Collections, func(a, b Collection) int { return strings.Compare(a.Name, b.Name) })
		out.BackfilledAt = s.last.backfilledAt()
	}
	if s.config.Quotas != nil {
		out.Quotas = s.config.Quotas()
	}
	if s.last != nil && out.State == Polling {
		sayBehind(out.Collections, out.Quotas, s.pace.late)
		out.State, out.Reason = summary(out.Collections)
	}
	return out
}

// sayBehind gives a reason to collections that are polled, and whose next poll has been
// due for longer than that, and than lies between polls, and has not ended. The words stay
// the same while it lasts.
func sayBehind(all []Collection, quotas []Quota, longest time.Duration) {
	why := "much has changed there, or the answers are slow"
	for _, q := range quotas {
		if q.Waiting > 0 {
			why = fmt.Sprintf("requests wait for the account's limit %q: there are more changes than may be asked for", q.Bucket)
			break
		}
	}
	now := time.Now()
	for i, c := range all {
		if c.State != Polling || c.Reason != "" || c.NextAt.IsZero() || now.Sub(c.NextAt) <= max(longest, c.NextAt.Sub(c.PolledAt)) {
			continue
		}
		all[i].Reason = fmt.Sprintf("behind since %s: %s", c.NextAt.UTC().Format(time.RFC3339), why)
	}
}

// summary is the state of a sync whose collections are in those states. A few that
// are blocked do not block it, but are named.
func summary(all []Collection) (State, string) {
	count := map[State]int{}
	reasons := map[State]string{}
	for _, c := range all {
		count[c.State]++
		if c.Reason != "" && reasons[c.State] == "" {
			reasons[c.State] = c.Name + ": " + c.Reason
		}
	}
	switch {
	case len(all) > 0 && count[Blocked] == len(all):
		return Blocked, reasons[Blocked]
	case count[Backfilling] > 0:
		return Backfilling, cmp.Or(reasons[Failing], reasons[Blocked])
	case count[Failing] > 0:
		return Failing, reasons[Failing]
	}
	return Polling, cmp.Or(reasons[Blocked], reasons[Polling])
}

// backfilledAt is when everything that may be read had been read once.
func (w *work) backfilledAt() time.Time {
	var at time.Time
	for _, c := range w.collections {
		switch {
		case !c.progress.First.IsZero():
			at = latest(at, c.progress.First)
		case !c.blocked():
			return time.Time{}
		}
	}
	return at
}

// status says how the collection is. The caller holds s.mu.
func (c *collection) status() Collection {
	s := c.w.s
	out := Collection{
		Name: s.config.Provider + ":" + c.Name, Table: s.tables[c.Name].name, Parked: s.tables[c.Name].parked,
		State: Polling, Records: c.progress.Records, SweptAt: c.swept.At, PolledAt: c.readAt, NextAt: c.nextAt,
	}
	if n := s.seen[c.Name]; n != nil {
		out.Changed, out.Deleted = n.changed, n.deleted
	}
	tasks := []*task{c.task, c.store}
	if c.feed != nil {
		out.PolledAt, out.NextAt = c.feed.polledAt, c.feed.nextAt
		tasks = append(tasks, c.feed.main.task, c.feed.main.store, c.feed.late.task)
	}
	if !c.progress.Done {
		out.State, out.NextAt = Backfilling, time.Time{}
		if took := time.Since(c.begun).Seconds(); !c.begun.IsZero() && took > 0 {
			out.Rate = float64(c.progress.Records-min(c.before, c.progress.Records)) / took
		}
	}
	if c.missed != "" && c.again == whyOwed {
		out.State, out.Reason = Failing, "everything is read again, since changes could not be fetched: "+c.missed
		out.NextAt = c.owedAt()
	}
	for _, t := range tasks {
		if t.streak == 0 {
			continue
		}
		if out.State != Blocked && (t.shut || out.State != Failing) {
			out.State, out.Reason = Failing, t.reason
			if t.shut {
				out.State = Blocked
			}
			if !t.nextAt.IsZero() {
				out.NextAt = t.nextAt
			}
		}
	}
	return out
}

// learnTables asks the mirror where the collections lie, and what it could not take.
func (s *Sync) learnTables(ctx context.Context) error {
	all, err := s.config.Mirror.Status(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range all {
		s.tables[one.Collection] = table{name: one.Table, parked: one.Parked}
	}
	return nil
}

// tablesEvery is how many reports lie between questions to the mirror.
const tablesEvery = 5

// tell writes the status for people with psql, where it has changed.
func (w *work) tell(ctx context.Context) error {
	told := map[string]mirror.Status{}
	for n := 0; ; n++ {
		if n%tablesEvery == 0 {
			if err := w.s.learnTables(ctx); err != nil {
				w.s.log.DebugContext(ctx, "the mirror does not say what it has", obs.KeySync, w.s.config.Name, obs.KeyError, err)
			}
		}
		w.s.tell(ctx, told)
		if err := hold(ctx, w.s.pace.report, nil); err != nil {
			return err
		}
	}
}

// report writes the whole status.
func (s *Sync) report(ctx context.Context) { s.tell(ctx, map[string]mirror.Status{}) }

// tell writes what differs from what was told.
func (s *Sync) tell(ctx context.Context, told map[string]mirror.Status) {
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	for _, c := range s.rows() {
		if same(told[c.Collection], c) {
			continue
		}
		if err := s.config.Mirror.Report(ctx, c); err != nil {
			s.log.DebugContext(ctx, "the status cannot be written", obs.KeySync, s.config.Name, obs.KeyError, err)
			return
		}
		told[c.Collection] = c
	}
}

func same(a, b mirror.Status) bool {
	return a.State == b.State && a.LastError == b.LastError && string(a.Progress) == string(b.Progress) && a.Collection == b.Collection
}

// rows are the status of the collections as the mirror keeps it: without what changes
// with each poll.
func (s *Sync) rows() []mirror.Status {
	status := s.Status()
	var rows []mirror.Status
	for _, c := range status.Collections {
		name := strings.TrimPrefix(c.Name, s.config.Provider+":")
		row := mirror.Status{Collection: name, State: string(c.State), LastError: c.Reason, Progress: figures("records", c.Records)}
		rows = append(rows, row)
	}
	if s.empty(status) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, t := range s.tables {
			if t.name == "" {
				continue // of a feed
			}
			rows = append(rows, mirror.Status{Collection: name, State: string(status.State), LastError: status.Reason})
		}
	}
	return rows
}

// empty reports whether nothing is known of the collections, but it is known why.
func (s *Sync) empty(status Status) bool {
	return len(status.Collections) == 0 && (status.State == Paused || status.State == Blocked)
}
