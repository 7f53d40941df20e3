package github

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The states of issues and pull requests.
const (
	stateOpen   = "open"
	stateClosed = "closed"
)

func pathEscape(s string) string { return url.PathEscape(s) }

func (r *repo) labelDocs(ids []int64) []any {
	out := make([]any, 0, len(ids))
	for _, id := range ids {
		if l := r.labels.find(id); l != nil {
			out = append(out, renderLabel(l.current()))
		}
	}
	return out
}

func (r *repo) milestoneDoc(id int64) any {
	if m := r.milestones.find(id); m != nil {
		return renderMilestone(m.current())
	}
	return nil
}

func first(list []*account) any {
	if len(list) == 0 {
		return nil
	}
	return list[0].simple
}

// issue is an issue, or the issue of a pull request.
func (q *request) issue(v view[issueData]) doc {
	i, r := v.v, v.repo
	base := fmt.Sprintf("%s/issues/%d", r.now.url(), i.number)
	d := doc{
		"id": v.id, "node_id": nodeID(nodeIssue, r.id, v.id), "url": base, "repository_url": r.now.url(), "labels_url": base + "/labels{/name}",
		"comments_url": base + "/comments", "events_url": base + "/events", "html_url": fmt.Sprintf("%s/issues/%d", r.now.html(), i.number),
		"timeline_url": base + "/timeline", "number": int64(i.number), "title": i.title, "user": user(i.user), "labels": r.labelDocs(i.labels), "state": i.state,
		"state_reason": orNull(i.reason), "locked": i.locked, "active_lock_reason": orNull(i.lockReason), "assignee": first(i.assignees),
		"assignees": users(i.assignees), "milestone": r.milestoneDoc(i.milestone), "comments": i.comments, "created_at": stamp(i.created),
		"updated_at": stamp(i.updated), "closed_at": stamp(i.closed), "author_association": association(r, i.user), "reactions": reactions(base),
		"performed_via_github_app": nil, "type": nil,
		"sub_issues_summary":         doc{"total": int64(0), "completed": int64(0), "percent_completed": int64(0)},
		"issue_dependencies_summary": doc{"blocked_by": int64(0), "total_blocked_by": int64(0), "blocking": int64(0), "total_blocking": int64(0)},
	}
	if p := i.pull; p != nil {
		page := fmt.Sprintf("%s/pull/%d", r.now.html(), i.number)
		d["html_url"], d["draft"], d["node_id"] = page, p.draft, nodeID(nodePull, r.id, p.id)
		d["pull_request"] = doc{"url": fmt.Sprintf("%s/pulls/%d", r.now.url(), i.number), "html_url": page, "diff_url": page + ".diff", "patch_url": page + ".patch",
			"merged_at": stamp(p.mergedAt)}
		delete(d, "sub_issues_summary")
		delete(d, "issue_dependencies_summary")
	}
	return q.prose(d, text(i.body))
}

// fullIssue has what only the issue by itself has.
func (q *request) fullIssue(v view[issueData]) doc {
	d := q.issue(v)
	d["closed_by"] = user(v.v.closedBy)
	return d
}

func (q *request) comment(v view[commentData]) doc {
	r, number := v.repo, v.v.number
	base := r.now.url() + "/issues/comments/" + num(v.id)
	kind := "issues"
	if v.v.onPull {
		kind = "pull"
	}
	return q.prose(doc{"id": v.id, "node_id": nodeID(nodeComment, r.id, v.id), "url": base, "issue_url": fmt.Sprintf("%s/issues/%d", r.now.url(), number),
		"html_url": fmt.Sprintf("%s/%s/%d#issuecomment-%d", r.now.html(), kind, number, v.id), "user": user(v.v.user), "created_at": stamp(v.v.created),
		"updated_at": stamp(v.v.updated), "author_association": association(r, v.v.user), "reactions": reactions(base), "performed_via_github_app": nil}, v.v.body)
}

// branchDoc is the head or base of a pull request.
func (q *request) branchDoc(r *repo, ref, sha string) doc {
	return doc{"label": r.now.owner.login + ":" + ref, "ref": ref, "sha": sha, "user": user(r.now.owner), "repo": q.s.repository(r.current())}
}

// pull is a pull request as lists show it.
func (q *request) pull(v view[issueData]) doc {
	i, p, r := v.v, v.v.pull, v.repo
	base, page, issue := fmt.Sprintf("%s/pulls/%d", r.now.url(), i.number), fmt.Sprintf("%s/pull/%d", r.now.html(), i.number), fmt.Sprintf("%s/issues/%d", r.now.url(), i.number)
	statuses := r.now.url() + "/statuses/" + p.headSHA
	link := func(to string) doc { return doc{"href": to} }
	return q.prose(doc{
		"url": base, "id": p.id, "node_id": nodeID(nodePull, r.id, p.id), "html_url": page, "diff_url": page + ".diff", "patch_url": page + ".patch",
		"issue_url": issue, "number": int64(i.number), "state": i.state, "locked": i.locked, "title": i.title, "user": user(i.user),
		"created_at": stamp(i.created), "updated_at": stamp(i.updated), "closed_at": stamp(i.closed), "merged_at": stamp(p.mergedAt),
		"merge_commit_sha": orNull(p.mergeSHA), "assignee": first(i.assignees), "assignees": users(i.assignees), "requested_reviewers": users(p.reviewers),
		"requested_teams": []any{}, "labels": r.labelDocs(i.labels), "milestone": r.milestoneDoc(i.milestone), "draft": p.draft,
		"commits_url": base + "/commits", "review_comments_url": base + "/comments", "review_comment_url": r.now.url() + "/pulls/comments{/number}",
		"comments_url": issue + "/comments", "statuses_url": statuses, "head": q.branchDoc(r, p.headRef, p.headSHA), "base": q.branchDoc(r, p.baseRef, p.baseSHA),
		"_links": doc{"self": link(base), "html": link(page), "issue": link(issue), "comments": link(issue + "/comments"), "review_comments": link(base + "/comments"),
			"review_comment": link(r.now.url() + "/pulls/comments{/number}"), "commits": link(base + "/commits"), "statuses": link(statuses)},
		"author_association": association(r, i.user), "auto_merge": nil, "active_lock_reason": orNull(i.lockReason),
	}, text(i.body))
}

// mergeable is what is known at a time about whether a pull request can be merged:
// MERGEABLE, CONFLICTING or UNKNOWN.
func (s *Sandbox) mergeable(i *issueData, at time.Time) string {
	switch {
	case i.state == stateClosed || at.Before(i.pull.pushed.Add(time.Duration(s.lateness.Mergeable))):
		return "UNKNOWN"
	case i.pull.conflict:
		return "CONFLICTING"
	}
	return "MERGEABLE"
}

// fullPull has what only the pull request by itself has.
func (q *request) fullPull(v view[issueData]) doc {
	d, i, p := q.pull(v), v.v, v.v.pull
	d["merged"], d["merged_by"], d["comments"], d["review_comments"] = p.merged, user(p.mergedBy), i.comments, p.lines
	d["maintainer_can_modify"], d["commits"], d["additions"], d["deletions"], d["changed_files"] = p.fork, p.commits, p.additions, p.deletions, p.files
	d["mergeable"], d["rebaseable"], d["mergeable_state"] = nil, nil, "unknown"
	switch q.s.mergeable(i, q.now) {
	case "MERGEABLE":
		d["mergeable"], d["rebaseable"], d["mergeable_state"] = true, true, "clean"
	case "CONFLICTING":
		d["mergeable"], d["rebaseable"], d["mergeable_state"] = false, false, "dirty"
	}
	return d
}

func (q *request) review(v view[reviewData]) doc {
	r, i, w := v.repo, v.v.issue.now, v.v
	pull := fmt.Sprintf("%s/pulls/%d", r.now.url(), i.number)
	page := fmt.Sprintf("%s/pull/%d#pullrequestreview-%d", r.now.html(), i.number, v.id)
	d := doc{"id": v.id, "node_id": nodeID(nodeReview, r.id, v.id), "user": user(w.user), "state": w.state, "html_url": page, "pull_request_url": pull,
		"commit_id": w.commit, "author_association": association(r, w.user), "_links": doc{"html": doc{"href": page}, "pull_request": doc{"href": pull}}}
	if !w.submitted.IsZero() {
		d["submitted_at"] = stamp(w.submitted)
	}
	return q.prose(d, w.body)
}

func (q *request) line(v view[lineData]) doc {
	r, i, c := v.repo, v.v.issue.now, v.v
	pull, self := fmt.Sprintf("%s/pulls/%d", r.now.url(), i.number), r.now.url()+"/pulls/comments/"+num(v.id)
	page := fmt.Sprintf("%s/pull/%d#discussion_r%d", r.now.html(), i.number, v.id)
	d := doc{"id": v.id, "node_id": nodeID(nodeLine, r.id, v.id), "url": self, "pull_request_review_id": c.review, "diff_hunk": c.hunk, "path": c.path,
		"position": c.line, "original_position": c.line, "commit_id": c.commit, "original_commit_id": c.commit, "user": user(c.user),
		"created_at": stamp(c.created), "updated_at": stamp(c.updated), "html_url": page, "pull_request_url": pull, "author_association": association(r, c.user),
		"_links":     doc{"self": doc{"href": self}, "html": doc{"href": page}, "pull_request": doc{"href": pull}},
		"start_line": nil, "original_start_line": nil, "start_side": nil, "line": c.line, "original_line": c.line, "side": "RIGHT", "subject_type": "line",
		"reactions": reactions(self)}
	if c.reply != 0 {
		d["in_reply_to_id"] = c.reply
	}
	return q.prose(d, c.body)
}

// upper is an enum's value in GraphQL.
func upper(s string) string { return strings.ToUpper(strings.ReplaceAll(s, " ", "_")) }
