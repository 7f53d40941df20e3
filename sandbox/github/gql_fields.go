package github

import (
	"fmt"
	"math"
	"time"
)

// resolvers are the fields of all types, by type.
func resolvers() map[string]map[string]resolver {
	accounts := accountTable()
	return map[string]map[string]resolver{
		"Query": queryTable(), "Mutation": mutationTable(), "User": accounts, "Organization": accounts, "Repository": repositoryTable(), "Issue": issueTable(),
		"PullRequest": pullTable(), "PullRequestReview": reviewTable(), "PullRequestReviewComment": lineTable(), "IssueComment": commentTable(),
		"Label": labelTable(), "Milestone": milestoneTable(), "Release": releaseTable(), "Commit": commitTable(),
	}
}

// small is an id as an Int, which has 31 bits; null beyond.
func small(id int64) any {
	if id > math.MaxInt32 {
		return nil
	}
	return id
}

// maybe is a time that may not be there.
func maybe(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// actor is an account that may not be there.
func actor(a *account) any {
	if a == nil {
		return nil
	}
	return a
}

func unresolved(kind, name string) *gqlError {
	return &gqlError{Kind: "NOT_FOUND", Message: fmt.Sprintf("Could not resolve to %s with the %s.", kind, name)}
}

func accountTable() map[string]resolver {
	return map[string]resolver{
		"avatarUrl":    of(func(_ *execution, a *account) any { return a.simple["avatar_url"] }),
		"company":      of(func(_ *execution, a *account) any { return orNull(a.company) }),
		"createdAt":    of(func(_ *execution, a *account) any { return a.created }),
		"databaseId":   of(func(_ *execution, a *account) any { return small(a.id) }),
		"email":        of(func(_ *execution, a *account) any { return a.email }),
		"id":           of(func(_ *execution, a *account) any { return a.node() }),
		"location":     of(func(_ *execution, a *account) any { return orNull(a.city) }),
		"login":        of(func(_ *execution, a *account) any { return a.login }),
		"name":         of(func(_ *execution, a *account) any { return orNull(a.name) }),
		"repositories": repositories,
		"resourcePath": of(func(_ *execution, a *account) any { return "/" + a.login }),
		"url":          of(func(_ *execution, a *account) any { return web + "/" + a.login }),
	}
}

func repositoryTable() map[string]resolver {
	type v = view[repoData]
	return map[string]resolver{
		"createdAt":        of(func(_ *execution, r v) any { return r.v.created }),
		"databaseId":       of(func(_ *execution, r v) any { return small(r.id) }),
		"defaultBranchRef": of(defaultBranch),
		"description":      of(func(_ *execution, r v) any { return orNull(r.v.description) }),
		"diskUsage":        of(func(_ *execution, r v) any { return r.v.size }),
		"forkCount":        of(func(_ *execution, r v) any { return r.v.forks }),
		"hasIssuesEnabled": of(func(_ *execution, r v) any { return !r.v.noIssues }),
		"homepageUrl":      of(func(_ *execution, r v) any { return orNull(r.v.homepage) }),
		"id":               of(func(_ *execution, r v) any { return nodeID(nodeRepo, 0, r.id) }),
		"isArchived":       of(func(_ *execution, r v) any { return r.v.archived }),
		"isDisabled":       of(func(*execution, v) any { return false }),
		"isEmpty":          of(func(_ *execution, r v) any { return r.v.head == "" }),
		"isFork":           of(func(*execution, v) any { return false }),
		"isPrivate":        of(func(_ *execution, r v) any { return r.v.private }),
		"issue":            numbered("Issue", func(i *issueData) bool { return i.pull == nil }),
		"issues":           issueConnection,
		"labels":           labelConnection,
		"milestones":       milestoneConnection,
		"name":             of(func(_ *execution, r v) any { return r.v.name }),
		"nameWithOwner":    of(func(_ *execution, r v) any { return r.v.fullName() }),
		"owner":            of(func(_ *execution, r v) any { return r.v.owner }),
		"pullRequest":      numbered("PullRequest", func(i *issueData) bool { return i.pull != nil }),
		"pullRequests":     pullConnection,
		"pushedAt":         of(func(_ *execution, r v) any { return maybe(r.v.pushed) }),
		"releases":         releaseConnection,
		"resourcePath":     of(func(_ *execution, r v) any { return "/" + r.v.fullName() }),
		"stargazerCount":   of(func(_ *execution, r v) any { return r.v.stars }),
		"updatedAt":        of(func(_ *execution, r v) any { return r.v.updated }),
		"url":              of(func(_ *execution, r v) any { return r.v.html() }),
		"visibility":       of(func(_ *execution, r v) any { return upper(visibility(r.v.private)) }),
	}
}

func defaultBranch(_ *execution, r view[repoData]) any {
	head := r.repo.bySHA[r.v.head]
	if head == nil {
		return nil
	}
	return doc{"id": nodeID("REF", 0, r.id), "name": r.v.branch, "prefix": "refs/heads/", "target": head.current()}
}

// numbered is an issue or pull request by number.
func numbered(kind string, fits func(*issueData) bool) resolver {
	return func(_ *execution, v any, args doc) any {
		n, _ := args["number"].(int64)
		if i := v.(view[repoData]).repo.numbers[int(n)]; i != nil && i.now != nil && fits(i.now) {
			return i.current()
		}
		return unresolved("a "+kind, fmt.Sprintf("number of %d", n))
	}
}

// sharedTable are the fields that issues and pull requests have in common.
func sharedTable() map[string]resolver {
	type v = view[issueData]
	return map[string]resolver{
		"activeLockReason":  of(func(_ *execution, i v) any { return orNull(upper(dashless(i.v.lockReason))) }),
		"assignees":         assignees,
		"author":            of(func(_ *execution, i v) any { return actor(i.v.user) }),
		"authorAssociation": of(func(_ *execution, i v) any { return association(i.repo, i.v.user) }),
		"body":              of(func(_ *execution, i v) any { return plain(i.v.body) }),
		"bodyText":          of(func(_ *execution, i v) any { return plain(i.v.body) }),
		"closed":            of(func(_ *execution, i v) any { return i.v.state == stateClosed }),
		"closedAt":          of(func(_ *execution, i v) any { return maybe(i.v.closed) }),
		"comments":          commentConnection,
		"createdAt":         of(func(_ *execution, i v) any { return i.v.created }),
		"createdViaEmail":   of(func(*execution, v) any { return false }),
		"editor":            of(func(_ *execution, i v) any { return editor(i.v) }),
		"labels":            issueLabelConnection,
		"lastEditedAt":      of(func(_ *execution, i v) any { return maybe(i.v.edited) }),
		"locked":            of(func(_ *execution, i v) any { return i.v.locked }),
		"milestone":         of(milestoneOf),
		"number":            of(func(_ *execution, i v) any { return i.v.number }),
		"publishedAt":       of(func(_ *execution, i v) any { return i.v.created }),
		"repository":        of(func(_ *execution, i v) any { return i.repo.current() }),
		"title":             of(func(_ *execution, i v) any { return i.v.title }),
		"updatedAt":         of(func(_ *execution, i v) any { return i.v.updated }),
	}
}

func editor(i *issueData) any {
	if i.edited.IsZero() {
		return nil
	}
	return actor(i.user)
}

// plain is a body in GraphQL, where none is the empty text.
func plain(body *string) any {
	if body == nil {
		return ""
	}
	return *body
}

func dashless(reason string) string {
	if reason == "off-topic" {
		return "off topic"
	}
	return reason
}

func milestoneOf(_ *execution, i view[issueData]) any {
	if m := i.repo.milestones.find(i.v.milestone); m != nil {
		return m.current()
	}
	return nil
}

func issueTable() map[string]resolver {
	type v = view[issueData]
	t := sharedTable()
	t["databaseId"] = of(func(_ *execution, i v) any { return small(i.id) })
	t["fullDatabaseId"] = of(func(_ *execution, i v) any { return num(i.id) })
	t["id"] = of(func(_ *execution, i v) any { return nodeID(nodeIssue, i.repo.id, i.id) })
	t["resourcePath"] = of(func(_ *execution, i v) any { return fmt.Sprintf("/%s/issues/%d", i.repo.now.fullName(), i.v.number) })
	t["state"] = of(func(_ *execution, i v) any { return upper(i.v.state) })
	t["stateReason"] = of(func(_ *execution, i v) any { return orNull(upper(i.v.reason)) })
	t["url"] = of(func(_ *execution, i v) any { return fmt.Sprintf("%s/issues/%d", i.repo.now.html(), i.v.number) })
	return t
}

func pullTable() map[string]resolver {
	type v = view[issueData]
	page := func(i v) string { return fmt.Sprintf("%s/pull/%d", i.repo.now.html(), i.v.number) }
	t := sharedTable()
	for name, f := range map[string]func(*execution, v) any{
		"additions":           func(_ *execution, i v) any { return i.v.pull.additions },
		"autoMergeRequest":    func(*execution, v) any { return nil },
		"baseRefName":         func(_ *execution, i v) any { return i.v.pull.baseRef },
		"baseRefOid":          func(_ *execution, i v) any { return i.v.pull.baseSHA },
		"changedFiles":        func(_ *execution, i v) any { return i.v.pull.files },
		"databaseId":          func(_ *execution, i v) any { return small(i.v.pull.id) },
		"deletions":           func(_ *execution, i v) any { return i.v.pull.deletions },
		"fullDatabaseId":      func(_ *execution, i v) any { return num(i.v.pull.id) },
		"headRefName":         func(_ *execution, i v) any { return i.v.pull.headRef },
		"headRefOid":          func(_ *execution, i v) any { return i.v.pull.headSHA },
		"id":                  func(_ *execution, i v) any { return nodeID(nodePull, i.repo.id, i.v.pull.id) },
		"isCrossRepository":   func(*execution, v) any { return false },
		"isDraft":             func(_ *execution, i v) any { return i.v.pull.draft },
		"maintainerCanModify": func(_ *execution, i v) any { return i.v.pull.fork },
		"mergeCommit":         func(_ *execution, i v) any { return commitAt(i.repo, i.v.pull.mergeSHA) },
		"mergeable":           func(e *execution, i v) any { return e.q.s.mergeable(i.v, e.q.now) },
		"merged":              func(_ *execution, i v) any { return i.v.pull.merged },
		"mergedAt":            func(_ *execution, i v) any { return maybe(i.v.pull.mergedAt) },
		"mergedBy":            func(_ *execution, i v) any { return actor(i.v.pull.mergedBy) },
		"permalink":           func(_ *execution, i v) any { return page(i) },
		"resourcePath":        func(_ *execution, i v) any { return fmt.Sprintf("/%s/pull/%d", i.repo.now.fullName(), i.v.number) },
		"reviewDecision":      func(_ *execution, i v) any { return i.repo.decision(i.row) },
		"state":               func(_ *execution, i v) any { return pullState(i.v) },
		"totalCommentsCount":  func(_ *execution, i v) any { return i.v.comments + i.v.pull.lines },
		"url":                 func(_ *execution, i v) any { return page(i) },
	} {
		t[name] = of(f)
	}
	t["reviews"] = reviewConnection
	return t
}

func commitAt(r *repo, sha string) any {
	if c := r.bySHA[sha]; c != nil {
		return c.current()
	}
	return nil
}
