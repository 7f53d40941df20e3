package github

import (
	"slices"
	"strings"
	"time"
)

// tx is one thing that happens: what it writes has one time and one actor. It is made
// and used with Sandbox.mu held, and checks before it writes: there is nothing to roll back.
type tx struct {
	s     *Sandbox
	now   time.Time // whole seconds
	actor *account
}

func (s *Sandbox) tx(at time.Time, actor *account) *tx {
	return &tx{s: s, now: at.UTC().Truncate(time.Second), actor: actor}
}

func (q *request) tx() *tx {
	actor := q.who.account
	if actor == nil {
		actor = q.s.viewer
	}
	return q.s.tx(q.now, actor)
}

// late is when lists show what changes now. It counts from the second's begin, in which
// all of the second's changes lie.
func (t *tx) late() time.Time { return t.s.late(t.now) }

func (t *tx) newAccount(kind, login, name string) *account {
	a := &account{id: t.s.id("account"), login: login, name: name, kind: kind, created: t.now}
	a.simple = a.simpleUser()
	t.s.accounts[fold(login)] = a
	return a
}

// newRepo makes a repository with its first commit and GitHub's own labels.
func (t *tx) newRepo(owner *account, name string) *repo {
	id := t.s.id("repository")
	d := t.s.options.Seed.Dice("repository", uint64(id))
	r := &repo{numbers: map[int]*row[issueData]{}, pulls: map[int64]*row[issueData]{}, moved: map[int]*row[issueData]{}, bySHA: map[string]*row[commitData]{}}
	r.row = row[repoData]{id: id, repo: r, now: &repoData{
		owner: owner, name: name, branch: "main", language: d.Pick("Go", "TypeScript", "Ruby", "Python", "Rust", ""), topics: []any{},
		created: t.now, updated: t.now, pushed: t.now, stars: int64(d.Int(900)), forks: int64(d.Int(40)), size: int64(d.Between(20, 90_000)),
	}}
	r.visible = t.late()
	t.s.repos, t.s.byID[id] = append(t.s.repos, r), r
	t.s.names[fold(r.now.fullName())] = r
	for _, l := range standardLabels() {
		t.newLabel(r, labelData{name: l[0], color: l[1], description: l[2], standard: true})
	}
	return r
}

func standardLabels() [][3]string {
	return [][3]string{
		{"bug", "d73a4a", "Something isn't working"}, {"documentation", "0075ca", "Improvements or additions to documentation"},
		{"duplicate", "cfd3d7", "This issue or pull request already exists"}, {"enhancement", "a2eeef", "New feature or request"},
		{"good first issue", "7057ff", "Good for newcomers"}, {"help wanted", "008672", "Extra attention is needed"},
		{"invalid", "e4e669", "This doesn't seem right"}, {"question", "d876e3", "Further information is requested"}, {"wontfix", "ffffff", "This will not be worked on"},
	}
}

// editRepo changes a repository. A new name or owner leaves the old name as a redirect.
func (t *tx) editRepo(r *repo, edit func(*repoData)) {
	v := *r.now
	edit(&v)
	v.updated = t.now
	r.put(v, t.now, t.late())
	t.s.names[fold(v.fullName())] = r
}

func (t *tx) deleteRepo(r *repo) {
	for name, one := range t.s.names {
		if one == r {
			delete(t.s.names, name)
		}
	}
	delete(t.s.byID, r.id)
	t.s.repos = slices.DeleteFunc(t.s.repos, func(x *repo) bool { return x == r })
	r.now = nil
}

func (t *tx) newLabel(r *repo, l labelData) *row[labelData] {
	l.created, l.updated = t.now, t.now
	return r.labels.add(r, t.s.id("label"), l, t.late())
}

// dropLabel deletes a label, from the issues that have it as well: they are not updated
// by it, as they are not by GitHub.
func (t *tx) dropLabel(r *repo, l *row[labelData]) {
	for _, i := range r.issues.alive() {
		if slices.Contains(i.v.labels, l.id) {
			v := *i.v
			v.labels = slices.DeleteFunc(slices.Clone(v.labels), func(id int64) bool { return id == l.id })
			i.put(v, t.now, t.late())
		}
	}
	r.labels.remove(l, t.now, t.late())
}

// openIssue makes an issue; what it says about pull requests makes it one's.
func (t *tx) openIssue(r *repo, i issueData) *row[issueData] {
	r.last++
	i.number, i.state, i.created, i.updated = r.last, stateOpen, t.now, t.now
	visible := t.late()
	one := r.issues.add(r, t.s.id("issue"), i, visible)
	r.numbers[i.number] = one
	if i.pull != nil {
		r.pulls[i.pull.id] = one
	}
	return one
}

// edit changes an issue or pull request, which is updated by it.
func (t *tx) edit(i *row[issueData], change func(*issueData)) {
	v := *i.now
	if v.pull != nil {
		p := *v.pull
		v.pull = &p
	}
	change(&v)
	v.updated = t.now
	i.put(v, t.now, t.late())
}

func (t *tx) setState(i *row[issueData], state, reason string) {
	t.edit(i, func(v *issueData) {
		v.state, v.reason, v.closed, v.closedBy = state, reason, time.Time{}, nil
		if v.pull != nil {
			v.reason = ""
		}
		if state == stateClosed {
			v.closed, v.closedBy = t.now, t.actor
		}
	})
}

// deleteIssue deletes an issue with its comments. Pull requests cannot be deleted.
func (t *tx) deleteIssue(i *row[issueData]) {
	r, number := i.repo, i.now.number
	for _, c := range r.comments.alive() {
		if c.v.number == number {
			r.comments.remove(c.row, t.now, t.late())
		}
	}
	r.issues.remove(i, t.now, t.late())
}

// transferIssue moves an issue to another repository of the same owner, where it has
// another number and another id. Labels of the same name and the comments go with it.
func (t *tx) transferIssue(i *row[issueData], to *repo) *row[issueData] {
	from, old := i.repo, *i.now
	v := old
	v.labels, v.milestone = nil, 0
	for _, id := range old.labels {
		l := from.labels.find(id)
		for _, other := range to.labels.alive() {
			if l != nil && other.v.name == l.now.name {
				v.labels = append(v.labels, other.id)
			}
		}
	}
	made := t.openIssue(to, v)
	t.edit(made, func(d *issueData) { d.created, d.state, d.comments = old.created, old.state, old.comments })
	for _, c := range from.comments.alive() {
		if c.v.number == old.number {
			moved := *c.v
			moved.number = made.now.number
			to.comments.add(to, t.s.id("comment"), moved, t.late())
		}
	}
	t.deleteIssue(i)
	from.moved[old.number] = made
	return made
}

func (t *tx) comment(i *row[issueData], body string) *row[commentData] {
	c := i.repo.comments.add(i.repo, t.s.id("comment"), commentData{number: i.now.number, onPull: i.now.pull != nil, user: t.actor, body: body, created: t.now, updated: t.now}, t.late())
	t.edit(i, func(v *issueData) { v.comments++ })
	return c
}

func (t *tx) editComment(c *row[commentData], body string) {
	v := *c.now
	v.body, v.updated = body, t.now
	c.put(v, t.now, t.late())
}

func (t *tx) dropComment(c *row[commentData]) {
	r, number := c.repo, c.now.number
	r.comments.remove(c, t.now, t.late())
	if i := r.numbers[number]; i != nil && i.now != nil {
		t.edit(i, func(v *issueData) { v.comments-- })
	}
}

// commit makes a commit; on the default branch it becomes its head.
func (t *tx) commit(r *repo, message, ref string, parents []string, authored time.Time) *row[commitData] {
	d := t.s.options.Seed.Dice("commit "+num(r.id), uint64(len(r.commits.rows)))
	c := commitData{sha: sha(&d), tree: sha(&d), message: message, parents: parents, author: t.actor, authored: authored, committed: authored, ref: ref,
		additions: int64(d.Between(1, 300)), deletions: int64(d.Int(120))}
	one := r.commits.add(r, int64(len(r.commits.rows)+1), c, t.late())
	r.bySHA[c.sha] = one
	if ref == r.now.branch {
		before := r.now.head
		v := *r.now
		v.head, v.pushed, v.updated = c.sha, t.now, t.now
		r.put(v, t.now, t.late())
		t.happened(r, "push", ref, before, c.sha)
	}
	return one
}

// push makes a commit on the default branch.
func (t *tx) push(r *repo, message string, authored time.Time) *row[commitData] {
	var parents []string
	if r.now.head != "" {
		parents = []string{r.now.head}
	}
	return t.commit(r, message, r.now.branch, parents, authored)
}

func (t *tx) happened(r *repo, kind, ref, before, after string) {
	if before == "" {
		before = strings.Repeat("0", 40)
	}
	r.events = append(r.events, activity{id: t.s.id("activity"), kind: kind, ref: "refs/heads/" + ref, before: before, after: after, at: t.now, actor: t.actor})
}
