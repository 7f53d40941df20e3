package github

import (
	"fmt"
	"html"
	"strconv"
	"strings"
	"time"
)

// Addresses in records are GitHub's own, whatever address the simulator has: records are
// the same for everyone.
const (
	api = "https://api.github.com"
	web = "https://github.com"
)

func num(n int64) string { return strconv.FormatInt(n, 10) }

// simpleUser is an account as it is inside of other objects.
func (a *account) simpleUser() doc {
	u := api + "/users/" + a.login
	d := doc{
		"login": a.login, "id": a.id, "node_id": a.node(), "avatar_url": "https://avatars.githubusercontent.com/u/" + num(a.id) + "?v=4", "gravatar_id": "",
		"url": u, "html_url": web + "/" + a.login, "followers_url": u + "/followers", "following_url": u + "/following{/other_user}",
		"gists_url": u + "/gists{/gist_id}", "starred_url": u + "/starred{/owner}{/repo}", "subscriptions_url": u + "/subscriptions",
		"organizations_url": u + "/orgs", "repos_url": u + "/repos", "events_url": u + "/events{/privacy}", "received_events_url": u + "/received_events",
		"type": a.kind, "site_admin": false, "user_view_type": "public",
	}
	return d
}

func (a *account) node() string {
	if a.kind == kindOrg {
		return nodeID(nodeOrg, 0, a.id)
	}
	return nodeID(nodeUser, 0, a.id)
}

// user is an account, or null.
func user(a *account) any {
	if a == nil {
		return nil
	}
	return a.simple
}

func users(list []*account) []any {
	out := make([]any, 0, len(list))
	for _, a := range list {
		out = append(out, a.simple)
	}
	return out
}

func (q *request) fullUser(a *account) doc {
	d := a.simpleUser()
	d["name"], d["company"], d["blog"], d["location"], d["email"], d["hireable"], d["bio"], d["twitter_username"] = a.name, orNull(a.company), "", orNull(a.city), orNull(a.email), nil, nil, nil
	d["notification_email"] = nil
	public := int64(0)
	for _, r := range q.s.repos {
		if r.now.owner == a && !r.now.private {
			public++
		}
	}
	d["public_repos"], d["public_gists"], d["followers"], d["following"] = public, int64(0), a.id%37, a.id%11
	d["created_at"], d["updated_at"] = stamp(a.created), stamp(a.created)
	return d
}

func (q *request) organization() doc {
	o := q.s.org
	u := api + "/orgs/" + o.login
	public, private := int64(0), int64(0)
	for _, r := range q.s.repos {
		switch {
		case r.now.owner != o:
		case r.now.private:
			private++
		default:
			public++
		}
	}
	return doc{
		"login": o.login, "id": o.id, "node_id": o.node(), "url": u, "repos_url": u + "/repos", "events_url": u + "/events", "hooks_url": u + "/hooks",
		"issues_url": u + "/issues", "members_url": u + "/members{/member}", "public_members_url": u + "/public_members{/member}",
		"avatar_url": "https://avatars.githubusercontent.com/u/" + num(o.id) + "?v=4", "description": nil, "name": o.name, "company": "", "blog": "",
		"location": "", "email": "", "twitter_username": nil, "is_verified": false, "has_organization_projects": true, "has_repository_projects": true,
		"public_repos": public, "public_gists": int64(0), "followers": int64(3), "following": int64(0), "html_url": web + "/" + o.login, "type": kindOrg,
		"total_private_repos": private, "owned_private_repos": private, "created_at": stamp(o.created), "updated_at": stamp(o.created), "archived_at": nil,
	}
}

// repoURLs are the addresses of a repository's parts; the value follows the address.
func repoURLs() map[string]string {
	return map[string]string{
		"archive_url": "/{archive_format}{/ref}", "assignees_url": "/assignees{/user}", "blobs_url": "/git/blobs{/sha}", "branches_url": "/branches{/branch}",
		"collaborators_url": "/collaborators{/collaborator}", "comments_url": "/comments{/number}", "commits_url": "/commits{/sha}",
		"compare_url": "/compare/{base}...{head}", "contents_url": "/contents/{+path}", "contributors_url": "/contributors", "deployments_url": "/deployments",
		"downloads_url": "/downloads", "events_url": "/events", "forks_url": "/forks", "git_commits_url": "/git/commits{/sha}", "git_refs_url": "/git/refs{/sha}",
		"git_tags_url": "/git/tags{/sha}", "hooks_url": "/hooks", "issue_comment_url": "/issues/comments{/number}", "issue_events_url": "/issues/events{/number}",
		"issues_url": "/issues{/number}", "keys_url": "/keys{/key_id}", "labels_url": "/labels{/name}", "languages_url": "/languages", "merges_url": "/merges",
		"milestones_url": "/milestones{/number}", "notifications_url": "/notifications{?since,all,participating}", "pulls_url": "/pulls{/number}",
		"releases_url": "/releases{/id}", "stargazers_url": "/stargazers", "statuses_url": "/statuses/{sha}", "subscribers_url": "/subscribers",
		"subscription_url": "/subscription", "tags_url": "/tags", "teams_url": "/teams", "trees_url": "/git/trees{/sha}", "url": "",
	}
}

// url is the repository's address in the API; html its page.
func (r *repoData) url() string  { return api + "/repos/" + r.fullName() }
func (r *repoData) html() string { return web + "/" + r.fullName() }

// repository is a repository as lists show it.
func (s *Sandbox) repository(v view[repoData]) doc {
	r := v.v
	page := web + "/" + r.fullName()
	open := int64(0)
	for _, i := range v.repo.issues.rows {
		if i.now != nil && i.now.state == stateOpen {
			open++
		}
	}
	d := doc{
		"id": v.id, "node_id": nodeID(nodeRepo, 0, v.id), "name": r.name, "full_name": r.fullName(), "owner": user(r.owner), "private": r.private,
		"html_url": page, "description": orNull(r.description), "fork": false, "git_url": "git://github.com/" + r.fullName() + ".git",
		"ssh_url": "git@github.com:" + r.fullName() + ".git", "clone_url": page + ".git", "svn_url": page, "mirror_url": nil, "homepage": orNull(r.homepage),
		"language": orNull(r.language), "forks_count": r.forks, "forks": r.forks, "stargazers_count": r.stars, "watchers_count": r.stars, "watchers": r.stars,
		"size": r.size, "default_branch": r.branch, "open_issues_count": open, "open_issues": open, "is_template": false, "topics": r.topics,
		"has_issues": !r.noIssues, "has_projects": true, "has_wiki": true, "has_pages": false, "has_downloads": true, "has_discussions": false,
		"archived": r.archived, "disabled": false, "visibility": visibility(r.private), "pushed_at": stamp(r.pushed), "created_at": stamp(r.created),
		"updated_at": stamp(r.updated), "license": nil, "allow_forking": true, "web_commit_signoff_required": false,
		"permissions": doc{"admin": true, "maintain": true, "push": true, "triage": true, "pull": true},
	}
	for name, tail := range repoURLs() {
		d[name] = r.url() + tail
	}
	return d
}

func visibility(private bool) string {
	if private {
		return "private"
	}
	return "public"
}

// fullRepository is a repository as it is by itself.
func (s *Sandbox) fullRepository(v view[repoData]) doc {
	d := s.repository(v)
	d["network_count"], d["subscribers_count"], d["temp_clone_token"] = v.v.forks, int64(len(s.people)), ""
	d["allow_rebase_merge"], d["allow_squash_merge"], d["allow_merge_commit"], d["allow_auto_merge"], d["delete_branch_on_merge"], d["allow_update_branch"] = true, true, true, false, false, false
	if v.v.owner.kind == kindOrg {
		d["organization"] = user(v.v.owner)
	}
	return d
}

// prose puts a body there in the forms that were asked for.
func (q *request) prose(d doc, body any) doc {
	raw, _ := body.(string)
	switch q.media {
	case "":
		d["body"] = body
	case "text":
		d["body_text"] = raw
	case "html":
		d["body_html"] = toHTML(raw)
	default:
		d["body"], d["body_text"], d["body_html"] = body, raw, toHTML(raw)
	}
	return d
}

func toHTML(body string) string {
	if body == "" {
		return ""
	}
	return "<p dir=\"auto\">" + strings.ReplaceAll(html.EscapeString(body), "\n", "<br>\n") + "</p>"
}

func reactions(of string) doc {
	return doc{"url": of + "/reactions", "total_count": int64(0), "+1": int64(0), "-1": int64(0), "laugh": int64(0), "hooray": int64(0), "confused": int64(0),
		"heart": int64(0), "rocket": int64(0), "eyes": int64(0)}
}

// association is what somebody is to a repository.
func association(r *repo, a *account) string {
	switch {
	case a == nil:
		return "NONE"
	case a == r.now.owner:
		return "OWNER"
	case r.now.owner.kind == kindOrg && a.id%5 != 0:
		return "MEMBER"
	}
	return "CONTRIBUTOR"
}

func renderLabel(v view[labelData]) doc {
	return doc{"id": v.id, "node_id": nodeID(nodeLabel, v.repo.id, v.id), "url": v.repo.now.url() + "/labels/" + pathEscape(v.v.name), "name": v.v.name,
		"color": v.v.color, "default": v.v.standard, "description": orNull(v.v.description)}
}

func renderMilestone(v view[milestoneData]) doc {
	m, base := v.v, fmt.Sprintf("/milestones/%d", v.v.number)
	open, closed := int64(0), int64(0)
	for _, i := range v.repo.issues.rows {
		switch {
		case i.now == nil || i.now.milestone != v.id:
		case i.now.state == stateOpen:
			open++
		default:
			closed++
		}
	}
	return doc{"url": v.repo.now.url() + base, "html_url": web + "/" + v.repo.now.fullName() + fmt.Sprintf("/milestone/%d", m.number),
		"labels_url": v.repo.now.url() + base + "/labels", "id": v.id, "node_id": nodeID(nodeMilestone, v.repo.id, v.id), "number": int64(m.number),
		"title": m.title, "description": orNull(m.description), "creator": user(m.creator), "open_issues": open, "closed_issues": closed, "state": m.state,
		"created_at": stamp(m.created), "updated_at": stamp(m.updated), "due_on": stamp(m.due), "closed_at": stamp(m.closed)}
}

func (q *request) release(v view[releaseData]) doc {
	r, base := v.v, v.repo.now.url()+"/releases/"+num(v.id)
	d := doc{"url": base, "html_url": web + "/" + v.repo.now.fullName() + "/releases/tag/" + r.tag, "assets_url": base + "/assets",
		"upload_url":  "https://uploads.github.com/repos/" + v.repo.now.fullName() + "/releases/" + num(v.id) + "/assets{?name,label}",
		"tarball_url": v.repo.now.url() + "/tarball/" + r.tag, "zipball_url": v.repo.now.url() + "/zipball/" + r.tag, "id": v.id,
		"node_id": nodeID(nodeRelease, v.repo.id, v.id), "tag_name": r.tag, "target_commitish": r.target, "name": orNull(r.name), "draft": r.draft,
		"prerelease": r.pre, "immutable": false, "created_at": stamp(r.created), "updated_at": stamp(r.updated), "published_at": stamp(r.published), "author": user(r.author), "assets": []any{}}
	if r.draft {
		d["tarball_url"], d["zipball_url"] = nil, nil
	}
	return q.prose(d, orNull(r.body))
}

func (q *request) commit(v view[commitData]) doc {
	c, base := v.v, v.repo.now.url()
	parents := make([]any, 0, len(c.parents))
	for _, p := range c.parents {
		parents = append(parents, doc{"sha": p, "url": base + "/commits/" + p, "html_url": v.repo.now.html() + "/commit/" + p})
	}
	person := func(at time.Time) doc { return doc{"name": c.author.name, "email": c.author.email, "date": stamp(at)} }
	return doc{"sha": c.sha, "node_id": commitNode(v.repo.id, c.sha), "url": base + "/commits/" + c.sha, "html_url": v.repo.now.html() + "/commit/" + c.sha,
		"comments_url": base + "/commits/" + c.sha + "/comments", "author": user(c.author), "committer": user(c.author), "parents": parents,
		"commit": doc{"url": base + "/git/commits/" + c.sha, "author": person(c.authored), "committer": person(c.committed), "message": c.message,
			"tree": doc{"sha": c.tree, "url": base + "/git/trees/" + c.tree}, "comment_count": int64(0),
			"verification": doc{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil, "verified_at": nil}}}
}
