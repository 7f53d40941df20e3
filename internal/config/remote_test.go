package config_test

import (
	"strings"
	"testing"

	"lockstep/internal/config"
)

// A file for a node elsewhere is read for its syncs and consumers only: what this machine
// lacks for the rest hinders nothing.
func TestAFileForANodeElsewhereIsReadForItsDefinitionsOnly(t *testing.T) {
	t.Parallel()
	const text = `
listen: 0.0.0.0:7300
tokens: [{name: a, token: "${NOT_SET}", scopes: [admin]}]
consumers:
  - {name: GitHub Pull Requests, database: second, filter: "${NOT_SET:-record.a}${ALSO_NOT}"}
syncs:
  - {name: own, provider: rest, database: app, spec: "name: shop\nbase_url: http://a\n"}
`
	o := config.Options{
		Lookup: func(string) (string, bool) { return "", false }, Unset: func(name string) string { return "<" + name + ">" },
		Remote: &config.Remote{Databases: []string{"app", "second"}},
	}
	c, err := config.Parse("shop.yml", []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	if c.Consumers[0].Database != "second" || c.Consumers[0].Filter != "record.a<ALSO_NOT>" || len(c.Tokens) != 0 {
		t.Errorf("%+v", c.Consumers[0])
	}
	if s := c.Syncs[0]; s.Spec != "name: shop\nbase_url: http://a\n" || s.SpecFile != "" {
		t.Errorf("the spec in the file is read as %q of %q", s.Spec, s.SpecFile)
	}
	o.Remote = nil
	if _, err := config.Parse("shop.yml", []byte(text), o); err == nil || !strings.Contains(err.Error(), `there is no database "second"`) {
		t.Errorf("as a node's own file: %v", err)
	}
}
