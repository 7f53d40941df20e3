package nats

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"lockstep"
	"lockstep/sink"
)

const (
	rowSubject        = "lockstep.{name}.{schema}.{table}.{action}"
	collectionSubject = "lockstep.{name}.{provider}.{collection}.{outcome}"
)

// configure checks the configuration, fills in the defaults, and returns the server's
// name for errors.
func configure(c *Config) (name string, err error) {
	var wrong []error
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	c.Stream = or(c.Stream, "lockstep-{name}")
	c.Create = or(c.Create, Missing)
	c.Storage = or(c.Storage, File)
	c.Window = or(c.Window, DefaultWindow)
	c.AckTimeout = or(c.AckTimeout, DefaultAckTimeout)
	c.ConnectTimeout = or(c.ConnectTimeout, DefaultConnectTimeout)
	c.Duplicates = or(c.Duplicates, DefaultDuplicates)
	c.Replicas = or(c.Replicas, 1)
	if c.Create != Missing && c.Create != Never {
		note("create: %q is not known: use missing or never", c.Create)
	}
	if c.Storage != File && c.Storage != Memory {
		note("storage: %q is not known: use file or memory", c.Storage)
	}
	if c.Window < 0 || c.AckTimeout < 0 || c.ConnectTimeout < 0 || c.Duplicates < 0 || c.Age < 0 || c.Bytes < 0 || c.Replicas < 0 {
		note("window, times, bytes and replicas must not be negative")
	}
	if c.SubjectFor != nil && c.Create == Missing && len(c.Subjects) == 0 {
		note("subjects: name those of the stream, or set create: never, where an expression makes the subject")
	}
	if strings.ContainsAny(c.Subject, " \t\r\n*>") || strings.Contains(c.Subject, "..") {
		note("subject: expected tokens with dots between, without spaces and wildcards")
	}
	if (c.User != "") != (c.Password != "") {
		note("user and password: one needs the other")
	}
	name, err = hostsOf(c)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return "", fmt.Errorf("nats: %w: %w", lockstep.ErrInvalid, err)
	}
	return name, nil
}

// hostsOf returns the hosts of the URL. Nothing else of it is said: it may hold a
// password.
func hostsOf(c *Config) (string, error) {
	if c.Server != nil {
		return "in this process", nil
	}
	if strings.TrimSpace(c.URL) == "" {
		return "", errors.New("url: say where the server is: nats://host:4222")
	}
	var hosts []string
	for one := range strings.SplitSeq(c.URL, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Host == "" {
			return "", errors.New("url: cannot be read: expected nats://host:4222")
		}
		hosts = append(hosts, u.Host)
	}
	return strings.Join(hosts, ","), nil
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Token makes one token of a subject of any name: what has a meaning there (dots,
// wildcards, spaces, and = itself) becomes = and two hex digits, and nothing at all
// becomes _. Different names stay different.
func Token(name string) string {
	if name == "" {
		return "_"
	}
	if name != "_" && !strings.ContainsFunc(name, special) {
		return name
	}
	var b strings.Builder
	for _, r := range name {
		if special(r) || name == "_" {
			fmt.Fprintf(&b, "=%02X", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func special(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`.*>=/\`, r) }

// put fills in a template.
func (n *NATS) put(template string, m *sink.Message) string {
	_, collection, found := strings.Cut(m.Collection, ":")
	if !found {
		collection = m.Collection
	}
	outcome := "upserted"
	if m.Action == lockstep.Delete {
		outcome = "deleted"
	}
	return strings.NewReplacer(
		"{name}", Token(or(n.config.Name, or(m.Sync, m.Database))), "{database}", Token(m.Database), "{schema}", Token(m.Schema), "{table}", Token(m.Table),
		"{action}", m.Action.String(), "{provider}", Token(m.Provider), "{collection}", Token(collection), "{outcome}", outcome,
	).Replace(template)
}

// place is what stream and subject depend on.
type place struct {
	database, schema, table    string
	action                     lockstep.Action
	sync, provider, collection string
}

// aimed is a stream and a subject.
type aimed struct{ stream, subject string }

// aim returns the stream and the subject of a message.
func (n *NATS) aim(m *sink.Message) (aimed, error) {
	if n.config.SubjectFor != nil {
		subject, err := n.config.SubjectFor(*m)
		if err != nil || subject == "" || strings.ContainsAny(subject, " \t\r\n*>") {
			return aimed{}, n.refusal(sink.Rejected, "the expression gives the change no subject", err)
		}
		return aimed{n.put(n.config.Stream, m), subject}, nil
	}
	template := or(n.config.Subject, rowSubject)
	if n.config.Subject == "" && m.Collection != "" && !m.Action.Whole() {
		template = collectionSubject
	}
	at := place{m.Database, m.Schema, m.Table, m.Action, m.Sync, m.Provider, m.Collection}
	n.mu.Lock()
	to, known := n.aims[at]
	n.mu.Unlock()
	if known {
		return to, nil
	}
	to = aimed{n.put(n.config.Stream, m), n.put(template, m)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.aims) > 10_000 {
		clear(n.aims)
	}
	n.aims[at] = to
	return to, nil
}

// subjects are those of a stream that is created for a message.
func (n *NATS) subjects(m *sink.Message) []string {
	if len(n.config.Subjects) > 0 {
		list := make([]string, len(n.config.Subjects))
		for i, s := range n.config.Subjects {
			list[i] = n.put(s, m)
		}
		return list
	}
	template := or(n.config.Subject, rowSubject)
	head, _, changing := strings.Cut(strings.NewReplacer("{name}", "\x00", "{database}", "\x01").Replace(template), "{")
	head = strings.NewReplacer("\x00", "{name}", "\x01", "{database}").Replace(head)
	subject := n.put(head, m)
	if changing {
		// Whatever token the placeholder begins in, the wildcard takes its place.
		subject = subject[:strings.LastIndex(subject, ".")+1] + ">"
	}
	return []string{subject}
}
