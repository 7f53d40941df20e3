package github

import (
	"net/http"
	"slices"
)

func (q *request) releases() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	list := r.releases.shown(q.now, func(v view[releaseData]) bool { return !v.v.draft || !q.who.anonymous })
	arrange(list, "desc", func(v view[releaseData]) (int64, int64) { return v.v.created.Unix(), v.id })
	return page(q, list, func(v view[releaseData]) any { return q.release(v) }), nil
}

func (q *request) oneRelease(fits func(*row[releaseData]) bool) (*row[releaseData], *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	for _, one := range slices.Backward(r.releases.rows) {
		if one.now != nil && fits(one) {
			return one, nil
		}
	}
	return nil, notFound()
}

func (q *request) byID() (*row[releaseData], *Error) {
	id := q.number("id")
	return q.oneRelease(func(r *row[releaseData]) bool { return r.id == id })
}

func (q *request) showRelease(r *row[releaseData], err *Error) (any, *Error) {
	if err != nil {
		return nil, err
	}
	return q.release(r.current()), nil
}

func (q *request) getRelease() (any, *Error) { return q.showRelease(q.byID()) }

func (q *request) latestRelease() (any, *Error) {
	return q.showRelease(q.oneRelease(func(r *row[releaseData]) bool { return !r.now.draft && !r.now.pre }))
}

func (q *request) releaseByTag() (any, *Error) {
	return q.showRelease(q.oneRelease(func(r *row[releaseData]) bool { return !r.now.draft && r.now.tag == q.vars["name"] }))
}

func (q *request) releaseFields(v *releaseData, r *repo) *Error {
	for field, at := range map[string]*string{"tag_name": &v.tag, "target_commitish": &v.target, "name": &v.name, "body": &v.body} {
		if q.has(field) {
			*at = q.str(field)
		}
	}
	for field, at := range map[string]*bool{"draft": &v.draft, "prerelease": &v.pre} {
		if q.has(field) {
			*at = q.flag(field)
		}
	}
	if v.tag == "" {
		return invalid("Release", "tag_name", "missing_field", "")
	}
	if v.target == "" {
		v.target = r.now.branch
	}
	return nil
}

func (r *repo) tagged(tag string, except *row[releaseData]) bool {
	for _, one := range r.releases.rows {
		if one != except && one.now != nil && one.now.tag == tag && !one.now.draft {
			return true
		}
	}
	return false
}

func (q *request) createRelease() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	t := q.tx()
	v := releaseData{author: t.actor}
	if err := q.releaseFields(&v, r); err != nil {
		return nil, err
	}
	if r.tagged(v.tag, nil) {
		return nil, invalid("Release", "tag_name", "already_exists", "")
	}
	q.status = http.StatusCreated
	return q.release(t.newRelease(r, v).current()), nil
}

func (t *tx) newRelease(r *repo, v releaseData) *row[releaseData] {
	v.created, v.updated = t.now, t.now
	if !v.draft {
		v.published = t.now
	}
	return r.releases.add(r, t.s.id("release"), v, t.late())
}

func (q *request) patchRelease() (any, *Error) {
	one, err := q.byID()
	if err != nil {
		return nil, err
	}
	v := *one.now
	if err := q.releaseFields(&v, one.repo); err != nil {
		return nil, err
	}
	if one.repo.tagged(v.tag, one) {
		return nil, invalid("Release", "tag_name", "already_exists", "")
	}
	q.tx().editRelease(one, v)
	return q.release(one.current()), nil
}

func (t *tx) editRelease(one *row[releaseData], v releaseData) {
	v.updated = t.now
	if !v.draft && v.published.IsZero() {
		v.published = t.now
	}
	one.put(v, t.now, t.late())
}

func (q *request) deleteRelease() (any, *Error) {
	one, err := q.byID()
	if err != nil {
		return nil, err
	}
	t := q.tx()
	one.repo.releases.remove(one, t.now, t.late())
	q.status = http.StatusNoContent
	return nil, nil
}
