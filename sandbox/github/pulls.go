package github

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

func pullRoutes() map[string]handler {
	const at = "/repos/{owner}/{repo}/pulls"
	return map[string]handler{
		"GET " + at:                                  (*request).pulls,
		"POST " + at:                                 (*request).createPull,
		"GET " + at + "/{n}":                         (*request).getPull,
		"PATCH " + at + "/{n}":                       (*request).patchPull,
		"GET " + at + "/{n}/merge":                   (*request).isMerged,
		"PUT " + at + "/{n}/merge":                   (*request).mergePull,
		"GET " + at + "/{n}/commits":                 (*request).pullCommits,
		"GET " + at + "/{n}/reviews":                 (*request).reviews,
		"POST " + at + "/{n}/reviews":                (*request).createReview,
		"GET " + at + "/{n}/reviews/{id}":            (*request).getReview,
		"PUT " + at + "/{n}/reviews/{id}":            (*request).putReview,
		"PUT " + at + "/{n}/reviews/{id}/dismissals": (*request).dismissReview,
		"GET " + at + "/{n}/comments":                (*request).pullLines,
		"POST " + at + "/{n}/comments":               (*request).createLine,
		"GET " + at + "/{n}/requested_reviewers":     (*request).requested,
		"POST " + at + "/{n}/requested_reviewers":    (*request).requestReviewers,
		"DELETE " + at + "/{n}/requested_reviewers":  (*request).dropReviewers,
		"GET " + at + "/comments":                    (*request).lines,
		"GET " + at + "/comments/{id}":               (*request).getLine,
		"PATCH " + at + "/comments/{id}":             (*request).patchLine,
		"DELETE " + at + "/comments/{id}":            (*request).deleteLine,
	}
}

func (q *request) pulls() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	state, err := q.choice("state", stateOpen, stateClosed, "all")
	if err != nil {
		return nil, err
	}
	by, err := q.choice("sort", "created", "updated", "popularity", "long-running")
	if err != nil {
		return nil, err
	}
	down := "asc"
	if by == "created" {
		down = "desc"
	}
	direction, err := q.choice("direction", down, "asc", "desc")
	if err != nil {
		return nil, err
	}
	base, head := q.query.Get("base"), q.query.Get("head")
	list := r.issues.shown(q.now, func(v view[issueData]) bool {
		p := v.v.pull
		return p != nil && (state == "all" || v.v.state == state) && (base == "" || p.baseRef == base) && (head == "" || r.now.owner.login+":"+p.headRef == head)
	})
	arrange(list, direction, func(v view[issueData]) (int64, int64) {
		switch by {
		case "updated":
			return v.v.updated.Unix(), v.id
		case "popularity":
			return v.v.comments, v.id
		}
		return v.v.created.Unix(), v.id
	})
	return page(q, list, func(v view[issueData]) any { return q.pull(v) }), nil
}

func (q *request) onePull() (*row[issueData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	if i := r.numbers[int(q.number("n"))]; i != nil && i.now != nil && i.now.pull != nil {
		return i, nil
	}
	return nil, notFound()
}

func (q *request) getPull() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	return q.fullPull(i.current()), nil
}

func (r *repo) openFrom(head string) bool {
	for _, i := range r.issues.rows {
		if i.now != nil && i.now.pull != nil && i.now.state == stateOpen && i.now.pull.headRef == head {
			return true
		}
	}
	return false
}

func (q *request) createPull() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	head, base := q.str("head"), q.str("base")
	if _, branch, ok := strings.Cut(head, ":"); ok {
		head = branch
	}
	switch {
	case q.str("title") == "" && !q.has("issue"):
		return nil, invalid("PullRequest", "title", "missing_field", "")
	case head == "":
		return nil, invalid("PullRequest", "head", "missing_field", "")
	case base != r.now.branch:
		return nil, invalid("PullRequest", "base", "invalid", "")
	case r.openFrom(head):
		return nil, invalid("PullRequest", "", "custom", fmt.Sprintf("A pull request already exists for %s:%s.", r.now.owner.login, head))
	}
	t := q.tx()
	v := issueData{title: q.str("title"), body: q.optional("body"), user: t.actor, pull: &pullData{draft: q.flag("draft")}}
	q.status = http.StatusCreated
	return q.fullPull(t.openPull(r, v, head, base).current()), nil
}

func (q *request) patchPull() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	state := q.str("state")
	switch {
	case q.has("state") && state != stateOpen && state != stateClosed:
		return nil, invalid("PullRequest", "state", "invalid", "")
	case state == stateOpen && i.now.pull.merged:
		return nil, invalid("PullRequest", "state", "custom", "state cannot be changed. The pull request cannot be reopened.")
	case q.has("title") && strings.TrimSpace(q.str("title")) == "":
		return nil, invalid("PullRequest", "title", "missing_field", "")
	}
	t := q.tx()
	q.editIssue(t, i, i.now)
	if state != "" && state != i.now.state {
		t.setState(i, state, "")
	}
	return q.fullPull(i.current()), nil
}

func (q *request) isMerged() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	if !i.now.pull.merged {
		return nil, notFound()
	}
	q.status = http.StatusNoContent
	return nil, nil
}

func (q *request) mergePull() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	p := i.now.pull
	switch {
	case i.now.state != stateOpen || p.draft || p.conflict:
		return nil, &Error{Status: http.StatusMethodNotAllowed, Message: "Pull Request is not mergeable", URL: docs + "/pulls/pulls#merge-a-pull-request"}
	case q.str("sha") != "" && q.str("sha") != p.headSHA:
		return nil, &Error{Status: http.StatusConflict, Message: "Head branch was modified. Review and try the merge again.", URL: docs + "/pulls/pulls#merge-a-pull-request"}
	}
	method := q.str("merge_method")
	if method == "" {
		method = "merge"
	}
	title := q.str("commit_title")
	if title == "" {
		title = fmt.Sprintf("Merge pull request #%d from %s/%s", i.now.number, i.repo.now.owner.login, p.headRef)
	}
	return doc{"sha": q.tx().merge(i, method, title), "merged": true, "message": "Pull Request successfully merged"}, nil
}

func (q *request) reviews() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	list := i.repo.reviews.shown(q.now, func(v view[reviewData]) bool {
		return v.v.issue == i && (v.v.state != pending || v.v.user == q.who.account)
	})
	return page(q, list, func(v view[reviewData]) any { return q.review(v) }), nil
}

const pending = "PENDING"

func (q *request) oneReview() (*row[reviewData], *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	w := i.repo.reviews.find(q.number("id"))
	if w == nil || w.now.issue != i || w.now.state == pending && w.now.user != q.who.account {
		return nil, notFound()
	}
	return w, nil
}

func (q *request) getReview() (any, *Error) {
	w, err := q.oneReview()
	if err != nil {
		return nil, err
	}
	return q.review(w.current()), nil
}

func (q *request) createReview() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	state, ok := map[string]string{"": pending, "APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}[q.str("event")]
	t := q.tx()
	switch {
	case !ok:
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "Unprocessable Entity", Fields: []doc{{"message": "Variable $event of type PullRequestReviewEvent was provided invalid value"}}}
	case t.actor == i.now.user && (state == "APPROVED" || state == "CHANGES_REQUESTED"):
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "Unprocessable Entity", Fields: []doc{{"message": "Can not approve your own pull request"}}}
	case q.str("body") == "" && (state == "COMMENTED" || state == "CHANGES_REQUESTED"):
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "Unprocessable Entity", Fields: []doc{{"message": "Body is required"}}}
	}
	w := t.review(i, state, q.str("body"))
	comments, _ := q.body["comments"].([]any)
	for _, one := range comments {
		d, _ := one.(doc)
		path, _ := d["path"].(string)
		body, _ := d["body"].(string)
		at, _ := d["line"].(float64)
		t.line(i, w.id, lineData{path: path, body: body, line: int64(at), hunk: hunk(int64(at))})
	}
	return q.review(w.current()), nil
}

func hunk(line int64) string { return fmt.Sprintf("@@ -%d,3 +%d,4 @@", max(line, 1), max(line, 1)) }

func (q *request) putReview() (any, *Error) {
	return q.changeReview(func(v *reviewData) { v.body = q.str("body") })
}

func (q *request) dismissReview() (any, *Error) {
	if q.str("message") == "" {
		return nil, invalid("PullRequestReview", "message", "missing_field", "")
	}
	return q.changeReview(func(v *reviewData) { v.state = "DISMISSED" })
}

func (q *request) changeReview(change func(*reviewData)) (any, *Error) {
	w, err := q.oneReview()
	if err != nil {
		return nil, err
	}
	q.tx().editReview(w, change)
	return q.review(w.current()), nil
}

func lineTimes(c *lineData) (created, updated time.Time) { return c.created, c.updated }

func (q *request) lines() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	return commentList(q, r.reviewComments.shown(q.now, nil), lineTimes, q.line)
}

func (q *request) pullLines() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	return commentList(q, i.repo.reviewComments.shown(q.now, func(v view[lineData]) bool { return v.v.issue == i }), lineTimes, q.line)
}

func (q *request) oneLine() (*row[lineData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	c := r.reviewComments.find(q.number("id"))
	if c == nil {
		return nil, notFound()
	}
	return c, nil
}

func (q *request) getLine() (any, *Error) {
	c, err := q.oneLine()
	if err != nil {
		return nil, err
	}
	return q.line(c.current()), nil
}

func (q *request) createLine() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	at, _ := q.body["line"].(float64)
	reply, _ := q.body["in_reply_to"].(float64)
	c := lineData{path: q.str("path"), body: q.str("body"), line: int64(at), hunk: hunk(int64(at)), reply: int64(reply), commit: q.str("commit_id")}
	if c.body == "" || reply == 0 && (c.path == "" || c.commit == "") {
		return nil, invalid("PullRequestReviewComment", "body", "missing_field", "")
	}
	t := q.tx()
	if to := i.repo.reviewComments.find(c.reply); to != nil {
		c.path, c.line, c.hunk = to.now.path, to.now.line, to.now.hunk
	}
	w := t.review(i, "COMMENTED", "")
	q.status = http.StatusCreated
	return q.line(t.line(i, w.id, c).current()), nil
}

func (q *request) patchLine() (any, *Error) {
	c, err := q.oneLine()
	if err != nil {
		return nil, err
	}
	q.tx().editLine(c, q.str("body"))
	return q.line(c.current()), nil
}

func (q *request) deleteLine() (any, *Error) {
	c, err := q.oneLine()
	if err != nil {
		return nil, err
	}
	q.tx().dropLine(c)
	q.status = http.StatusNoContent
	return nil, nil
}

func (q *request) requested() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	return doc{"users": users(i.now.pull.reviewers), "teams": []any{}}, nil
}

func (q *request) requestReviewers() (any, *Error) {
	q.status = http.StatusCreated
	return q.changeReviewers(func(have []*account, asked []*account) []*account {
		out := slices.Clone(have)
		for _, a := range asked {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
		return out
	})
}

func (q *request) dropReviewers() (any, *Error) {
	return q.changeReviewers(func(have []*account, asked []*account) []*account {
		return slices.DeleteFunc(slices.Clone(have), func(a *account) bool { return slices.Contains(asked, a) })
	})
}

func (q *request) changeReviewers(change func(have, asked []*account) []*account) (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	asked, err := q.people("reviewers")
	if err != nil {
		return nil, err
	}
	if slices.Contains(asked, i.now.user) {
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "Review cannot be requested from pull request author."}
	}
	q.tx().edit(i, func(v *issueData) { v.pull.reviewers = change(v.pull.reviewers, asked) })
	return q.pull(i.current()), nil
}
