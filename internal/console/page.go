package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/obs"
)

// visit is one request of a page's reader.
type visit struct {
	*Console
	w   http.ResponseWriter
	r   *http.Request
	ctx context.Context // ends with the request
	api *client.Client  // calls with the reader's token
}

// frame is what the layout shows around every page. A page's own view embeds it.
type frame struct {
	Title  string
	Nav    string // the entry of the navigation that is lit
	Live   string // where the part that changes is fetched again from; empty: it does not change
	Every  string // how often, such as 2s
	Back   string // this page's address, for forms that come back to it
	Notice *notice
	Assets string
	Bare   bool // without navigation: nobody is signed in
	Signed bool // there is a session to end
}

// framed lets a page's view be completed.
type framed interface{ around() *frame }

func (f *frame) around() *frame { return f }

// errNoPage says that there is nothing at an address.
var errNoPage = errors.New("there is no such page")

// signedIn runs a handler with the reader's client. Whether the token is good is
// the API's to say: it answers 401, and the reader signs in.
func (s *Console) signedIn(h func(*visit)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, err := s.token(r)
		if err != nil {
			token = "" // a node without tokens lets its own machine in
		}
		api, err := s.caller(token)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h(&visit{Console: s, w: w, r: r, ctx: withRemote(r), api: api})
	}
}

// page registers a page: load makes its view, the template of that name shows it.
func (s *Console) page(address, name string, load func(*visit) (framed, error)) {
	s.mux.HandleFunc("GET "+Prefix+address, s.signedIn(func(c *visit) {
		v, err := load(c)
		if err != nil {
			c.fail(err)
			return
		}
		c.show(http.StatusOK, name, v)
	}))
}

// action registers something that a button does. It returns what was done, in words,
// and the reader comes back to the page that the form was on.
func (s *Console) action(address string, do func(*visit) (string, error)) {
	s.mux.HandleFunc("POST "+Prefix+address, s.signedIn(func(c *visit) {
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, 4<<20)
		if err := c.r.ParseForm(); err != nil {
			c.fail(fmt.Errorf("the form could not be read: %w", lockstep.ErrInvalid))
			return
		}
		done, err := do(c)
		if statusOf(err) == http.StatusUnauthorized {
			c.fail(err)
			return
		}
		n := notice{Kind: "done", Text: done}
		if err != nil {
			n = notice{Kind: "failed", Text: sentence(words(err))}
		}
		c.leave(c.w, c.r, n)
		c.go_(ownPath(c.r.PostFormValue("back")))
	}))
}

// go_ sends the reader to another page of the console.
func (c *visit) go_(to string) {
	if c.r.Header.Get("HX-Request") != "" {
		c.w.Header().Set("HX-Redirect", to)
		c.w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Redirect(c.w, c.r, to, http.StatusSeeOther)
}

// show writes a page, or only the part of it that changes when that is asked for.
func (c *visit) show(status int, name string, v framed) {
	f := v.around()
	f.Assets, f.Back = c.version, c.r.URL.RequestURI()
	_, err := c.r.Cookie(cookieName)
	f.Signed = err == nil
	if c.r.Header.Get("HX-Target") == "live" {
		c.write(c.w, status, name, "live", v)
		return
	}
	f.Notice = c.collect(c.w, c.r)
	c.write(c.w, status, name, "layout", v)
}

type problemView struct {
	frame
	Status int
	Reason string
	Retry  bool // it may be there again soon
}

// fail shows what went wrong; who is not signed in is asked to.
func (c *visit) fail(err error) {
	status := statusOf(err)
	if status == http.StatusUnauthorized {
		c.go_(Prefix + "sign-in?" + url.Values{"next": {c.here()}}.Encode())
		return
	}
	if c.partly() && status < 500 {
		c.w.Header().Set("HX-Refresh", "true") // the page as a whole says what became of it
		c.w.WriteHeader(http.StatusNoContent)
		return
	}
	title := map[int]string{http.StatusNotFound: "Not here", http.StatusForbidden: "Not allowed"}[status]
	if title == "" {
		title = "That did not work"
	}
	c.show(status, "problem", &problemView{frame: frame{Title: title}, Status: status, Reason: sentence(words(err)), Retry: status >= 500})
}

// here is the page that the reader looks at, also when a part of it is asked for.
func (c *visit) here() string {
	if c.r.Method == http.MethodGet {
		return c.r.URL.RequestURI()
	}
	return ownPath(c.r.PostFormValue("back"))
}

// statusOf is the HTTP status of what went wrong; 200 for nothing.
func statusOf(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if problem, ok := errors.AsType[*client.Problem](err); ok {
		return problem.Status
	}
	switch {
	case errors.Is(err, errNoPage), errors.Is(err, lockstep.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, lockstep.ErrInvalid):
		return http.StatusUnprocessableEntity
	case errors.Is(err, lockstep.ErrUnavailable):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// write executes a template as a whole before it answers, so that a page is either
// whole or an error.
func (s *Console) write(w http.ResponseWriter, status int, page, part string, v any) {
	var out bytes.Buffer
	if err := s.pages[page].ExecuteTemplate(&out, part, v); err != nil {
		s.log.Error("a page could not be written", obs.KeyRoute, page, obs.KeyError, err)
		http.Error(w, "this page could not be written; the log of the node says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w) // a reader that has gone needs no error
}

// json answers with data for a script of the page.
func (c *visit) json(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		c.fail(err)
		return
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(text) // as above
}

// parse reads the templates: each page together with the layout and the parts that
// pages share.
func (s *Console) parse() (map[string]*template.Template, error) {
	shared, err := template.New("").Funcs(s.functions()).ParseFS(templates, "templates/layout.html", "templates/parts/*.html")
	if err != nil {
		return nil, fmt.Errorf("read the layout of the console: %w", err)
	}
	files, err := fs.Glob(templates, "templates/pages/*.html")
	if err != nil {
		return nil, fmt.Errorf("list the pages of the console: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, file := range files {
		t, err := shared.Clone()
		if err == nil {
			t, err = t.ParseFS(templates, file)
		}
		if err != nil {
			return nil, fmt.Errorf("read page %s of the console: %w", file, err)
		}
		pages[strings.TrimSuffix(path.Base(file), ".html")] = t
	}
	return pages, nil
}
