package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
)

const hidden = "[hidden]"

// Secret is text that does not show when it is printed, logged or marshalled.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns a placeholder, or nothing when the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format prints the placeholder, whatever the verb is.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue logs the placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText marshals the placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// URL is an address that may hold a password. What is printed of it is scheme,
// user, host and path; parameters may hold secrets too and are left out.
type URL string

// Reveal returns the address with all that is in it.
func (u URL) Reveal() string { return string(u) }

// String returns the address without its secrets.
func (u URL) String() string {
	if u == "" {
		return ""
	}
	p, err := url.Parse(string(u))
	if err != nil || p.Scheme == "" || p.Opaque != "" {
		return hidden
	}
	shown := url.URL{Scheme: p.Scheme, Host: p.Host, Path: p.Path}
	// A user without a password is the whole secret where tokens are written so
	// (nats://TOKEN@host).
	_, named := p.User.Password()
	if name := p.User.Username(); name != "" && (named || p.Scheme == "postgres" || p.Scheme == "postgresql") {
		shown.User = url.User(name)
	}
	return shown.String()
}

// Format prints what String returns, whatever the verb is.
func (u URL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// LogValue logs what String returns.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText marshals what String returns.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// checkDatabaseURL says what is wrong with a Postgres address, without quoting it.
func checkDatabaseURL(text string) error {
	if strings.Contains(text, "=") && !strings.Contains(text, "://") {
		return nil // key=value form; the driver reads it
	}
	p, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("not a Postgres address")
	}
	if p.Scheme != "postgres" && p.Scheme != "postgresql" {
		return fmt.Errorf("not a Postgres address")
	}
	return nil
}

// serverOf tells Postgres servers apart: equal texts are one server.
func serverOf(u URL) string {
	p, err := url.Parse(string(u))
	if err != nil || p.Host == "" {
		return string(u)
	}
	host, port := p.Hostname(), p.Port()
	if port == "" {
		port = "5432"
	}
	return strings.ToLower(host) + ":" + port
}
