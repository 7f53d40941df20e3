package webhook

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"lockstep"
)

// configure checks the configuration and fills in the defaults.
func (w *Webhook) configure() error {
	c := &w.config
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxBody == 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.Kept == 0 {
		c.Kept = DefaultKept
	}
	if c.Format == "" {
		c.Format = Lockstep
	}
	if c.Method == "" {
		c.Method = http.MethodPost
	}
	var wrong []error
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if c.Timeout < 0 || c.MaxBody < 0 {
		note("timeout and the largest body must not be negative")
	}
	if !slices.Contains([]Format{Lockstep, CloudEvents, CloudEventsStructured, CloudEventsBatch, Plain}, c.Format) {
		note("format %q is not known: use lockstep, cloudevents, cloudevents-structured, cloudevents-batch or plain", c.Format)
	}
	if err := checkMethod(c.Method); err != nil {
		note("%w", err)
	}
	if c.Format == Plain && len(c.Secrets) > 0 {
		note("format plain is not signed: leave the secrets out, or use format lockstep")
	}
	if _, err := url.Parse(c.Source); err != nil {
		note("the source of CloudEvents must be a URI reference")
	}
	wrong = append(wrong, w.configureURL(), w.configureHeaders(), w.configureSecrets(), w.configureHandshake())
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("webhook: %w: %w", lockstep.ErrInvalid, err)
	}
	return nil
}

// configureURL says nothing of the URL but its scheme and host: its path and query are
// often a secret.
func (w *Webhook) configureURL() error {
	u, err := url.Parse(w.config.URL)
	switch {
	case err != nil:
		return errors.New("the URL cannot be read: expected https://host/path")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("the URL begins with %q: expected https://", u.Scheme)
	case u.Hostname() == "":
		return errors.New("the URL names no host: expected https://host/path")
	case u.User != nil:
		return errors.New("the URL holds user information: send it as a header instead, Authorization: Basic …")
	case u.Fragment != "":
		return errors.New("the URL has a fragment (#…), which is never sent: leave it out")
	}
	w.url, w.name = u, u.Host
	address, err := netip.ParseAddr(u.Hostname())
	if err != nil || w.config.AllowPrivate || w.config.Transport != nil {
		return nil // a name is judged when it is dialled
	}
	if reason := refusal(address); reason != "" {
		return fmt.Errorf("the URL's address is %s: only public addresses are allowed, unless allow_private is set", reason)
	}
	return nil
}

func (w *Webhook) configureHeaders() error {
	w.header = http.Header{}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(w.config.Headers)) {
		if err := w.setHeader(w.header, name, w.config.Headers[name]); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// setHeader sets a user's header. Errors name the header, and never its value.
func (w *Webhook) setHeader(to http.Header, name, value string) error {
	canonical := http.CanonicalHeaderKey(name)
	lower := strings.ToLower(name)
	switch {
	case !isToken(name):
		return fmt.Errorf("header %q: this is no name of a header", name)
	case w.reserved(lower):
		return fmt.Errorf("header %s is set by Lockstep or by HTTP itself", canonical)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return fmt.Errorf("header %s: the value has a line break or another control character", canonical)
	}
	to.Set(canonical, value)
	return nil
}

func (w *Webhook) reserved(lower string) bool {
	switch lower {
	case "host", "content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "proxy-connection",
		"te", "trailer", "upgrade", "expect":
		return true
	case "content-type":
		return w.config.Format != Plain
	}
	return strings.HasPrefix(lower, "lockstep-") || strings.HasPrefix(lower, "webhook-") || strings.HasPrefix(lower, "ce-")
}

func checkMethod(method string) error {
	if slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, method) {
		return nil
	}
	return fmt.Errorf("method %q is not allowed: use POST, PUT, PATCH or DELETE", method)
}

// isToken says whether s is a token of RFC 9110.
func isToken(s string) bool {
	const signs = "!#$%&'*+-.^_`|~"
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(signs, r)
	})
}
