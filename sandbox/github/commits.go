package github

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func commitRoutes() map[string]handler {
	const at = "/repos/{owner}/{repo}"
	return map[string]handler{
		"GET " + at + "/commits/{ref}":  (*request).getCommit,
		"GET " + at + "/compare/{ref}":  (*request).compare,
		"GET " + at + "/branches":       (*request).branches,
		"GET " + at + "/branches/{ref}": (*request).getBranch,
	}
}

// branchHeads are the branches and their newest commits: the default one and those of
// open pull requests.
func (r *repo) branchHeads() map[string]string {
	heads := map[string]string{}
	for _, i := range r.issues.rows {
		if i.now != nil && i.now.pull != nil && i.now.state == stateOpen {
			heads[i.now.pull.headRef] = i.now.pull.headSHA
		}
	}
	if r.now.head != "" {
		heads[r.now.branch] = r.now.head
	}
	return heads
}

// resolve returns the commit that a branch, a tag or a hash means, or nil.
func (r *repo) resolve(ref string) *row[commitData] {
	if ref == "" || ref == "HEAD" {
		ref = r.now.branch
	}
	if head, ok := r.branchHeads()[ref]; ok {
		ref = head
	}
	if c := r.bySHA[ref]; c != nil {
		return c
	}
	if len(ref) < 7 {
		return nil
	}
	for _, c := range slices.Backward(r.commits.rows) {
		if c.now.sha[:min(len(ref), 40)] == ref {
			return c
		}
	}
	return nil
}

// log returns the commits that lead to one, newest first, as far as lists show them.
func (r *repo) log(head *row[commitData], at time.Time) []view[commitData] {
	reached := map[string]bool{head.now.sha: true}
	var out []view[commitData]
	// Parents are always older rows than their children.
	for _, c := range slices.Backward(r.commits.rows[:head.id]) {
		if !reached[c.now.sha] {
			continue
		}
		for _, p := range c.now.parents {
			reached[p] = true
		}
		if v := c.listed(at); v != nil {
			out = append(out, view[commitData]{c, v})
		}
	}
	return out
}

func (q *request) commits() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	if r.now.head == "" {
		return nil, &Error{Status: http.StatusConflict, Message: "Git Repository is empty.", URL: docs + "/commits/commits#list-commits"}
	}
	head := r.resolve(q.query.Get("sha"))
	if head == nil {
		return nil, notFound()
	}
	since, err := q.time("since")
	if err != nil {
		return nil, err
	}
	until, err := q.time("until")
	if err != nil {
		return nil, err
	}
	author := fold(q.query.Get("author"))
	list := slices.DeleteFunc(r.log(head, q.now), func(v view[commitData]) bool {
		return v.v.committed.Before(since) || !until.IsZero() && v.v.committed.After(until) || author != "" && fold(v.v.author.login) != author && v.v.author.email != author
	})
	return page(q, list, func(v view[commitData]) any { return q.commit(v) }), nil
}

func (q *request) getCommit() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	if r.now.head == "" {
		return nil, &Error{Status: http.StatusConflict, Message: "Git Repository is empty.", URL: docs + "/commits/commits#get-a-commit"}
	}
	c := r.resolve(q.vars["ref"])
	if c == nil {
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "No commit found for SHA: " + q.vars["ref"], URL: docs + "/commits/commits#get-a-commit"}
	}
	d := q.commit(c.current())
	d["stats"] = doc{"total": c.now.additions + c.now.deletions, "additions": c.now.additions, "deletions": c.now.deletions}
	d["files"] = []any{}
	return d, nil
}

// compare says how two commits lie to each other: base...head.
func (q *request) compare() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	from, to, ok := strings.Cut(q.vars["ref"], "...")
	base, head := r.resolve(from), r.resolve(to)
	if !ok || base == nil || head == nil || from == "" {
		return nil, notFound()
	}
	ahead, behind, merge := r.log(head, q.now), r.log(base, q.now), base
	common := map[string]bool{}
	for _, c := range behind {
		common[c.v.sha] = true
	}
	for _, c := range ahead {
		if common[c.v.sha] {
			merge = c.row
			break
		}
	}
	reached := map[string]bool{}
	for _, c := range ahead {
		reached[c.v.sha] = true
	}
	ahead = slices.DeleteFunc(ahead, func(c view[commitData]) bool { return common[c.v.sha] })
	behind = slices.DeleteFunc(behind, func(c view[commitData]) bool { return reached[c.v.sha] })
	slices.Reverse(ahead)
	status := map[[2]bool]string{{false, false}: "identical", {true, false}: "ahead", {false, true}: "behind", {true, true}: "diverged"}[[2]bool{len(ahead) > 0, len(behind) > 0}]
	page1 := r.now.html() + "/compare/" + q.vars["ref"]
	return doc{"url": r.now.url() + "/compare/" + q.vars["ref"], "html_url": page1, "permalink_url": page1, "diff_url": page1 + ".diff", "patch_url": page1 + ".patch",
		"base_commit": q.commit(base.current()), "merge_base_commit": q.commit(merge.current()), "status": status, "ahead_by": int64(len(ahead)),
		"behind_by": int64(len(behind)), "total_commits": int64(len(ahead)), "commits": page(q, ahead, func(v view[commitData]) any { return q.commit(v) })}, nil
}

func (q *request) pullCommits() (any, *Error) {
	i, err := q.onePull()
	if err != nil {
		return nil, err
	}
	r, p := i.repo, i.now.pull
	var list []view[commitData]
	for _, c := range r.log(r.bySHA[p.headSHA], q.now) {
		if c.v.ref == p.headRef {
			list = append([]view[commitData]{c}, list...)
		}
	}
	return page(q, list, func(v view[commitData]) any { return q.commit(v) }), nil
}

func (q *request) branches() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	heads := r.branchHeads()
	names := make([]string, 0, len(heads))
	for name := range heads {
		names = append(names, name)
	}
	slices.Sort(names)
	return page(q, names, func(name string) any {
		return doc{"name": name, "commit": doc{"sha": heads[name], "url": r.now.url() + "/commits/" + heads[name]}, "protected": name == r.now.branch}
	}), nil
}

func (q *request) getBranch() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	head, ok := r.branchHeads()[q.vars["ref"]]
	if !ok {
		return nil, &Error{Status: http.StatusNotFound, Message: "Branch not found"}
	}
	at := r.now.url() + "/branches/" + pathEscape(q.vars["ref"])
	return doc{"name": q.vars["ref"], "commit": q.commit(r.bySHA[head].current()), "protected": q.vars["ref"] == r.now.branch,
		"_links":     doc{"self": at, "html": r.now.html() + "/tree/" + q.vars["ref"]},
		"protection": doc{"enabled": false, "required_status_checks": doc{"enforcement_level": "off", "contexts": []any{}, "checks": []any{}}}, "protection_url": at + "/protection"}, nil
}

// activity is what was pushed, newest first, by cursors.
func (q *request) activity() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	size := q.paging().size
	before, _ := strconv.ParseInt(q.query.Get("before"), 36, 64)
	after, _ := strconv.ParseInt(q.query.Get("after"), 36, 64)
	var list []activity
	for _, e := range slices.Backward(r.events) {
		if (after == 0 || e.id < after) && (before == 0 || e.id > before) {
			list = append(list, e)
		}
	}
	if before != 0 {
		list = list[max(0, len(list)-size):]
	}
	more := len(list) > size
	list = list[:min(size, len(list))]
	out := make([]any, 0, len(list))
	for _, e := range list {
		out = append(out, doc{"id": e.id, "node_id": nodeID("PSH", r.id, e.id), "before": e.before, "after": e.after, "ref": e.ref, "timestamp": stamp(e.at),
			"activity_type": e.kind, "actor": user(e.actor)})
	}
	if len(list) == 0 {
		return out, nil
	}
	link := ""
	if more {
		link = "<" + q.pageURL("after", strconv.FormatInt(list[len(list)-1].id, 36)) + `>; rel="next"`
	}
	if after != 0 {
		if link != "" {
			link += ", "
		}
		link += "<" + q.pageURL("before", strconv.FormatInt(list[0].id, 36)) + `>; rel="prev"`
	}
	if link != "" {
		q.header.Set("Link", link)
	}
	return out, nil
}
