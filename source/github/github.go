// Package github mirrors what a GitHub token or App may see: its spec, and what only
// code can say. See README.md for collections, quotas and quirks.
package github

import (
	"embed"
	"fmt"
	"maps"

	"lockstep"
	"lockstep/source"
	"lockstep/source/rest"
)

//go:embed github.yaml
var files embed.FS

// organization is the property that names one organization's repositories; without it
// all that the credential may see are mirrored.
const organization = "organization"

// Spec returns the description of GitHub. The properties repositories and check of its
// credential are not the user's: New sets them, from organization among others.
func Spec() (*rest.Spec, error) {
	spec, err := files.ReadFile("github.yaml")
	if err != nil {
		return nil, fmt.Errorf("the spec of github: %w", err)
	}
	s, err := rest.Parse("github.yaml", spec)
	if err != nil {
		return nil, fmt.Errorf("the spec of github: %w", err)
	}
	return s, nil
}

// New returns what a credential may see as a source. The credential's properties are
// token, or app_id, installation_id and private_key; further organization (with a
// token) and webhook_secret.
func New(o rest.Options) (*rest.Source, error) {
	s, err := Spec()
	if err != nil {
		return nil, err
	}
	given := maps.Clone(o.Credential)
	if given == nil {
		given = map[string]string{}
	}
	if given["token"] == "" && given["private_key"] == "" {
		return nil, fmt.Errorf("github: the credential has neither a token nor an App's private_key: %w", lockstep.ErrInvalid)
	}
	org := given[organization]
	delete(given, organization)
	switch {
	case given["private_key"] != "":
		given["repositories"], given["check"] = "installation/repositories", "installation/repositories"
		s.Collections["repository"].List.Records = rest.Path{"repositories"}
		s.Collections["repository"].Changes.Records = rest.Path{"repositories"}
		s.Check.Account = rest.Path{"repositories", "0", "owner", "login"}
	case org != "":
		given["repositories"] = "orgs/" + org + "/repos"
	}
	o.Credential = given
	return rest.New(s, o)
}

var _ source.Source = (*rest.Source)(nil)
