package github

import (
	"maps"
	"net/http"
	"regexp"
	"strings"
)

// handlers are all routes.
func (s *Sandbox) handlers() map[string]handler {
	all := map[string]handler{}
	for _, group := range []map[string]handler{rootRoutes(), repoRoutes(), issueRoutes(), pullRoutes(), partRoutes(), commitRoutes()} {
		maps.Copy(all, group)
	}
	return all
}

func rootRoutes() map[string]handler {
	return map[string]handler{
		"GET /rate_limit":                                (*request).rateLimit,
		"GET /zen":                                       func(*request) (any, *Error) { return "Keep it logically awesome.", nil },
		"GET /user":                                      (*request).getViewer,
		"GET /user/repos":                                (*request).viewerRepos,
		"GET /user/installations":                        (*request).installations,
		"GET /users/{user}":                              (*request).getUser,
		"GET /users/{user}/repos":                        (*request).userRepos,
		"GET /orgs/{org}":                                (*request).getOrg,
		"GET /orgs/{org}/repos":                          (*request).orgRepos,
		"GET /orgs/{org}/members":                        (*request).members,
		"GET /orgs/{org}/installation":                   (*request).getInstallation,
		"GET /app":                                       (*request).getApp,
		"GET /app/installations":                         (*request).installations,
		"GET /app/installations/{id}":                    (*request).getInstallation,
		"GET /installation/repositories":                 (*request).installationRepos,
		"DELETE /installation/token":                     (*request).dropToken,
		"POST /user/repos":                               (*request).createRepo,
		"POST /orgs/{org}/repos":                         (*request).createRepo,
		"GET /repos/{owner}/{repo}/commits":              (*request).commits,
		"POST /app/installations/{id}/access_tokens":     (*request).issueToken,
		"GET /repos/{owner}/{repo}/installation":         (*request).getInstallation,
		"GET /repos/{owner}/{repo}/collaborators/{user}": (*request).isCollaborator,
	}
}

func repoRoutes() map[string]handler {
	return map[string]handler{
		"GET /repos/{owner}/{repo}":           (*request).getRepo,
		"PATCH /repos/{owner}/{repo}":         (*request).patchRepo,
		"DELETE /repos/{owner}/{repo}":        (*request).removeRepo,
		"POST /repos/{owner}/{repo}/transfer": (*request).transferRepo,
		"GET /repos/{owner}/{repo}/activity":  (*request).activity,
	}
}

func (q *request) getViewer() (any, *Error) {
	switch {
	case q.who.anonymous:
		return nil, &Error{Status: http.StatusUnauthorized, Message: "Requires authentication"}
	case q.who.account == nil:
		return nil, forbidden("Resource not accessible by integration")
	}
	return q.fullUser(q.who.account), nil
}

func (q *request) account() (*account, *Error) {
	a := q.s.accounts[fold(q.vars["user"]+q.vars["org"])]
	if a == nil || q.vars["org"] != "" && a.kind != kindOrg {
		return nil, notFound()
	}
	return a, nil
}

func (q *request) getUser() (any, *Error) {
	a, err := q.account()
	if err != nil {
		return nil, err
	}
	return q.fullUser(a), nil
}

func (q *request) getOrg() (any, *Error) {
	if _, err := q.account(); err != nil {
		return nil, err
	}
	return q.organization(), nil
}

func (q *request) members() (any, *Error) {
	if _, err := q.account(); err != nil {
		return nil, err
	}
	return page(q, q.s.people, func(a *account) any { return a.simple }), nil
}

func (q *request) isCollaborator() (any, *Error) {
	if _, err := q.repo(); err != nil {
		return nil, err
	}
	if _, err := q.account(); err != nil {
		return nil, err
	}
	q.status = http.StatusNoContent
	return nil, nil
}

// visible returns the repositories that who asks may see.
func (q *request) visible(passes func(*repoData) bool) []view[repoData] {
	var out []view[repoData]
	for _, r := range q.s.repos {
		if !q.who.sees(r) {
			continue
		}
		if v := r.listed(q.now); v != nil && (passes == nil || passes(v)) {
			out = append(out, view[repoData]{&r.row, v})
		}
	}
	return out
}

// repoList sorts repositories as all lists of them do, and cuts a page out.
func (q *request) repoList(list []view[repoData], byDefault string) (any, *Error) {
	by, err := q.choice("sort", byDefault, "created", "updated", "pushed", "full_name")
	if err != nil {
		return nil, err
	}
	down := "desc"
	if by == "full_name" {
		down = "asc"
	}
	direction, err := q.choice("direction", down, "asc", "desc")
	if err != nil {
		return nil, err
	}
	since, err := q.time("since")
	if err != nil {
		return nil, err
	}
	kept := list[:0]
	for _, v := range list {
		if !v.v.updated.Before(since) {
			kept = append(kept, v)
		}
	}
	if by == "full_name" {
		sortRepos(kept, direction)
	} else {
		arrange(kept, direction, func(v view[repoData]) (int64, int64) {
			switch by {
			case "updated":
				return v.v.updated.Unix(), v.id
			case "pushed":
				return v.v.pushed.Unix(), v.id
			}
			return v.v.created.Unix(), v.id
		})
	}
	return page(q, kept, func(v view[repoData]) any { return q.s.repository(v) }), nil
}

func (q *request) viewerRepos() (any, *Error) {
	if q.who.account == nil {
		_, err := q.getViewer()
		return nil, err
	}
	return q.repoList(q.visible(nil), "full_name")
}

func (q *request) userRepos() (any, *Error) {
	a, err := q.account()
	if err != nil {
		return nil, err
	}
	return q.repoList(q.visible(func(r *repoData) bool { return r.owner == a }), "full_name")
}

func (q *request) orgRepos() (any, *Error) {
	a, err := q.account()
	if err != nil {
		return nil, err
	}
	return q.repoList(q.visible(func(r *repoData) bool { return r.owner == a }), "created")
}

func (q *request) installationRepos() (any, *Error) {
	if !q.who.installation {
		return nil, forbidden("You must authenticate with an installation access token in order to list repositories for an installation.")
	}
	list := q.visible(nil)
	selection := "all"
	if q.who.only != nil {
		selection = "selected"
	}
	return doc{"total_count": int64(len(list)), "repository_selection": selection, "repositories": page(q, list, func(v view[repoData]) any { return q.s.repository(v) })}, nil
}

// repo returns the repository that the path names. One that is elsewhere by now is a
// redirect; one that may not be seen is not there.
func (q *request) repo() (*repo, *Error) {
	asked := fold(q.vars["owner"] + "/" + q.vars["repo"])
	r := q.s.names[asked]
	if r == nil || !q.who.sees(r) {
		return nil, notFound()
	}
	if fold(r.now.fullName()) != asked {
		parts := strings.SplitN(strings.TrimPrefix(q.path, "/"), "/", 4)
		rest := ""
		if len(parts) == 4 {
			rest = "/" + parts[3]
		}
		return nil, q.moved("/repositories/" + num(r.id) + rest)
	}
	if q.method != http.MethodGet {
		if err := q.who.refusesWrite(); err != nil {
			return nil, err
		}
		if r.now.archived && q.route.pattern != "/repos/{owner}/{repo}" {
			return nil, forbidden("Repository was archived so is read-only.")
		}
	}
	return r, nil
}

// moved is the redirect to another path.
func (q *request) moved(path string) *Error {
	status := http.StatusMovedPermanently
	if q.method != http.MethodGet {
		status = http.StatusTemporaryRedirect
	}
	if len(q.query) > 0 {
		path += "?" + q.query.Encode()
	}
	return &Error{Status: status, Message: "Moved Permanently", Location: q.base + path, URL: docs + "/guides/best-practices-for-using-the-rest-api#follow-redirects"}
}

func (q *request) getRepo() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	return q.s.fullRepository(r.current()), nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

func (q *request) createRepo() (any, *Error) {
	if err := q.who.refusesWrite(); err != nil {
		return nil, err
	}
	owner := q.who.account
	if q.vars["org"] != "" {
		a, err := q.account()
		if err != nil {
			return nil, err
		}
		owner = a
	}
	if owner == nil {
		return nil, forbidden("Resource not accessible by integration")
	}
	name := q.str("name")
	if !nameForm.MatchString(name) {
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "Repository creation failed.", Fields: []doc{{"resource": "Repository", "field": "name", "code": "missing_field"}}}
	}
	if r := q.s.names[fold(owner.login+"/"+name)]; r != nil && fold(r.now.fullName()) == fold(owner.login+"/"+name) {
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "Repository creation failed.", Fields: []doc{{"resource": "Repository", "field": "name", "code": "custom",
			"message": "name already exists on this account"}}}
	}
	t := q.tx()
	r := t.newRepo(owner, name)
	r.now.description, r.now.private = q.str("description"), q.flag("private")
	if q.flag("auto_init") {
		t.push(r, "Initial commit", t.now)
	}
	q.status = http.StatusCreated
	return q.s.fullRepository(r.current()), nil
}

func (q *request) patchRepo() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	name := r.now.name
	if q.has("name") {
		if name = q.str("name"); !nameForm.MatchString(name) {
			return nil, invalid("Repository", "name", "invalid", "")
		}
		if other := q.s.names[fold(r.now.owner.login+"/"+name)]; other != nil && other != r && fold(other.now.fullName()) == fold(r.now.owner.login+"/"+name) {
			return nil, invalid("Repository", "name", "custom", "name already exists on this account")
		}
	}
	q.tx().editRepo(r, func(v *repoData) {
		v.name = name
		for field, at := range map[string]*string{"description": &v.description, "homepage": &v.homepage, "default_branch": &v.branch} {
			if q.has(field) {
				*at = q.str(field)
			}
		}
		for field, at := range map[string]*bool{"private": &v.private, "archived": &v.archived} {
			if q.has(field) {
				*at = q.flag(field)
			}
		}
		if q.has("has_issues") {
			v.noIssues = !q.flag("has_issues")
		}
	})
	return q.s.fullRepository(r.current()), nil
}

func (q *request) removeRepo() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	q.tx().deleteRepo(r)
	q.status = http.StatusNoContent
	return nil, nil
}

func (q *request) transferRepo() (any, *Error) {
	r, err := q.repo()
	if err != nil {
		return nil, err
	}
	to := q.s.accounts[fold(q.str("new_owner"))]
	if to == nil {
		return nil, invalid("Repository", "new_owner", "invalid", "")
	}
	name := r.now.name
	if q.str("new_name") != "" {
		name = q.str("new_name")
	}
	q.tx().editRepo(r, func(v *repoData) { v.owner, v.name = to, name })
	q.status = http.StatusAccepted
	return q.s.repository(r.current()), nil
}
