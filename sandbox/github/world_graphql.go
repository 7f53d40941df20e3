package github

import (
	"time"

	"lockstep/sandbox"
)

// farFuture is when everything is visible.
func farFuture() time.Time { return time.Unix(1<<40, 0) }

// The fields of the truth in GraphQL's names: what the connector asks for.
const (
	pullSelection = `{
  activeLockReason additions assignees(first: 20) { nodes { login } } author { login } authorAssociation autoMergeRequest { enabledAt }
  baseRefName baseRefOid body changedFiles closed closedAt createdAt databaseId deletions fullDatabaseId headRefName headRefOid id
  isCrossRepository isDraft labels(first: 100) { nodes { name } } lastEditedAt locked maintainerCanModify mergeCommit { oid } mergeable
  merged mergedAt mergedBy { login } milestone { number title } number permalink publishedAt reviewDecision state title
  totalCommentsCount updatedAt url
}`
	reviewSelection = `{
  author { login } authorAssociation body commit { oid } createdAt fullDatabaseId id pullRequest { fullDatabaseId number } state submittedAt updatedAt url
}`
)

// viaGraphQL renders what a repository has of a collection as GraphQL shows it.
func (q *request) viaGraphQL(r *repo, collection string) []record {
	selection, on := pullSelection, "PullRequest"
	if collection == "review" {
		selection, on = reviewSelection, "PullRequestReview"
	}
	parsed, _ := parseQuery(selection)
	c := &checker{s: q.s.schema, d: parsed, vars: doc{}}
	plan := c.selections(parsed.operations[0].selections, on, []any{"query"}, 1)
	e := &execution{q: q}
	var out []record
	put := func(v any, id int64) {
		d := e.object(on, v, plan, nil)
		d["repositoryId"] = r.id
		out = append(out, record{num(id), sandbox.Encode(d)})
	}
	if collection == "review" {
		for _, v := range r.reviews.alive() {
			if v.v.state != pending {
				put(v, v.id)
			}
		}
		return out
	}
	for _, v := range r.issues.alive() {
		if v.v.pull != nil {
			put(v, v.v.pull.id)
		}
	}
	return out
}
