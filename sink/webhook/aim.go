package webhook

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"lockstep/sink"
)

// aim is where a request goes and how, as far as changes decide.
type aim struct {
	method string
	url    *url.URL
	tail   string // what PathFor gave
	header map[string]string
}

func (a aim) equal(b aim) bool {
	return a.method == b.method && a.tail == b.tail && maps.Equal(a.header, b.header)
}

// aims says whether changes decide anything.
func (w *Webhook) aims() bool {
	return w.config.PathFor != nil || w.config.MethodFor != nil || w.config.HeadersFor != nil
}

// aimAt asks the functions of the configuration about a change. What they fail with
// stays behind the error: it may quote the record.
func (w *Webhook) aimAt(m sink.Message) (aim, error) {
	a := aim{method: w.config.Method, url: w.url}
	if w.config.MethodFor != nil {
		method, err := w.config.MethodFor(m)
		if err == nil {
			err = checkMethod(method)
		}
		if err != nil {
			return a, w.refusal(sink.Rejected, "the expression for the method gives none of POST, PUT, PATCH and DELETE for the change", err)
		}
		a.method = method
	}
	if w.config.PathFor != nil {
		tail, err := w.config.PathFor(m)
		if err == nil {
			a.url, err = below(w.url, tail)
		}
		if err != nil {
			return a, w.refusal(sink.Rejected, "the expression for the path gives no path for the change", err)
		}
		a.tail = tail
	}
	if w.config.HeadersFor != nil {
		header, err := w.config.HeadersFor(m)
		if err == nil {
			err = w.checkHeaders(header)
		}
		if err != nil {
			return a, w.refusal(sink.Rejected, "the expression for the headers gives none that may be sent with the change", err)
		}
		a.header = header
	}
	return a, nil
}

func (w *Webhook) checkHeaders(header map[string]string) error {
	scratch := map[string][]string{}
	for name, value := range header {
		if err := w.setHeader(scratch, name, value); err != nil {
			return err
		}
	}
	return nil
}

// below appends a path, and maybe a query, to the URL. What it appends comes from
// records, so it must not lead elsewhere.
func below(base *url.URL, tail string) (*url.URL, error) {
	ref, err := url.Parse("./" + strings.TrimPrefix(tail, "/")) // never a scheme or a host
	if err != nil {
		return nil, err
	}
	if ref.Scheme != "" || ref.Host != "" || ref.Fragment != "" {
		return nil, errors.New("not a path")
	}
	path := strings.TrimPrefix(ref.Path, "./")
	if slices.ContainsFunc(strings.Split(strings.ReplaceAll(path, `\`, "/"), "/"), func(s string) bool { return s == "." || s == ".." }) {
		return nil, errors.New("the path leads upwards")
	}
	u := *base
	if path != "" {
		u.RawPath = strings.TrimSuffix(base.EscapedPath(), "/") + "/" + strings.TrimPrefix(ref.EscapedPath(), "./")
		u.Path = strings.TrimSuffix(base.Path, "/") + "/" + path
	}
	if ref.RawQuery != "" && u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += ref.RawQuery
	return &u, nil
}
