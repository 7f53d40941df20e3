package connect

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"lockstep/internal/suggest"
	"lockstep/source/rest"
)

// checker collects what is wrong with one definition.
type checker struct {
	d        Definition
	problems Problems
}

func (c *checker) wrong(field, message, remedy string) {
	c.problems = append(c.problems, Problem{Field: field, Message: message, Remedy: remedy})
}

// account returns the definition's account. It is of use only if nothing was wrong.
func (c *checker) account() *Account {
	a := &Account{provider: c.d.Provider, prefix: c.d.Provider, baseURL: c.d.BaseURL}
	c.address()
	if !c.provider() {
		return a
	}
	if a.spec = c.spec(); a.spec == nil {
		return a
	}
	if a.provider == Rest {
		a.prefix = a.spec.Name
	}
	a.given = c.credential(kindsOf(a.provider, a.spec))
	c.collections(a)
	return a
}

func (c *checker) provider() bool {
	name := c.d.Provider
	switch {
	case slices.Contains(Providers(), name):
		return true
	case name == "":
		c.wrong("provider", "missing", "say which API it is: "+strings.Join(Providers(), ", "))
	case slices.Contains(Later(), name):
		c.wrong("provider", fmt.Sprintf("the provider %s is not available in this version", name), "describe its API in a spec and use provider: rest, or use github or stripe")
	default:
		c.wrong("provider", fmt.Sprintf("there is no provider %q", name), suggest.Remedy(name, append(Providers(), Later()...)))
	}
	return false
}

// spec returns the API's description, or nil with its faults told.
func (c *checker) spec() *rest.Spec {
	switch {
	case c.d.Provider != Rest && c.d.Spec != "":
		c.wrong("spec", "the provider "+c.d.Provider+" has a spec of its own", "remove it, or use provider: rest")
	case c.d.Provider == Rest && strings.TrimSpace(c.d.Spec) == "":
		c.wrong("spec", "missing", "the provider rest needs a description of the API, see docs/own-api.md")
		return nil
	}
	spec, err := specOf(c.d)
	if err == nil {
		return spec
	}
	faults, ok := errors.AsType[rest.Problems](err)
	if !ok {
		c.wrong("spec", plain(err), "")
		return nil
	}
	for _, p := range faults {
		c.problems = append(c.problems, Problem{Field: "spec", Message: p.Message, Remedy: p.Remedy, Spec: &p})
	}
	return nil
}

// address checks base_url without quoting it: it may hold a password.
func (c *checker) address() {
	if c.d.BaseURL == "" {
		return
	}
	u, err := url.Parse(c.d.BaseURL)
	const remedy = "write https://host, with a path if the API has one"
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		c.wrong("base_url", "not an address of http or https", remedy)
	case u.User != nil:
		c.wrong("base_url", "the address holds a user or a password", "put it into the credential's properties")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		c.wrong("base_url", "the address holds more than host and path", remedy)
	}
}

// credential returns what the connector takes of the credential.
func (c *checker) credential(kinds []kind) map[string]string {
	k, ok := c.kind(kinds)
	if !ok {
		return nil
	}
	given := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.d.Properties)) {
		field := "credential.properties." + name
		if slices.Contains(k.ignored, name) {
			continue
		}
		p, ok := k.declared[name]
		if !ok {
			c.wrong(field, fmt.Sprintf("a credential of kind %s has no such property", k.name), unknownProperty(name, k))
			continue
		}
		given[name] = unfolded(c.d.Properties[name])
		c.value(field, given[name], p)
	}
	if k.name == GitHubApp && given["private_key"] != "" && !isRSAKey(given["private_key"]) {
		c.wrong("credential.properties.private_key", "not an RSA key in PEM without a password", "give the whole content of the .pem file that GitHub gave you")
	}
	for _, name := range slices.Sorted(maps.Keys(k.declared)) {
		if p := k.declared[name]; given[name] == "" && p.Default == "" && !p.Optional {
			c.wrong("credential.properties."+name, "missing", "give "+about(name, p))
		}
	}
	return given
}

func unknownProperty(name string, k kind) string {
	if len(k.declared) == 0 {
		return "remove it: the spec declares none"
	}
	return suggest.Remedy(name, slices.Sorted(maps.Keys(k.declared)))
}

func about(name string, p rest.Property) string {
	if p.About != "" {
		return p.About
	}
	return "the " + name
}

// value checks the form of a property without quoting it.
func (c *checker) value(field, value string, p rest.Property) {
	switch {
	case value == "":
	case p.Pattern != "" && !regexp.MustCompile(`^(?:`+p.Pattern+`)$`).MatchString(value):
		remedy := ""
		if p.About != "" {
			remedy = "it is " + p.About
		}
		c.wrong(field, "it has not the right form", remedy)
	case !strings.HasPrefix(value, "-----BEGIN") && strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		c.wrong(field, "it holds a line break or another control character, which cannot travel in a header", "remove it; it often comes with a file that was read as a whole")
	}
}

// kind returns the way to sign in.
func (c *checker) kind(kinds []kind) (kind, bool) {
	wanted := c.d.Kind
	if wanted == "" {
		wanted = apart(c.d)
	}
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		if wanted == "" || wanted == k.name {
			return k, true
		}
		names = append(names, k.name)
	}
	c.wrong("credential.kind", fmt.Sprintf("the provider %s takes no credential of kind %q", c.d.Provider, wanted), suggest.Remedy(wanted, names))
	return kind{}, false
}

// unfolded gives a PEM file its lines back, which variables of the environment often
// hold as \n.
func unfolded(value string) string {
	if !strings.HasPrefix(value, "-----BEGIN") || strings.Contains(value, "\n") {
		return value
	}
	return strings.ReplaceAll(value, `\n`, "\n")
}

func isRSAKey(text string) bool {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return false
	}
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return true
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return false
	}
	_, ok := key.(*rsa.PrivateKey)
	return ok
}

// collections reads the choice: with the prefix or without.
func (c *checker) collections(a *Account) {
	known := a.spec.CollectionNames()
	chosen := map[string]bool{}
	a.all = len(c.d.Collections) == 0
	for i, text := range c.d.Collections {
		field := fmt.Sprintf("collections[%d]", i)
		name := text
		if prefix, rest, ok := strings.Cut(text, ":"); ok {
			name = rest
			// The provider's word is understood for any spec; answers use the spec's name.
			if prefix != a.prefix && prefix != c.d.Provider {
				c.wrong(field, fmt.Sprintf("%q is not of the provider %s", text, a.prefix), fmt.Sprintf("write %s:%s, or leave what is before the colon out", a.prefix, rest))
				continue
			}
		}
		switch {
		case name == "*":
			a.all = true
		case !slices.Contains(known, name):
			c.wrong(field, fmt.Sprintf("%s has no collection %q", a.prefix, name), suggest.Remedy(name, known))
		}
		chosen[name] = true
	}
	for _, name := range known {
		if a.all || chosen[name] {
			a.names = append(a.names, name)
		}
	}
}
