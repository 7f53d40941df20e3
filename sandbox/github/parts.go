package github

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// partRoutes are labels, milestones and releases.
func partRoutes() map[string]handler {
	const at = "/repos/{owner}/{repo}"
	return map[string]handler{
		"GET " + at + "/labels":               (*request).labels,
		"POST " + at + "/labels":              (*request).createLabel,
		"GET " + at + "/labels/{name}":        (*request).getLabel,
		"PATCH " + at + "/labels/{name}":      (*request).patchLabel,
		"DELETE " + at + "/labels/{name}":     (*request).deleteLabel,
		"GET " + at + "/milestones":           (*request).milestones,
		"POST " + at + "/milestones":          (*request).createMilestone,
		"GET " + at + "/milestones/{n}":       (*request).getMilestone,
		"PATCH " + at + "/milestones/{n}":     (*request).patchMilestone,
		"DELETE " + at + "/milestones/{n}":    (*request).deleteMilestone,
		"GET " + at + "/releases":             (*request).releases,
		"POST " + at + "/releases":            (*request).createRelease,
		"GET " + at + "/releases/latest":      (*request).latestRelease,
		"GET " + at + "/releases/tags/{name}": (*request).releaseByTag,
		"GET " + at + "/releases/{id}":        (*request).getRelease,
		"PATCH " + at + "/releases/{id}":      (*request).patchRelease,
		"DELETE " + at + "/releases/{id}":     (*request).deleteRelease,
	}
}

func (r *repo) labelNamed(name string) *row[labelData] {
	for _, l := range r.labels.rows {
		if l.now != nil && fold(l.now.name) == fold(name) {
			return l
		}
	}
	return nil
}

func (r *repo) milestoneAt(number int) *row[milestoneData] {
	for _, m := range r.milestones.rows {
		if m.now != nil && m.now.number == number {
			return m
		}
	}
	return nil
}

// issueChange changes the issue of the path and answers with its labels.
func (q *request) issueChange(change func(*tx, *row[issueData]) *Error) (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	if err := change(q.tx(), i); err != nil {
		return nil, err
	}
	return i.repo.labelDocs(i.now.labels), nil
}

func (q *request) issueLabels() (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	return page(q, i.repo.labelDocs(i.now.labels), func(d any) any { return d }), nil
}

func (q *request) addLabels() (any, *Error) {
	return q.issueChange(func(t *tx, i *row[issueData]) *Error {
		all := slices.Clone(i.now.labels)
		for _, id := range q.labelsOf(i.repo, t) {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
		t.edit(i, func(v *issueData) { v.labels = all })
		return nil
	})
}

func (q *request) setLabels() (any, *Error) {
	out, err := q.issueChange(func(t *tx, i *row[issueData]) *Error {
		all := q.labelsOf(i.repo, t)
		t.edit(i, func(v *issueData) { v.labels = all })
		return nil
	})
	if err == nil && q.method == http.MethodDelete {
		q.status = http.StatusNoContent
		return nil, nil
	}
	return out, err
}

func (q *request) dropIssueLabel() (any, *Error) {
	return q.issueChange(func(t *tx, i *row[issueData]) *Error {
		l := i.repo.labelNamed(q.vars["name"])
		if l == nil || !slices.Contains(i.now.labels, l.id) {
			return &Error{Status: http.StatusNotFound, Message: "Label does not exist"}
		}
		t.edit(i, func(v *issueData) {
			v.labels = slices.DeleteFunc(slices.Clone(v.labels), func(id int64) bool { return id == l.id })
		})
		return nil
	})
}

func (q *request) addAssignees() (any, *Error) {
	q.status = http.StatusCreated
	return q.assign(func(have []*account, a *account) []*account {
		if slices.Contains(have, a) {
			return have
		}
		return append(slices.Clone(have), a)
	})
}

func (q *request) dropAssignees() (any, *Error) {
	return q.assign(func(have []*account, a *account) []*account {
		return slices.DeleteFunc(slices.Clone(have), func(x *account) bool { return x == a })
	})
}

func (q *request) assign(change func([]*account, *account) []*account) (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	list, err := q.people("assignees")
	if err != nil {
		return nil, err
	}
	q.tx().edit(i, func(v *issueData) {
		for _, a := range list {
			v.assignees = change(v.assignees, a)
		}
	})
	return q.fullIssue(i.current()), nil
}

func (q *request) labels() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	list := r.labels.shown(q.now, nil)
	slices.SortStableFunc(list, func(a, b view[labelData]) int { return strings.Compare(fold(a.v.name), fold(b.v.name)) })
	return page(q, list, func(v view[labelData]) any { return renderLabel(v) }), nil
}

func (q *request) oneLabel() (*row[labelData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	l := r.labelNamed(q.vars["name"])
	if l == nil {
		return nil, notFound()
	}
	return l, nil
}

func (q *request) getLabel() (any, *Error) {
	l, err := q.oneLabel()
	if err != nil {
		return nil, err
	}
	return renderLabel(l.current()), nil
}

var colorForm = regexp.MustCompile(`^[0-9a-fA-F]{6}$`)

// labelFields checks and takes what a write says of a label.
func (q *request) labelFields(r *repo, l *labelData, self *row[labelData]) *Error {
	name := l.name
	for _, field := range []string{"name", "new_name"} {
		if q.has(field) && (field == "new_name" || self == nil) {
			name = q.str(field)
		}
	}
	switch other := r.labelNamed(name); {
	case strings.TrimSpace(name) == "":
		return invalid("Label", "name", "missing_field", "")
	case other != nil && other != self:
		return invalid("Label", "name", "already_exists", "")
	case q.has("color") && !colorForm.MatchString(q.str("color")):
		return invalid("Label", "color", "invalid", "")
	}
	l.name = name
	if q.has("color") {
		l.color = fold(q.str("color"))
	}
	if q.has("description") {
		l.description = q.str("description")
	}
	return nil
}

func (q *request) createLabel() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	l := labelData{color: "ededed"}
	if err := q.labelFields(r, &l, nil); err != nil {
		return nil, err
	}
	q.status = http.StatusCreated
	return renderLabel(q.tx().newLabel(r, l).current()), nil
}

func (q *request) patchLabel() (any, *Error) {
	l, err := q.oneLabel()
	if err != nil {
		return nil, err
	}
	v := *l.now
	if err := q.labelFields(l.repo, &v, l); err != nil {
		return nil, err
	}
	q.tx().editLabel(l, v)
	return renderLabel(l.current()), nil
}

func (t *tx) editLabel(l *row[labelData], v labelData) {
	v.updated = t.now
	l.put(v, t.now, t.late())
}

func (q *request) deleteLabel() (any, *Error) {
	l, err := q.oneLabel()
	if err != nil {
		return nil, err
	}
	q.tx().dropLabel(l.repo, l)
	q.status = http.StatusNoContent
	return nil, nil
}

func (q *request) milestones() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	state, err := q.choice("state", stateOpen, stateClosed, "all")
	if err != nil {
		return nil, err
	}
	list := r.milestones.shown(q.now, func(v view[milestoneData]) bool { return state == "all" || v.v.state == state })
	arrange(list, q.query.Get("direction"), func(v view[milestoneData]) (int64, int64) {
		if v.v.due.IsZero() {
			return 1 << 40, v.id
		}
		return v.v.due.Unix(), v.id
	})
	return page(q, list, func(v view[milestoneData]) any { return renderMilestone(v) }), nil
}

func (q *request) oneMilestone() (*row[milestoneData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	m := r.milestoneAt(int(q.number("n")))
	if m == nil {
		return nil, notFound()
	}
	return m, nil
}

func (q *request) getMilestone() (any, *Error) {
	m, err := q.oneMilestone()
	if err != nil {
		return nil, err
	}
	return renderMilestone(m.current()), nil
}

func (q *request) milestoneFields(m *milestoneData, now time.Time) *Error {
	if q.has("title") {
		m.title = q.str("title")
	}
	if q.has("description") {
		m.description = q.str("description")
	}
	if due, err := time.Parse(time.RFC3339, q.str("due_on")); q.has("due_on") {
		if m.due = due; err != nil && q.str("due_on") != "" {
			return invalid("Milestone", "due_on", "invalid", "")
		}
	}
	if state := q.str("state"); state != "" && state != m.state {
		if m.state, m.closed = state, (time.Time{}); state == stateClosed {
			m.closed = now
		}
	}
	if m.title == "" {
		return invalid("Milestone", "title", "missing_field", "")
	}
	if m.state != stateOpen && m.state != stateClosed {
		return invalid("Milestone", "state", "invalid", "")
	}
	return nil
}

func (q *request) createMilestone() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	t := q.tx()
	m := milestoneData{state: stateOpen, creator: t.actor}
	if err := q.milestoneFields(&m, t.now); err != nil {
		return nil, err
	}
	q.status = http.StatusCreated
	return renderMilestone(t.newMilestone(r, m).current()), nil
}

func (t *tx) newMilestone(r *repo, m milestoneData) *row[milestoneData] {
	r.lastMilestone++
	m.number, m.created, m.updated = r.lastMilestone, t.now, t.now
	return r.milestones.add(r, t.s.id("milestone"), m, t.late())
}

func (q *request) patchMilestone() (any, *Error) {
	m, err := q.oneMilestone()
	if err != nil {
		return nil, err
	}
	t, v := q.tx(), *m.now
	if err := q.milestoneFields(&v, t.now); err != nil {
		return nil, err
	}
	t.editMilestone(m, v)
	return renderMilestone(m.current()), nil
}

func (t *tx) editMilestone(m *row[milestoneData], v milestoneData) {
	v.updated = t.now
	m.put(v, t.now, t.late())
}

func (q *request) deleteMilestone() (any, *Error) {
	m, err := q.oneMilestone()
	if err != nil {
		return nil, err
	}
	t := q.tx()
	m.repo.milestones.remove(m, t.now, t.late())
	q.status = http.StatusNoContent
	return nil, nil
}
