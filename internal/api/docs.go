package api

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"

	"lockstep/internal/auth"
)

// The pages hold no address of any other server: they work without a network, and
// under a policy that lets them load from this node only.
//
//go:embed docs
var docsFiles embed.FS

const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// docsRoutes serves the description of the API and the page to try it with. It must
// come after all other routes.
func (a *API) docsRoutes() error {
	document, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	open := func(at string) Route {
		return Route{Method: http.MethodGet, Path: at, Need: auth.NeedNothing, Hidden: true}
	}
	a.plain(open("/openapi.json"), about{}, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document) // a caller that has gone needs no error
	})
	for at, file := range map[string]string{"/docs": "docs/docs.html", "/docs/docs.css": "docs/docs.css", "/docs/docs.js": "docs/docs.js"} {
		content, err := docsFiles.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read an embedded page: %w", err)
		}
		kind := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript"}[path.Ext(file)]
		a.plain(open(at), about{}, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			w.Header().Set("Content-Security-Policy", docsPolicy)
			_, _ = w.Write(content) // as above
		})
	}
	return nil
}

// pathParams returns the names in the braces of a route's path.
func pathParams(pattern string) []string {
	var out []string
	for part := range strings.SplitSeq(pattern, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			out = append(out, strings.TrimSuffix(name, "}"))
		}
	}
	return out
}
