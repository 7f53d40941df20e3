package github

import (
	"iter"
	"strconv"

	"lockstep/sandbox"
)

// record is one line of the truth.
type record struct {
	id   string
	body []byte
}

// collectionNames are what the world holds, by the names of the connector's collections.
func collectionNames() []string {
	return []string{"repository", "issue", "issue_comment", "pull_request", "pull", "review", "review_comment", "commit", "label", "milestone", "release"}
}

// Collections implements sandbox.World.
func (s *Sandbox) Collections() []sandbox.Collection {
	s.mu.RLock()
	defer s.mu.RUnlock()
	counts := map[string]int{"repository": len(s.repos)}
	for _, r := range s.repos {
		for _, i := range r.issues.alive() {
			if i.v.pull == nil {
				counts["issue"]++
				continue
			}
			counts["pull"]++
			counts["pull_request"]++
		}
		counts["issue_comment"] += r.comments.count()
		counts["review"] += r.reviews.count()
		counts["review_comment"] += r.reviewComments.count()
		counts["commit"] += len(r.onBranch())
		counts["label"] += r.labels.count()
		counts["milestone"] += r.milestones.count()
		counts["release"] += r.releases.count()
	}
	list := make([]sandbox.Collection, 0, len(counts))
	for _, name := range collectionNames() {
		list = append(list, sandbox.Collection{Name: name, Count: counts[name]})
	}
	return list
}

// onBranch are the commits of the default branch.
func (r *repo) onBranch() []view[commitData] {
	head := r.bySHA[r.now.head]
	if head == nil {
		return nil
	}
	var out []view[commitData]
	for _, c := range r.log(head, farFuture()) {
		out = append([]view[commitData]{c}, out...)
	}
	return out
}

// Records implements sandbox.World: as they are at the call. Each has its repository's id
// besides, as repository_id, or repositoryId in what GraphQL shows (pull_request, review);
// issue leaves out pull requests, pull is a pull request as REST lists it.
func (s *Sandbox) Records(collection string) (iter.Seq2[string, []byte], bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	q := &request{s: s, now: farFuture(), who: &principal{account: s.viewer}}
	var all []record
	add := func(r *repo, id string, d doc) {
		d["repository_id"] = r.id
		all = append(all, record{id, sandbox.Encode(d)})
	}
	for _, r := range s.repos {
		switch collection {
		case "repository":
			d := s.repository(r.current())
			all = append(all, record{num(r.id), sandbox.Encode(d)})
		case "pull_request", "review":
			all = append(all, q.viaGraphQL(r, collection)...)
		default:
			if !q.parts(r, collection, add) {
				return nil, false
			}
		}
	}
	return func(yield func(string, []byte) bool) {
		for _, one := range all {
			if !yield(one.id, one.body) {
				return
			}
		}
	}, true
}

func each[T any](list []view[T], r *repo, add func(*repo, string, doc), render func(view[T]) doc) bool {
	for _, v := range list {
		add(r, num(v.id), render(v))
	}
	return true
}

// parts adds what a repository has of a collection.
func (q *request) parts(r *repo, collection string, add func(*repo, string, doc)) bool {
	switch collection {
	case "issue", "pull":
		for _, v := range r.issues.alive() {
			switch {
			case v.v.pull == nil && collection == "issue":
				add(r, num(v.id), q.issue(v))
			case v.v.pull != nil && collection == "pull":
				add(r, num(v.v.pull.id), q.pull(v))
			}
		}
		return true
	case "issue_comment":
		return each(r.comments.alive(), r, add, q.comment)
	case "review_comment":
		return each(r.reviewComments.alive(), r, add, q.line)
	case "label":
		return each(r.labels.alive(), r, add, renderLabel)
	case "milestone":
		return each(r.milestones.alive(), r, add, renderMilestone)
	case "release":
		return each(r.releases.alive(), r, add, q.release)
	case "commit":
		for _, v := range r.onBranch() {
			add(r, strconv.FormatInt(r.id, 10)+"-"+v.v.sha, q.commit(v))
		}
		return true
	}
	return false
}
