package redis

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"lockstep"
	"lockstep/sink"
)

// configure checks the configuration and fills in the defaults.
func (r *Redis) configure() error {
	c := &r.config
	var wrong []error
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	c.Mode = or(c.Mode, Stream)
	c.Stream = or(c.Stream, DefaultStream)
	c.Key = or(c.Key, DefaultKey)
	c.Value = or(c.Value, Record)
	c.Guard = or(c.Guard, GuardSeq)
	c.Window = or(c.Window, DefaultWindow)
	c.Timeout = or(c.Timeout, DefaultTimeout)
	c.Connections = or(c.Connections, DefaultConnections)
	if c.Mode != Stream && c.Mode != String {
		note("mode: %q is not known: use stream or string", c.Mode)
	}
	if c.Guard != GuardSeq && c.Guard != GuardNone {
		note("guard: %q is not known: use seq or none", c.Guard)
	}
	if c.Value != Record && c.Value != Message {
		note("value: %q is not known: use record or message", c.Value)
	}
	if c.MaxLen < 0 || c.TTL < 0 || c.Window < 0 || c.Timeout < 0 || c.Connections < 0 {
		note("maxlen, connections and times must not be negative")
	}
	if c.Mode == String && c.TargetFor == nil && !strings.Contains(c.Key, "{pk}") {
		note("key: {pk} must be in it: every row needs a key of its own")
	}
	if c.Cluster && c.Master != "" {
		note("cluster and master: choose one")
	}
	options, err := universal(c)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return fmt.Errorf("redis: %w: %w", lockstep.ErrInvalid, err)
	}
	r.name = strings.Join(options.Addrs, ",")
	r.make = func() *line { return newLine(*options) }
	return nil
}

// universal reads the URL. What the parser says is not repeated: it quotes the URL.
func universal(c *Config) (*goredis.UniversalOptions, error) {
	if strings.TrimSpace(c.URL) == "" {
		return nil, errors.New("url: say where the server is: redis://user:password@host:6379/0")
	}
	unreadable := errors.New("url: cannot be read: expected redis://user:password@host:6379/0, or rediss:// for TLS")
	head, tail, ok := strings.Cut(c.URL, "://")
	if !ok {
		return nil, unreadable
	}
	hosts, path := tail, ""
	if at := strings.IndexAny(tail, "/?"); at >= 0 {
		hosts, path = tail[:at], tail[at:]
	}
	user := ""
	if at := strings.LastIndex(hosts, "@"); at >= 0 {
		user, hosts = hosts[:at+1], hosts[at+1:]
	}
	list := strings.Split(hosts, ",")
	one, err := goredis.ParseURL(head + "://" + user + list[0] + path)
	if err != nil {
		return nil, unreadable
	}
	if len(list) > 1 && !c.Cluster && c.Master == "" {
		return nil, errors.New("url: several hosts need cluster: true, or the name of the master that they watch")
	}
	addresses := []string{one.Addr}
	for _, h := range list[1:] {
		if u, err := url.Parse("redis://" + h); err != nil || u.Port() == "" {
			return nil, unreadable
		}
		addresses = append(addresses, h)
	}
	return &goredis.UniversalOptions{
		Addrs: addresses, DB: one.DB, Username: one.Username, Password: one.Password, TLSConfig: one.TLSConfig, Protocol: or(one.Protocol, 2),
		ClientName: "lockstep", MasterName: c.Master, IsClusterMode: c.Cluster, DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout,
		ContextTimeoutEnabled: true, PoolSize: 2, MaxRetries: 1, DialerRetries: 1, DisableIdentity: true,
	}, nil
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// escape keeps braces out of what is put into keys.
func escape(s string) string {
	if !strings.ContainsAny(s, "{}") {
		return s
	}
	return strings.NewReplacer("{", "%7B", "}", "%7D").Replace(s)
}

// target returns the stream or the key of a message.
func (r *Redis) target(m *sink.Message, parts []string) (string, error) {
	if r.config.TargetFor != nil {
		target, err := r.config.TargetFor(*m)
		if err != nil || target == "" {
			return "", r.refusal(sink.Rejected, "the expression gives the change no key", err)
		}
		return target, nil
	}
	template := r.config.Stream
	if r.config.Mode == String {
		template = r.config.Key
		if len(parts) == 0 {
			return "", r.refusal(sink.Rejected, "the row has no key: its table needs a primary key or a replica identity", nil)
		}
	}
	var b strings.Builder
	for template != "" {
		begin := strings.IndexByte(template, '{')
		if begin < 0 {
			break
		}
		end := begin + strings.IndexByte(template[begin:], '}') + 1
		if end <= begin {
			break
		}
		b.WriteString(template[:begin])
		switch word := template[begin:end]; word {
		case "{database}":
			b.WriteString(escape(m.Database))
		case "{schema}":
			b.WriteString(escape(m.Schema))
		case "{table}":
			b.WriteString(escape(m.Table))
		case "{action}":
			b.WriteString(m.Action.String())
		case "{pk}":
			b.WriteString(escape(strings.Join(parts, ":")))
		default: // a hash tag of a cluster
			b.WriteString("{")
			end = begin + 1
		}
		template = template[end:]
	}
	b.WriteString(template)
	return b.String(), nil
}

// tag is the part of a key that decides where a cluster keeps it.
func tag(key string) string {
	if begin := strings.IndexByte(key, '{'); begin >= 0 {
		if n := strings.IndexByte(key[begin+1:], '}'); n > 0 {
			return key[begin+1 : begin+1+n]
		}
	}
	return key
}
