package github

import (
	"slices"
)

// openPull opens a pull request of a branch onto the default branch, with a commit.
func (t *tx) openPull(r *repo, i issueData, head, base string) *row[issueData] {
	c := t.commit(r, i.title, head, nonEmpty(r.now.head), t.now).now
	draft := i.pull != nil && i.pull.draft
	i.pull = &pullData{id: t.s.id("pull"), draft: draft, headRef: head, headSHA: c.sha, baseRef: base, baseSHA: r.now.head, pushed: t.now,
		additions: c.additions, deletions: c.deletions, files: 1 + c.additions/60, commits: 1, fork: t.actor.id%5 == 0}
	return t.openIssue(r, i)
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// pushTo adds a commit to a pull request.
func (t *tx) pushTo(i *row[issueData], message string) {
	c := t.commit(i.repo, message, i.now.pull.headRef, nonEmpty(i.now.pull.headSHA), t.now).now
	t.edit(i, func(v *issueData) {
		p := v.pull
		p.headSHA, p.pushed = c.sha, t.now
		p.commits++
		p.additions += c.additions
		p.deletions += c.deletions
		p.files = 1 + p.additions/60
	})
}

// review reviews a pull request. PENDING ones are seen by nobody but their author.
func (t *tx) review(i *row[issueData], state, body string) *row[reviewData] {
	w := reviewData{issue: i, user: t.actor, state: state, body: body, commit: i.now.pull.headSHA, created: t.now, updated: t.now, submitted: t.now}
	made := i.repo.reviews.add(i.repo, t.s.id("review"), w, t.late())
	t.edit(i, func(v *issueData) {
		v.pull.reviewers = slices.DeleteFunc(slices.Clone(v.pull.reviewers), func(a *account) bool { return a == t.actor })
	})
	return made
}

// line comments on a line, as part of a review.
func (t *tx) line(i *row[issueData], review int64, c lineData) *row[lineData] {
	c.issue, c.review, c.user, c.created, c.updated = i, review, t.actor, t.now, t.now
	if c.commit == "" {
		c.commit = i.now.pull.headSHA
	}
	made := i.repo.reviewComments.add(i.repo, t.s.id("line"), c, t.late())
	t.edit(i, func(v *issueData) { v.pull.lines++ })
	return made
}

func (t *tx) editReview(w *row[reviewData], edit func(*reviewData)) {
	v := *w.now
	edit(&v)
	v.updated = t.now
	w.put(v, t.now, t.late())
	t.edit(v.issue, func(*issueData) {})
}

func (t *tx) editLine(c *row[lineData], body string) {
	v := *c.now
	v.body, v.updated = body, t.now
	c.put(v, t.now, t.late())
	t.edit(v.issue, func(*issueData) {})
}

func (t *tx) dropLine(c *row[lineData]) {
	i := c.now.issue
	c.repo.reviewComments.remove(c, t.now, t.late())
	t.edit(i, func(v *issueData) { v.pull.lines-- })
}

// merge merges a pull request: the default branch gets a commit, with method merge the
// branch's own as well.
func (t *tx) merge(i *row[issueData], method, message string) string {
	r := i.repo
	parents := nonEmpty(r.now.head)
	if method == "merge" {
		parents = append(parents, i.now.pull.headSHA)
	}
	c := t.commit(r, message, r.now.branch, parents, t.now).now
	t.edit(i, func(v *issueData) {
		v.state, v.closed, v.closedBy = stateClosed, t.now, t.actor
		p := v.pull
		p.merged, p.mergedAt, p.mergedBy, p.mergeSHA, p.draft = true, t.now, t.actor, c.sha, false
	})
	return c.sha
}

// decision is GraphQL's reviewDecision: the last word of each reviewer counts.
func (r *repo) decision(i *row[issueData]) any {
	last := map[*account]string{}
	for _, w := range r.reviews.rows {
		if w.now != nil && w.now.issue == i && w.now.state != "COMMENTED" && w.now.state != "PENDING" {
			last[w.now.user] = w.now.state
		}
	}
	approved := false
	for _, state := range last {
		switch state {
		case "CHANGES_REQUESTED":
			return "CHANGES_REQUESTED"
		case "APPROVED":
			approved = true
		}
	}
	if approved {
		return "APPROVED"
	}
	return nil
}
