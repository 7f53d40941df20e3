package github

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"time"
)

func permissions() doc {
	return doc{"metadata": "read", "contents": "read", "issues": "write", "pull_requests": "write"}
}

func (q *request) getApp() (any, *Error) {
	if !q.who.app {
		return nil, &Error{Status: http.StatusUnauthorized, Message: "A JSON web token could not be decoded"}
	}
	created := stamp(q.s.org.created)
	return doc{"id": int64(AppID), "slug": "sandbox", "client_id": AppClientID, "node_id": nodeID("A", 0, AppID), "owner": user(q.s.org), "name": "Sandbox",
		"description": "", "external_url": "https://sandbox.example", "html_url": web + "/apps/sandbox", "created_at": created, "updated_at": created,
		"permissions": permissions(), "events": []any{"issues", "pull_request"}, "installations_count": int64(1)}, nil
}

func (q *request) installation() doc {
	id := num(InstallationID)
	created := stamp(q.s.org.created)
	d := doc{"id": int64(InstallationID), "account": user(q.s.org), "repository_selection": "all", "access_tokens_url": api + "/app/installations/" + id + "/access_tokens",
		"repositories_url": api + "/installation/repositories", "html_url": web + "/organizations/" + q.s.org.login + "/settings/installations/" + id,
		"app_id": int64(AppID), "client_id": AppClientID, "app_slug": "sandbox", "target_id": q.s.org.id, "target_type": kindOrg, "permissions": permissions(),
		"events": []any{"issues", "pull_request"}, "created_at": created, "updated_at": created, "single_file_name": nil, "suspended_by": nil, "suspended_at": nil}
	if q.s.access.suspended {
		d["suspended_by"], d["suspended_at"] = user(q.s.viewer), created
	}
	return d
}

func (q *request) installations() (any, *Error) {
	if q.who.anonymous {
		return nil, &Error{Status: http.StatusUnauthorized, Message: "Requires authentication"}
	}
	var list []doc
	if !q.s.access.removed {
		list = append(list, q.installation())
	}
	out := page(q, list, func(d doc) any { return d })
	if q.who.app {
		return out, nil
	}
	return doc{"total_count": int64(len(list)), "installations": out}, nil
}

// installed checks that an App asks, for its own installation.
func (q *request) installed() *Error {
	if !q.who.app {
		return &Error{Status: http.StatusUnauthorized, Message: "A JSON web token could not be decoded"}
	}
	id := q.vars["id"]
	org := q.vars["org"] + q.vars["owner"]
	if q.s.access.removed || id != "" && id != num(InstallationID) || org != "" && fold(org) != fold(q.s.org.login) {
		return notFound()
	}
	return nil
}

func (q *request) getInstallation() (any, *Error) {
	if err := q.installed(); err != nil {
		return nil, err
	}
	return q.installation(), nil
}

// issueToken gives the installation a token.
func (q *request) issueToken() (any, *Error) {
	if err := q.installed(); err != nil {
		return nil, err
	}
	if q.s.access.suspended {
		return nil, forbidden("This installation has been suspended")
	}
	p := &principal{name: "installation:" + num(InstallationID), id: InstallationID, installation: true, expires: q.now.Add(q.s.options.TokenLife)}
	var only []any
	for _, r := range q.s.repos {
		if !q.names2(r) {
			continue
		}
		p.only = append(p.only, r.id)
		only = append(only, q.s.repository(r.current()))
	}
	if asked := len(q.names("repositories", "")) + len(q.ids()); asked != len(p.only) {
		return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "There is at least one repository that does not exist or is not accessible to the parent installation."}
	}
	granted := permissions()
	if asked, ok := q.body["permissions"].(doc); ok {
		for name, level := range asked {
			if granted[name] == nil || granted[name] == "read" && level == "write" {
				return nil, &Error{Status: http.StatusUnprocessableEntity, Message: "The permissions requested are not granted to this installation."}
			}
		}
		granted = asked
		p.read = granted["issues"] != "write" && granted["pull_requests"] != "write"
	}
	q.s.access.issued++
	d := q.s.options.Seed.Dice("token", uint64(q.s.access.issued))
	token := "ghs_" + d.Text(36)
	q.s.access.tokens[token] = p
	q.status = http.StatusCreated
	out := doc{"token": token, "expires_at": stamp(p.expires), "permissions": granted, "repository_selection": "all"}
	if only != nil {
		out["repository_selection"], out["repositories"] = "selected", only
	}
	return out, nil
}

func (q *request) ids() []any { list, _ := q.body["repository_ids"].([]any); return list }

// names2 says whether the body names a repository, by name or by id.
func (q *request) names2(r *repo) bool {
	if r.hidden || r.now.owner != q.s.org {
		return false
	}
	return slices.Contains(q.names("repositories", ""), r.now.name) || slices.Contains(q.ids(), any(float64(r.id)))
}

func (q *request) dropToken() (any, *Error) {
	if !q.who.installation {
		return nil, forbidden("You must authenticate with an installation access token in order to revoke it.")
	}
	q.who.revoked = true
	q.status = http.StatusNoContent
	return nil, nil
}

// NewAppKey makes the App a new key, as GitHub's settings do: the private key as a PEM
// file. From now on only tokens that it signed are taken.
func (s *Sandbox) NewAppKey() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", fmt.Errorf("make a key for the App: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access.key = &key.PublicKey
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})), nil
}

// RevokeToken makes a token refused until AllowToken.
func (s *Sandbox) RevokeToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.user()
	if known := s.access.tokens[token]; known != nil {
		copied := *known
		p = &copied
	}
	p.revoked = true
	s.access.tokens[token] = p
}

// AllowToken lets a token in again: for these repositories only (owner/name), or for
// all when none is named.
func (s *Sandbox) AllowToken(token string, repositories ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.user()
	for _, name := range repositories {
		if r := s.names[fold(name)]; r != nil {
			p.only = append(p.only, r.id)
		}
	}
	if p.only == nil && len(repositories) > 0 {
		p.only = []int64{0}
	}
	s.access.tokens[token] = p
}

// ExpireTokens ends all tokens that the installation was given.
func (s *Sandbox) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, p := range s.access.tokens {
		if p.installation {
			copied := *p
			copied.expires = time.Unix(1, 0)
			s.access.tokens[token] = &copied
		}
	}
}

// Hide takes a repository (owner/name) out of everybody's sight, and Show gives it back:
// lost access, which looks like a deletion. They return false when there is none.
func (s *Sandbox) Hide(repository string) bool {
	return s.see(repository, func(r *repo) { r.hidden = true })
}

// Show undoes Hide.
func (s *Sandbox) Show(repository string) bool {
	return s.see(repository, func(r *repo) { r.hidden = false })
}

func (s *Sandbox) see(repository string, change func(*repo)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.names[fold(repository)]
	if r != nil {
		change(r)
	}
	return r != nil
}

// Installation is what became of the App's installation.
type Installation string

// An installation works, is suspended (403), or was removed (404).
const (
	Installed Installation = "installed"
	Suspended Installation = "suspended"
	Removed   Installation = "removed"
)

// SetInstallation says what became of the App's installation.
func (s *Sandbox) SetInstallation(i Installation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access.suspended, s.access.removed = i == Suspended, i == Removed
}
