package github

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

func issueRoutes() map[string]handler {
	const at = "/repos/{owner}/{repo}/issues"
	return map[string]handler{
		"GET " + at:                           (*request).issues,
		"POST " + at:                          (*request).createIssue,
		"GET " + at + "/{n}":                  (*request).getIssue,
		"PATCH " + at + "/{n}":                (*request).patchIssue,
		"PUT " + at + "/{n}/lock":             (*request).lockIssue,
		"DELETE " + at + "/{n}/lock":          (*request).unlockIssue,
		"GET " + at + "/{n}/comments":         (*request).issueComments,
		"POST " + at + "/{n}/comments":        (*request).createComment,
		"GET " + at + "/comments":             (*request).comments,
		"GET " + at + "/comments/{id}":        (*request).getComment,
		"PATCH " + at + "/comments/{id}":      (*request).patchComment,
		"DELETE " + at + "/comments/{id}":     (*request).deleteComment,
		"GET " + at + "/{n}/labels":           (*request).issueLabels,
		"POST " + at + "/{n}/labels":          (*request).addLabels,
		"PUT " + at + "/{n}/labels":           (*request).setLabels,
		"DELETE " + at + "/{n}/labels":        (*request).setLabels,
		"DELETE " + at + "/{n}/labels/{name}": (*request).dropIssueLabel,
		"POST " + at + "/{n}/assignees":       (*request).addAssignees,
		"DELETE " + at + "/{n}/assignees":     (*request).dropAssignees,
	}
}

// tracker is a repository whose issues are on.
func (q *request) tracker() (*repo, *Error) {
	r, err := q.repo()
	if err == nil && r.now.noIssues {
		return nil, &Error{Status: http.StatusGone, Message: "Issues has been disabled in this repository.", URL: docs + "/issues/issues"}
	}
	return r, err
}

// named returns the issue with the number in the path: 301 to where it was transferred,
// 410 when it was deleted.
func (q *request) named() (*row[issueData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	n := int(q.number("n"))
	if to := r.moved[n]; to != nil && to.now != nil {
		if !q.who.sees(to.repo) {
			return nil, notFound()
		}
		_, tail, _ := strings.Cut(q.path, "/issues/"+q.vars["n"])
		return nil, q.moved(fmt.Sprintf("/repositories/%d/issues/%d%s", to.repo.id, to.now.number, tail))
	}
	i := r.numbers[n]
	switch {
	case i == nil && n > 0 && n <= r.last, i != nil && i.now == nil:
		return nil, &Error{Status: http.StatusGone, Message: "This issue was deleted", URL: docs + "/issues/issues#get-an-issue"}
	case i == nil:
		return nil, notFound()
	case r.now.noIssues && i.now.pull == nil:
		return nil, &Error{Status: http.StatusGone, Message: "Issues has been disabled in this repository.", URL: docs + "/issues/issues"}
	}
	return i, nil
}

func (q *request) issues() (any, *Error) {
	r, err := q.tracker()
	if err != nil {
		return nil, err
	}
	passes, err := q.issueFilter(r)
	if err != nil {
		return nil, err
	}
	by, err := q.choice("sort", "created", "updated", "comments")
	if err != nil {
		return nil, err
	}
	direction, err := q.choice("direction", "desc", "asc")
	if err != nil {
		return nil, err
	}
	list := r.issues.shown(q.now, passes)
	arrange(list, direction, func(v view[issueData]) (int64, int64) {
		switch by {
		case "updated":
			return v.v.updated.Unix(), v.id
		case "comments":
			return v.v.comments, v.id
		}
		return v.v.created.Unix(), v.id
	})
	return page(q, list, func(v view[issueData]) any { return q.issue(v) }), nil
}

// issueFilter is what the parameters of the list of issues let through.
func (q *request) issueFilter(r *repo) (func(view[issueData]) bool, *Error) {
	state, err := q.choice("state", stateOpen, stateClosed, "all")
	if err != nil {
		return nil, err
	}
	since, err := q.time("since")
	if err != nil {
		return nil, err
	}
	get := q.query.Get
	var labels []string
	if get("labels") != "" {
		labels = strings.Split(get("labels"), ",")
	}
	return func(v view[issueData]) bool {
		i := v.v
		switch {
		case state != "all" && i.state != state, i.updated.Before(since):
			return false
		case get("creator") != "" && fold(i.user.login) != fold(get("creator")):
			return false
		case !assigned(i.assignees, get("assignee")), !r.inMilestone(i.milestone, get("milestone")):
			return false
		}
		for _, name := range labels {
			if !slices.ContainsFunc(i.labels, func(id int64) bool {
				l := r.labels.find(id)
				return l != nil && fold(l.now.name) == fold(strings.TrimSpace(name))
			}) {
				return false
			}
		}
		return true
	}, nil
}

func assigned(list []*account, want string) bool {
	switch want {
	case "":
		return true
	case "none":
		return len(list) == 0
	case "*":
		return len(list) > 0
	}
	return slices.ContainsFunc(list, func(a *account) bool { return fold(a.login) == fold(want) })
}

func (r *repo) inMilestone(id int64, want string) bool {
	switch want {
	case "":
		return true
	case "none":
		return id == 0
	case "*":
		return id != 0
	}
	m := r.milestones.find(id)
	return m != nil && fmt.Sprint(m.now.number) == want
}

func (q *request) getIssue() (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	return q.fullIssue(i.current()), nil
}

// fill takes from a write what issues and pull requests have in common.
func (q *request) fill(r *repo, v *issueData, t *tx) *Error {
	if q.has("labels") {
		v.labels = q.labelsOf(r, t)
	}
	if q.has("assignees") {
		list, err := q.people("assignees")
		if err != nil {
			return err
		}
		v.assignees = list
	}
	if q.has("milestone") {
		v.milestone = 0
		if n, ok := q.body["milestone"].(float64); ok {
			m := r.milestoneAt(int(n))
			if m == nil {
				return invalid("Issue", "milestone", "invalid", "")
			}
			v.milestone = m.id
		}
	}
	return nil
}

// labelsOf are the labels that a write names; those that are not there yet are made.
func (q *request) labelsOf(r *repo, t *tx) []int64 {
	out := []int64{}
	for _, name := range q.names("labels", "name") {
		l := r.labelNamed(name)
		if l == nil {
			l = t.newLabel(r, labelData{name: name, color: "ededed"})
		}
		if !slices.Contains(out, l.id) {
			out = append(out, l.id)
		}
	}
	return out
}

func (q *request) createIssue() (any, *Error) {
	r, err := q.tracker()
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(q.str("title")) == "" {
		return nil, invalid("Issue", "title", "missing_field", "")
	}
	t := q.tx()
	v := issueData{title: q.str("title"), body: q.optional("body"), user: t.actor}
	if err := q.fill(r, &v, t); err != nil {
		return nil, err
	}
	q.status = http.StatusCreated
	return q.fullIssue(t.openIssue(r, v).current()), nil
}

func (q *request) patchIssue() (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	state := q.str("state")
	if q.has("state") && state != stateOpen && state != stateClosed {
		return nil, invalid("Issue", "state", "invalid", "")
	}
	if q.has("title") && strings.TrimSpace(q.str("title")) == "" {
		return nil, invalid("Issue", "title", "missing_field", "")
	}
	t, probe := q.tx(), *i.now
	if err := q.fill(i.repo, &probe, t); err != nil {
		return nil, err
	}
	q.editIssue(t, i, &probe)
	if reason := q.str("state_reason"); state != "" && state != i.now.state {
		switch {
		case reason == "" && state == stateClosed:
			reason = "completed"
		case reason == "" && state == stateOpen:
			reason = "reopened"
		}
		t.setState(i, state, reason)
	}
	return q.fullIssue(i.current()), nil
}

// editIssue changes what patches of issues and pull requests have in common.
func (q *request) editIssue(t *tx, i *row[issueData], filled *issueData) {
	t.edit(i, func(v *issueData) {
		v.labels, v.assignees, v.milestone = filled.labels, filled.assignees, filled.milestone
		if q.has("title") {
			v.title = q.str("title")
		}
		if q.has("body") {
			v.body, v.edited = q.optional("body"), t.now
		}
	})
}

func (q *request) lockIssue() (any, *Error) {
	return q.lock(func(v *issueData) { v.locked, v.lockReason = true, q.str("lock_reason") })
}

func (q *request) unlockIssue() (any, *Error) {
	return q.lock(func(v *issueData) { v.locked, v.lockReason = false, "" })
}

func (q *request) lock(change func(*issueData)) (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	if reason := q.str("lock_reason"); reason != "" && !slices.Contains([]string{"off-topic", "too heated", "resolved", "spam"}, reason) {
		return nil, invalid("Issue", "lock_reason", "invalid", "")
	}
	q.tx().edit(i, change)
	q.status = http.StatusNoContent
	return nil, nil
}

// commentList is a list of comments: by creation unless sort says otherwise, without
// which direction is not looked at.
func commentList[T any](q *request, list []view[T], times func(*T) (created, updated time.Time), render func(view[T]) doc) (any, *Error) {
	by, err := q.choice("sort", "", "created", "updated", "created_at")
	if err != nil {
		return nil, err
	}
	direction := "asc"
	if by != "" {
		if direction, err = q.choice("direction", "desc", "asc"); err != nil {
			return nil, err
		}
	}
	since, err := q.time("since")
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(v view[T]) bool { _, updated := times(v.v); return updated.Before(since) })
	arrange(list, direction, func(v view[T]) (int64, int64) {
		created, updated := times(v.v)
		if by == "updated" {
			return updated.Unix(), v.id
		}
		return created.Unix(), v.id
	})
	return page(q, list, func(v view[T]) any { return render(v) }), nil
}

func commentTimes(c *commentData) (created, updated time.Time) { return c.created, c.updated }

func (q *request) comments() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	return commentList(q, r.comments.shown(q.now, nil), commentTimes, q.comment)
}

func (q *request) issueComments() (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	n := i.now.number
	return commentList(q, i.repo.comments.shown(q.now, func(v view[commentData]) bool { return v.v.number == n }), commentTimes, q.comment)
}

func (q *request) oneComment() (*row[commentData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	c := r.comments.find(q.number("id"))
	if c == nil {
		return nil, notFound()
	}
	return c, nil
}

func (q *request) getComment() (any, *Error) {
	c, err := q.oneComment()
	if err != nil {
		return nil, err
	}
	return q.comment(c.current()), nil
}

func (q *request) createComment() (any, *Error) {
	i, err := q.named()
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(q.str("body")) == "" {
		return nil, invalid("IssueComment", "data", "unprocessable", "Body cannot be blank")
	}
	q.status = http.StatusCreated
	return q.comment(q.tx().comment(i, q.str("body")).current()), nil
}

func (q *request) patchComment() (any, *Error) {
	c, err := q.oneComment()
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(q.str("body")) == "" {
		return nil, invalid("IssueComment", "data", "unprocessable", "Body cannot be blank")
	}
	q.tx().editComment(c, q.str("body"))
	return q.comment(c.current()), nil
}

func (q *request) deleteComment() (any, *Error) {
	c, err := q.oneComment()
	if err != nil {
		return nil, err
	}
	q.tx().dropComment(c)
	q.status = http.StatusNoContent
	return nil, nil
}
