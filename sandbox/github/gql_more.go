package github

import "fmt"

func commentConnection(e *execution, v any, args doc) any {
	i := v.(view[issueData])
	return connect(i.repo.comments.shown(e.q.now, func(c view[commentData]) bool { return c.v.number == i.v.number }), args,
		func(c view[commentData]) place {
			if ordered(args) == "UPDATED_AT" {
				return place{second(c.v.updated), c.id}
			}
			return place{second(c.v.created), c.id}
		})
}

func issueLabelConnection(_ *execution, v any, args doc) any {
	i := v.(view[issueData])
	var list []view[labelData]
	for _, id := range i.v.labels {
		if l := i.repo.labels.find(id); l != nil {
			list = append(list, l.current())
		}
	}
	return connect(list, args, labelPlace(args))
}

func labelPlace(args doc) func(view[labelData]) place {
	return func(l view[labelData]) place {
		if ordered(args) == "NAME" {
			return place{fold(l.v.name), l.id}
		}
		return place{second(l.v.created), l.id}
	}
}

func labelConnection(e *execution, v any, args doc) any {
	return connect(v.(view[repoData]).repo.labels.shown(e.q.now, nil), args, labelPlace(args))
}

func milestoneConnection(e *execution, v any, args doc) any {
	list := v.(view[repoData]).repo.milestones.shown(e.q.now, func(m view[milestoneData]) bool { return has(args["states"], upper(m.v.state)) })
	return connect(list, args, func(m view[milestoneData]) place {
		switch ordered(args) {
		case "UPDATED_AT":
			return place{second(m.v.updated), m.id}
		case "DUE_DATE":
			return place{second(m.v.due), m.id}
		case "NUMBER":
			return place{fmt.Sprintf("%09d", m.v.number), m.id}
		}
		return place{second(m.v.created), m.id}
	})
}

func releaseConnection(e *execution, v any, args doc) any {
	return connect(v.(view[repoData]).repo.releases.shown(e.q.now, nil), args, func(r view[releaseData]) place {
		if ordered(args) == "NAME" {
			return place{r.v.name, r.id}
		}
		return place{second(r.v.created), r.id}
	})
}

func reviewConnection(e *execution, v any, args doc) any {
	i := v.(view[issueData])
	list := i.repo.reviews.shown(e.q.now, func(w view[reviewData]) bool {
		return w.v.issue == i.row && has(args["states"], w.v.state) && (w.v.state != pending || w.v.user == e.q.who.account)
	})
	return connect(list, args, func(w view[reviewData]) place { return place{second(w.v.created), w.id} })
}

func lineConnection(e *execution, v any, args doc) any {
	w := v.(view[reviewData])
	list := w.repo.reviewComments.shown(e.q.now, func(c view[lineData]) bool { return c.v.review == w.id })
	return connect(list, args, func(c view[lineData]) place { return place{second(c.v.created), c.id} })
}

func historyConnection(e *execution, v any, args doc) any {
	c := v.(view[commitData])
	// Newest first, whatever the times say.
	return connect(c.repo.log(c.row, e.q.now), args, func(c view[commitData]) place { return place{"", -c.id} })
}

func reviewTable() map[string]resolver {
	type v = view[reviewData]
	return map[string]resolver{
		"author":            of(func(_ *execution, w v) any { return actor(w.v.user) }),
		"authorAssociation": of(func(_ *execution, w v) any { return association(w.repo, w.v.user) }),
		"body":              of(func(_ *execution, w v) any { return w.v.body }),
		"bodyText":          of(func(_ *execution, w v) any { return w.v.body }),
		"comments":          lineConnection,
		"commit":            of(func(_ *execution, w v) any { return commitAt(w.repo, w.v.commit) }),
		"createdAt":         of(func(_ *execution, w v) any { return w.v.created }),
		"databaseId":        of(func(_ *execution, w v) any { return small(w.id) }),
		"fullDatabaseId":    of(func(_ *execution, w v) any { return num(w.id) }),
		"id":                of(func(_ *execution, w v) any { return nodeID(nodeReview, w.repo.id, w.id) }),
		"lastEditedAt":      of(func(*execution, v) any { return nil }),
		"pullRequest":       of(func(_ *execution, w v) any { return w.v.issue.current() }),
		"repository":        of(func(_ *execution, w v) any { return w.repo.current() }),
		"state":             of(func(_ *execution, w v) any { return w.v.state }),
		"submittedAt":       of(func(_ *execution, w v) any { return maybe(w.v.submitted) }),
		"updatedAt":         of(func(_ *execution, w v) any { return w.v.updated }),
		"url": of(func(_ *execution, w v) any {
			return fmt.Sprintf("%s/pull/%d#pullrequestreview-%d", w.repo.now.html(), w.v.issue.now.number, w.id)
		}),
	}
}

func lineTable() map[string]resolver {
	type v = view[lineData]
	other := func(t *table[lineData], id int64) any {
		if c := t.find(id); c != nil {
			return c.current()
		}
		return nil
	}
	return map[string]resolver{
		"author":            of(func(_ *execution, c v) any { return actor(c.v.user) }),
		"authorAssociation": of(func(_ *execution, c v) any { return association(c.repo, c.v.user) }),
		"body":              of(func(_ *execution, c v) any { return c.v.body }),
		"createdAt":         of(func(_ *execution, c v) any { return c.v.created }),
		"databaseId":        of(func(_ *execution, c v) any { return small(c.id) }),
		"diffHunk":          of(func(_ *execution, c v) any { return c.v.hunk }),
		"fullDatabaseId":    of(func(_ *execution, c v) any { return num(c.id) }),
		"id":                of(func(_ *execution, c v) any { return nodeID(nodeLine, c.repo.id, c.id) }),
		"line":              of(func(_ *execution, c v) any { return c.v.line }),
		"path":              of(func(_ *execution, c v) any { return c.v.path }),
		"pullRequest":       of(func(_ *execution, c v) any { return c.v.issue.current() }),
		"pullRequestReview": of(func(_ *execution, c v) any {
			if w := c.repo.reviews.find(c.v.review); w != nil {
				return w.current()
			}
			return nil
		}),
		"replyTo":   of(func(_ *execution, c v) any { return other(&c.repo.reviewComments, c.v.reply) }),
		"updatedAt": of(func(_ *execution, c v) any { return c.v.updated }),
		"url": of(func(_ *execution, c v) any {
			return fmt.Sprintf("%s/pull/%d#discussion_r%d", c.repo.now.html(), c.v.issue.now.number, c.id)
		}),
	}
}

func commentTable() map[string]resolver {
	type v = view[commentData]
	on := func(c v) any {
		if i := c.repo.numbers[c.v.number]; i != nil && i.now != nil {
			return i.current()
		}
		return nil
	}
	return map[string]resolver{
		"author":            of(func(_ *execution, c v) any { return actor(c.v.user) }),
		"authorAssociation": of(func(_ *execution, c v) any { return association(c.repo, c.v.user) }),
		"body":              of(func(_ *execution, c v) any { return c.v.body }),
		"createdAt":         of(func(_ *execution, c v) any { return c.v.created }),
		"databaseId":        of(func(_ *execution, c v) any { return small(c.id) }),
		"fullDatabaseId":    of(func(_ *execution, c v) any { return num(c.id) }),
		"id":                of(func(_ *execution, c v) any { return nodeID(nodeComment, c.repo.id, c.id) }),
		"issue":             of(func(_ *execution, c v) any { return on(c) }),
		"pullRequest": of(func(_ *execution, c v) any {
			if !c.v.onPull {
				return nil
			}
			return on(c)
		}),
		"repository": of(func(_ *execution, c v) any { return c.repo.current() }),
		"updatedAt":  of(func(_ *execution, c v) any { return c.v.updated }),
		"url": of(func(_ *execution, c v) any {
			kind := "issues"
			if c.v.onPull {
				kind = "pull"
			}
			return fmt.Sprintf("%s/%s/%d#issuecomment-%d", c.repo.now.html(), kind, c.v.number, c.id)
		}),
	}
}

func labelTable() map[string]resolver {
	type v = view[labelData]
	return map[string]resolver{
		"color":       of(func(_ *execution, l v) any { return l.v.color }),
		"createdAt":   of(func(_ *execution, l v) any { return l.v.created }),
		"description": of(func(_ *execution, l v) any { return orNull(l.v.description) }),
		"id":          of(func(_ *execution, l v) any { return nodeID(nodeLabel, l.repo.id, l.id) }),
		"isDefault":   of(func(_ *execution, l v) any { return l.v.standard }),
		"name":        of(func(_ *execution, l v) any { return l.v.name }),
		"repository":  of(func(_ *execution, l v) any { return l.repo.current() }),
		"updatedAt":   of(func(_ *execution, l v) any { return maybe(l.v.updated) }),
		"url":         of(func(_ *execution, l v) any { return l.repo.now.html() + "/labels/" + pathEscape(l.v.name) }),
	}
}

func milestoneTable() map[string]resolver {
	type v = view[milestoneData]
	return map[string]resolver{
		"closed":      of(func(_ *execution, m v) any { return m.v.state == stateClosed }),
		"closedAt":    of(func(_ *execution, m v) any { return maybe(m.v.closed) }),
		"createdAt":   of(func(_ *execution, m v) any { return m.v.created }),
		"creator":     of(func(_ *execution, m v) any { return actor(m.v.creator) }),
		"description": of(func(_ *execution, m v) any { return orNull(m.v.description) }),
		"dueOn":       of(func(_ *execution, m v) any { return maybe(m.v.due) }),
		"id":          of(func(_ *execution, m v) any { return nodeID(nodeMilestone, m.repo.id, m.id) }),
		"number":      of(func(_ *execution, m v) any { return m.v.number }),
		"repository":  of(func(_ *execution, m v) any { return m.repo.current() }),
		"state":       of(func(_ *execution, m v) any { return upper(m.v.state) }),
		"title":       of(func(_ *execution, m v) any { return m.v.title }),
		"updatedAt":   of(func(_ *execution, m v) any { return m.v.updated }),
		"url":         of(func(_ *execution, m v) any { return fmt.Sprintf("%s/milestone/%d", m.repo.now.html(), m.v.number) }),
	}
}

func releaseTable() map[string]resolver {
	type v = view[releaseData]
	return map[string]resolver{
		"author":       of(func(_ *execution, r v) any { return actor(r.v.author) }),
		"createdAt":    of(func(_ *execution, r v) any { return r.v.created }),
		"databaseId":   of(func(_ *execution, r v) any { return small(r.id) }),
		"description":  of(func(_ *execution, r v) any { return orNull(r.v.body) }),
		"id":           of(func(_ *execution, r v) any { return nodeID(nodeRelease, r.repo.id, r.id) }),
		"isDraft":      of(func(_ *execution, r v) any { return r.v.draft }),
		"isPrerelease": of(func(_ *execution, r v) any { return r.v.pre }),
		"name":         of(func(_ *execution, r v) any { return orNull(r.v.name) }),
		"publishedAt":  of(func(_ *execution, r v) any { return maybe(r.v.published) }),
		"repository":   of(func(_ *execution, r v) any { return r.repo.current() }),
		"tagName":      of(func(_ *execution, r v) any { return r.v.tag }),
		"updatedAt":    of(func(_ *execution, r v) any { return r.v.updated }),
		"url":          of(func(_ *execution, r v) any { return r.repo.now.html() + "/releases/tag/" + r.v.tag }),
	}
}

func commitTable() map[string]resolver {
	type v = view[commitData]
	page := func(c v) string { return c.repo.now.html() + "/commit/" + c.v.sha }
	return map[string]resolver{
		"additions": of(func(_ *execution, c v) any { return c.v.additions }),
		"author": of(func(_ *execution, c v) any {
			return doc{"name": c.v.author.name, "email": c.v.author.email, "date": stamp(c.v.authored), "user": c.v.author}
		}),
		"authoredDate":  of(func(_ *execution, c v) any { return c.v.authored }),
		"commitUrl":     of(func(_ *execution, c v) any { return page(c) }),
		"committedDate": of(func(_ *execution, c v) any { return c.v.committed }),
		"deletions":     of(func(_ *execution, c v) any { return c.v.deletions }),
		"history":       historyConnection,
		"id":            of(func(_ *execution, c v) any { return commitNode(c.repo.id, c.v.sha) }),
		"message":       of(func(_ *execution, c v) any { return c.v.message }),
		"oid":           of(func(_ *execution, c v) any { return c.v.sha }),
		"repository":    of(func(_ *execution, c v) any { return c.repo.current() }),
		"url":           of(func(_ *execution, c v) any { return page(c) }),
	}
}
