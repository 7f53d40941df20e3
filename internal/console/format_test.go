package console

import (
	"html/template"
	"strings"
	"testing"
)

// What stands in the query of an address is escaped once: a table with any name is found
// by its link.
func TestTextInAQueryIsEscapedOnce(t *testing.T) {
	t.Parallel()
	page := template.Must(template.New("").Funcs((&Console{}).functions()).Parse(`<a href="/console/stream?tables={{query .}}">`))
	var out strings.Builder
	if err := page.Execute(&out, `public."a b&c=d#%2F'<é`); err != nil {
		t.Fatal(err)
	}
	if want := `<a href="/console/stream?tables=public.%22a&#43;b%26c%3Dd%23%252F%27%3C%C3%A9">`; strings.ReplaceAll(out.String(), "+", "&#43;") != want {
		t.Errorf("the link is %s, want %s", out.String(), want)
	}
}

// Every page's template can be read.
func TestTemplatesAreRead(t *testing.T) {
	t.Parallel()
	pages, err := (&Console{}).parse()
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 20 {
		t.Errorf("%d pages were read", len(pages))
	}
}
