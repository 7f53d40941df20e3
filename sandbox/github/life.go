package github

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep/sandbox"
)

// life decides what happens next.
type life struct {
	dice sandbox.Dice
	n    uint64 // people that were made up
}

// happening is something that can happen, as often as its weight among all. It returns
// false, and has done nothing, when there is nothing it could happen to.
type happening struct {
	weight int
	do     func(*tx, *life, *repo) bool
}

func happenings() []happening {
	return []happening{
		{16, (*tx).reportIssue}, {24, (*tx).discuss}, {8, (*tx).finishIssue}, {3, (*tx).reopenIssue}, {7, (*tx).sortIssue}, {4, (*tx).rewordIssue},
		{10, (*tx).propose}, {8, (*tx).improve}, {12, (*tx).judge}, {8, (*tx).land}, {2, (*tx).giveUp}, {4, (*tx).remark}, {8, (*tx).pushSome},
		{2, (*tx).pushOld}, {4, (*tx).rewordComment}, {3, (*tx).releaseSome}, {1, (*tx).editSomeRelease}, {1, (*tx).addLabel},
		{2, (*tx).planMilestone}, {2, (*tx).describe}, {1, (*tx).dismissSome},
	}
}

// deletions are what a mirror learns by sweeps.
func deletions() []happening {
	return []happening{{5, (*tx).retract}, {1, (*tx).dropUnusedLabel}, {1, (*tx).dropDraft}, {2, (*tx).deleteSomeIssue}, {1, (*tx).transferSome}}
}

// upheavals change records without updating them.
func upheavals() []happening {
	return []happening{{3, (*tx).renameSome}, {1, (*tx).deleteSomeRepo}, {2, (*tx).transferSomeRepo}, {3, (*tx).recolor}, {1, (*tx).openRepo}}
}

// Step implements sandbox.World: one thing happens.
func (s *Sandbox) Step(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(at)
}

func (s *Sandbox) step(at time.Time) {
	l := s.life
	if len(s.repos) == 0 {
		s.tx(at, s.viewer).openRepo(l, nil)
		return
	}
	t := s.tx(at, s.people[l.dice.Int(len(s.people))])
	r := s.repos[l.dice.Int(len(s.repos))]
	if r.now.archived || r.now.noIssues {
		r = s.repos[0]
	}
	all := happenings()
	switch chance := float64(l.dice.Int(1e6)) / 1e6; {
	case chance < s.options.Upheaval:
		all = upheavals()
	case chance < s.options.Upheaval+s.options.Deletions:
		all = deletions()
	}
	total := 0
	for _, h := range all {
		total += h.weight
	}
	n := l.dice.Int(total)
	for _, h := range all {
		if n -= h.weight; n >= 0 {
			continue
		}
		// Whoever cannot do that reports an issue: so that every step leaves a trace.
		if !h.do(t, l, r) {
			t.reportIssue(l, r)
		}
		return
	}
}

// populate fills a new world between two times.
func (s *Sandbox) populate(from, to time.Time) {
	t := s.tx(from.AddDate(-2, 0, 0), nil)
	s.org = t.newAccount(kindOrg, s.options.Organization, s.options.Organization)
	for range 12 {
		s.life.n++
		p := s.life.dice.Person(s.life.n)
		a := t.newAccount(kindUser, p.Login, p.First+" "+p.Last)
		a.email, a.company, a.city = p.Email, p.Company, p.City
		s.people = append(s.people, a)
	}
	s.viewer = s.people[0]
	t = s.tx(from, s.viewer)
	for range max(s.options.Repositories, 0) {
		t.openRepo(s.life, nil)
	}
	if s.options.Repositories <= 0 || s.options.History <= 0 {
		return
	}
	every := to.Sub(from) / time.Duration(s.options.History+1)
	upheaval := s.options.Upheaval
	s.options.Upheaval = 0
	for n := range s.options.History {
		s.step(from.Add(every * time.Duration(n+1)))
	}
	s.options.Upheaval = upheaval
}

func (t *tx) openRepo(l *life, _ *repo) bool {
	name := strings.ToLower(strings.ReplaceAll(l.dice.Thing(), " ", "-"))
	for t.s.names[fold(t.s.org.login+"/"+name)] != nil {
		name += "-" + l.dice.Pick("api", "web", "core", "tools", "next")
	}
	r := t.newRepo(t.s.org, name)
	r.now.private = len(t.s.repos)%3 == 2
	t.push(r, "Initial commit", t.now)
	t.describe(l, r)
	t.planMilestone(l, r)
	return true
}

// some returns one of the newest five hundred rows that fit, or nil.
func some[T any](l *life, rows []*row[T], fits func(*T) bool) *row[T] {
	recent := rows[max(0, len(rows)-500):]
	for range 12 {
		if len(recent) == 0 {
			return nil
		}
		if r := recent[l.dice.Int(len(recent))]; r.now != nil && (fits == nil || fits(r.now)) {
			return r
		}
	}
	return nil
}

func openIssues(i *issueData) bool { return i.pull == nil && i.state == stateOpen }
func openPulls(i *issueData) bool  { return i.pull != nil && i.state == stateOpen }
func ready(i *issueData) bool      { return openPulls(i) && !i.pull.draft && !i.pull.conflict }

func (l *life) prose() *string {
	body := l.dice.Sentence(l.dice.Between(4, 30))
	if l.dice.Chance(0.3) {
		body += "\n\n```go\nif err != nil {\n\treturn err\n}\n```\n\n" + l.dice.Sentence(6)
	}
	return &body
}

func (t *tx) reportIssue(l *life, r *repo) bool {
	v := issueData{title: l.dice.Sentence(l.dice.Between(3, 8)), user: t.actor}
	if l.dice.Chance(0.9) {
		v.body = l.prose()
	}
	if x := some(l, r.labels.rows, nil); x != nil && l.dice.Chance(0.6) {
		v.labels = []int64{x.id}
	}
	if x := some(l, r.milestones.rows, func(m *milestoneData) bool { return m.state == stateOpen }); x != nil && l.dice.Chance(0.2) {
		v.milestone = x.id
	}
	t.openIssue(r, v)
	return true
}

func (t *tx) discuss(l *life, r *repo) bool {
	i := some(l, r.issues.rows, nil)
	if i != nil {
		t.comment(i, *l.prose())
	}
	return i != nil
}

func (t *tx) finishIssue(l *life, r *repo) bool {
	i := some(l, r.issues.rows, openIssues)
	if i != nil {
		t.setState(i, stateClosed, l.dice.Pick("completed", "completed", "not_planned"))
	}
	return i != nil
}

func (t *tx) reopenIssue(l *life, r *repo) bool {
	i := some(l, r.issues.rows, func(i *issueData) bool { return i.pull == nil && i.state == stateClosed })
	if i != nil {
		t.setState(i, stateOpen, "reopened")
	}
	return i != nil
}

// sortIssue labels, assigns, plans or locks.
func (t *tx) sortIssue(l *life, r *repo) bool {
	i := some(l, r.issues.rows, nil)
	x := some(l, r.labels.rows, nil)
	if i == nil || x == nil {
		return false
	}
	who := t.s.people[l.dice.Int(len(t.s.people))]
	kind := l.dice.Int(8)
	t.edit(i, func(v *issueData) {
		switch {
		case kind < 4 && !slices.Contains(v.labels, x.id):
			v.labels = append(slices.Clone(v.labels), x.id)
		case kind < 4:
			v.labels = slices.DeleteFunc(slices.Clone(v.labels), func(id int64) bool { return id == x.id })
		case kind == 7:
			v.locked = !v.locked
			v.lockReason = ""
			if v.locked {
				v.lockReason = "resolved"
			}
		case slices.Contains(v.assignees, who):
			v.assignees = nil
		default:
			v.assignees = append(slices.Clone(v.assignees), who)
		}
	})
	return true
}

func (t *tx) rewordIssue(l *life, r *repo) bool {
	i := some(l, r.issues.rows, nil)
	if i == nil {
		return false
	}
	title, body := l.dice.Sentence(5), l.prose()
	t.edit(i, func(v *issueData) { v.title, v.body, v.edited = title, body, t.now })
	return true
}

func (t *tx) propose(l *life, r *repo) bool {
	branch := l.dice.Pick("fix", "add", "drop", "speed-up", "rename") + "-" + strings.ToLower(l.dice.Pick("clock", "cursor", "page", "retry", "cache", "login")) + "-" + fmt.Sprint(r.last+1)
	v := issueData{title: l.dice.Sentence(l.dice.Between(3, 7)), body: l.prose(), user: t.actor, pull: &pullData{draft: l.dice.Chance(0.2)}}
	i := t.openPull(r, v, branch, r.now.branch)
	if who := t.s.people[l.dice.Int(len(t.s.people))]; who != t.actor && l.dice.Chance(0.6) {
		t.edit(i, func(v *issueData) { v.pull.reviewers = []*account{who} })
	}
	return true
}

func (t *tx) improve(l *life, r *repo) bool {
	i := some(l, r.issues.rows, openPulls)
	if i == nil {
		return false
	}
	if i.now.pull.draft && l.dice.Chance(0.5) {
		t.edit(i, func(v *issueData) { v.pull.draft = false })
		return true
	}
	t.pushTo(i, l.dice.Sentence(4))
	return true
}

// judge reviews a pull request, often with comments on lines.
func (t *tx) judge(l *life, r *repo) bool {
	i := some(l, r.issues.rows, openPulls)
	if i == nil || i.now.user == t.actor {
		return false
	}
	state, body := l.dice.Pick("APPROVED", "APPROVED", "CHANGES_REQUESTED", "COMMENTED"), ""
	if state != "APPROVED" || l.dice.Chance(0.4) {
		body = *l.prose()
	}
	w := t.review(i, state, body)
	for range l.dice.Int(3) {
		at := int64(l.dice.Between(1, 400))
		t.line(i, w.id, lineData{path: l.dice.Pick("main.go", "server/list.go", "README.md", "web/app.ts"), line: at, hunk: hunk(at), body: *l.prose()})
	}
	return true
}

func (t *tx) land(l *life, r *repo) bool {
	i := some(l, r.issues.rows, ready)
	if i == nil {
		return false
	}
	t.merge(i, l.dice.Pick("merge", "squash"), fmt.Sprintf("%s (#%d)", i.now.title, i.now.number))
	return true
}

func (t *tx) giveUp(l *life, r *repo) bool {
	i := some(l, r.issues.rows, openPulls)
	if i != nil {
		t.setState(i, stateClosed, "")
	}
	return i != nil
}

func (t *tx) remark(l *life, r *repo) bool {
	c := some(l, r.reviewComments.rows, nil)
	if c == nil {
		return false
	}
	if l.dice.Chance(0.3) {
		t.editLine(c, *l.prose())
		return true
	}
	t.line(c.now.issue, c.now.review, lineData{path: c.now.path, line: c.now.line, hunk: c.now.hunk, reply: c.id, body: *l.prose()})
	return true
}

func (t *tx) pushSome(l *life, r *repo) bool {
	for range l.dice.Between(1, 4) {
		t.push(r, l.dice.Sentence(l.dice.Between(2, 6)), t.now)
	}
	return true
}

// pushOld pushes a commit that was made days ago.
func (t *tx) pushOld(l *life, r *repo) bool {
	t.push(r, l.dice.Sentence(3), t.now.Add(-time.Duration(l.dice.Between(1, 200))*time.Hour))
	return true
}

func (t *tx) rewordComment(l *life, r *repo) bool {
	c := some(l, r.comments.rows, nil)
	if c != nil {
		t.editComment(c, *l.prose())
	}
	return c != nil
}

func (t *tx) retract(l *life, r *repo) bool {
	c := some(l, r.comments.rows, nil)
	if c != nil {
		t.dropComment(c)
	}
	return c != nil
}
