package github

import (
	"fmt"
	"slices"
	"strings"
)

func (t *tx) releaseSome(l *life, r *repo) bool {
	n := len(r.releases.rows)
	tag := fmt.Sprintf("v%d.%d.%d", 1+n/10, n%10, l.dice.Int(4))
	if r.now.head == "" || r.tagged(tag, nil) {
		return false
	}
	t.newRelease(r, releaseData{tag: tag, target: r.now.branch, name: tag, body: *l.prose(), draft: l.dice.Chance(0.15), pre: l.dice.Chance(0.2), author: t.actor})
	return true
}

func (t *tx) editSomeRelease(l *life, r *repo) bool {
	one := some(l, r.releases.rows, nil)
	if one == nil {
		return false
	}
	v := *one.now
	v.body, v.draft = *l.prose(), false
	t.editRelease(one, v)
	return true
}

func (t *tx) dropDraft(l *life, r *repo) bool {
	one := some(l, r.releases.rows, func(v *releaseData) bool { return v.draft })
	if one != nil {
		r.releases.remove(one, t.now, t.late())
	}
	return one != nil
}

func (t *tx) addLabel(l *life, r *repo) bool {
	name := "area: " + strings.ToLower(l.dice.Thing())
	if r.labelNamed(name) != nil || r.labels.count() > 60 {
		return false
	}
	t.newLabel(r, labelData{name: name, color: fmt.Sprintf("%06x", l.dice.Int(1<<24)), description: l.dice.Sentence(3)})
	return true
}

// unused is a label that no issue has, so that its change shows nowhere else.
func (t *tx) unused(l *life, r *repo) *row[labelData] {
	x := some(l, r.labels.rows, func(v *labelData) bool { return !v.standard })
	if x == nil || slices.ContainsFunc(r.issues.rows, func(i *row[issueData]) bool { return i.now != nil && slices.Contains(i.now.labels, x.id) }) {
		return nil
	}
	return x
}

func (t *tx) dropUnusedLabel(l *life, r *repo) bool {
	x := t.unused(l, r)
	if x != nil {
		t.dropLabel(r, x)
	}
	return x != nil
}

func (t *tx) planMilestone(l *life, r *repo) bool {
	if m := some(l, r.milestones.rows, func(m *milestoneData) bool { return m.state == stateOpen }); m != nil && l.dice.Chance(0.4) {
		v := *m.now
		v.state, v.closed = stateClosed, t.now
		t.editMilestone(m, v)
		return true
	}
	t.newMilestone(r, milestoneData{title: l.dice.Thing(), description: l.dice.Sentence(5), state: stateOpen, creator: t.actor, due: t.now.AddDate(0, 1, 0)})
	return true
}

func (t *tx) describe(l *life, r *repo) bool {
	text, topic := l.dice.Sentence(6), l.dice.Pick("cli", "postgres", "streams", "sync")
	t.editRepo(r, func(v *repoData) {
		v.description = text
		if !slices.Contains(v.topics, any(topic)) {
			v.topics = append(slices.Clone(v.topics), topic)
		}
	})
	return true
}

func (t *tx) dismissSome(l *life, r *repo) bool {
	w := some(l, r.reviews.rows, func(w *reviewData) bool { return w.state == "CHANGES_REQUESTED" })
	if w != nil {
		t.editReview(w, func(v *reviewData) { v.state = "DISMISSED" })
	}
	return w != nil
}

func (t *tx) renameSome(l *life, r *repo) bool {
	name := r.now.name + "-" + l.dice.Pick("renamed", "legacy", "two", "x")
	if len(name) > 90 || t.s.names[fold(r.now.owner.login+"/"+name)] != nil {
		return false
	}
	t.editRepo(r, func(v *repoData) { v.name = name })
	return true
}

func (t *tx) deleteSomeRepo(_ *life, r *repo) bool {
	if len(t.s.repos) < 4 {
		return false
	}
	t.deleteRepo(r)
	return true
}

// transferSomeRepo gives a repository to a person, or back to the organization.
func (t *tx) transferSomeRepo(_ *life, r *repo) bool {
	to := t.s.org
	if r.now.owner == to {
		to = t.s.viewer
	}
	if t.s.names[fold(to.login+"/"+r.now.name)] != nil {
		return false
	}
	t.editRepo(r, func(v *repoData) { v.owner = to })
	return true
}

func (t *tx) deleteSomeIssue(l *life, r *repo) bool {
	i := some(l, r.issues.rows, func(i *issueData) bool { return i.pull == nil })
	if i != nil {
		t.deleteIssue(i)
	}
	return i != nil
}

func (t *tx) transferSome(l *life, r *repo) bool {
	i := some(l, r.issues.rows, func(i *issueData) bool { return i.pull == nil })
	to := t.s.repos[l.dice.Int(len(t.s.repos))]
	if i == nil || to == r || to.now.owner != r.now.owner {
		return false
	}
	t.transferIssue(i, to)
	return true
}

// recolor changes a label, which shows in all issues that have it without their being
// updated.
func (t *tx) recolor(l *life, r *repo) bool {
	x := some(l, r.labels.rows, nil)
	if x == nil {
		return false
	}
	v := *x.now
	v.color = fmt.Sprintf("%06x", l.dice.Int(1<<24))
	t.editLabel(x, v)
	return true
}

// DeleteIssue deletes an issue (owner/name, number); false when there is none.
func (s *Sandbox) DeleteIssue(repository string, number int) bool {
	return s.onIssue(repository, number, func(t *tx, i *row[issueData]) { t.deleteIssue(i) })
}

// TransferIssue moves an issue to another repository; false when there is none.
func (s *Sandbox) TransferIssue(repository string, number int, to string) bool {
	s.mu.RLock()
	target := s.names[fold(to)]
	s.mu.RUnlock()
	return target != nil && s.onIssue(repository, number, func(t *tx, i *row[issueData]) { t.transferIssue(i, target) })
}

func (s *Sandbox) onIssue(repository string, number int, do func(*tx, *row[issueData])) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.names[fold(repository)]
	if r == nil || r.numbers[number] == nil || r.numbers[number].now == nil || r.numbers[number].now.pull != nil {
		return false
	}
	do(s.tx(s.options.Clock.Now(), s.viewer), r.numbers[number])
	return true
}

// Do lets something happen at once in one repository (owner/name): as many steps as
// asked for, for tests that want them there. It returns false when there is none.
func (s *Sandbox) Do(repository string, steps int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.names[fold(repository)]
	if r == nil {
		return false
	}
	all := happenings()
	for range steps {
		t := s.tx(s.options.Clock.Now(), s.people[s.life.dice.Int(len(s.people))])
		if h := all[s.life.dice.Int(len(all))]; !h.do(t, s.life, r) {
			t.reportIssue(s.life, r)
		}
	}
	return true
}
