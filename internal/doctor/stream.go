package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// stream are the checks of where the changes are kept.
func (o Options) stream() group {
	retention := check{id: "stream_retention", run: o.retention,
		why: "the stream keeps every change for as long as retention says, whoever has read it or not"}
	if o.Config.Stream.URL == "" {
		return group{target: "stream", checks: []check{
			{id: "stream_sync", run: func(context.Context) ([]verdict, error) {
				return one(pass("embedded: every batch is on disk before it counts"))
			}, why: whySync},
			retention,
		}}
	}
	n := &natsServer{Options: o}
	return group{target: "stream " + o.Config.Stream.URL.String(), checks: []check{
		{id: "stream_reach", run: n.greet, needed: true,
			why: "without the stream nothing is captured and nothing is delivered"},
		{id: "stream_login", run: n.login,
			why: "the node has to log in and to find JetStream switched on for its account"},
		{id: "stream_sync", run: n.sync, why: whySync},
		retention,
	}}
}

const whySync = "Postgres may forget a change as soon as the stream has acknowledged it: a server that writes to disk later loses what a power cut meets"

func (o Options) retention(context.Context) ([]verdict, error) {
	r := o.Config.Stream.Retention
	if r.Age == 0 && r.Bytes == 0 {
		return one(warn("# in the configuration:\nstream: {retention: {age: 168h, bytes: 50GB}}", "the stream is kept without limit: its disk fills up one day"))
	}
	said := []string{}
	if r.Age > 0 {
		said = append(said, "at most "+r.Age.String())
	}
	if r.Bytes > 0 {
		said = append(said, "at most "+size(r.Bytes)+" per database")
	}
	return one(pass("kept is %s", strings.Join(said, ", ")))
}

// natsServer is the external server of the stream.
type natsServer struct {
	Options
	host string // of the first address that answered
	info greeting
	met  bool
}

// greeting is what a NATS server says of itself before anybody logs in
// (docs.nats.io/reference/reference-protocols/nats-protocol#info).
type greeting struct {
	ID         string `json:"server_id"`
	Version    string `json:"version"`
	JetStream  bool   `json:"jetstream"`
	MaxPayload int64  `json:"max_payload"`
	TLS        bool   `json:"tls_required"`
}

func (n *natsServer) greet(ctx context.Context) ([]verdict, error) {
	var last error
	for address := range strings.SplitSeq(n.Config.Stream.URL.Reveal(), ",") {
		u, err := url.Parse(strings.TrimSpace(address))
		if err != nil || u.Host == "" {
			last = fmt.Errorf("an address of the stream is not valid")
			continue
		}
		if u.Scheme == "ws" || u.Scheme == "wss" {
			return one(pass("its greeting is not read over a web socket"))
		}
		if err := n.meet(ctx, u); err != nil {
			last = err
			continue
		}
		return one(n.judgeGreeting(u))
	}
	return one(fail("# is it there, and may this machine reach it? Or leave stream.url out for the embedded stream", "no NATS server answers: %s", reason(rootOf(last))))
}

// meet reads the greeting of one server.
func (n *natsServer) meet(ctx context.Context, u *url.URL) error {
	port := u.Port()
	if port == "" {
		port = "4222"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(deadline.Add(-100 * time.Millisecond)); err != nil {
			return err
		}
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<20)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read its greeting: %w", err)
	}
	text, ok := strings.CutPrefix(line, "INFO ")
	if !ok || json.Unmarshal([]byte(text), &n.info) != nil {
		return fmt.Errorf("what listens at %s is not a NATS server", conn.RemoteAddr())
	}
	n.host, n.met = u.Hostname(), true
	return nil
}

func (n *natsServer) judgeGreeting(u *url.URL) verdict {
	loopback := net.ParseIP(u.Hostname()).IsLoopback() || u.Hostname() == "localhost"
	switch {
	case !n.info.JetStream:
		return fail("# in the server's configuration, then restart it:\njetstream { store_dir: /var/lib/nats, sync_interval: always }", "the NATS server %s has no JetStream", n.info.Version)
	case !n.info.TLS && u.Scheme != "tls" && !loopback:
		return warn("# in the server's configuration: a tls block; in this one: tls:// instead of nats://", "NATS %s answers, and the connection is not encrypted", n.info.Version)
	}
	return pass("NATS %s answers, with JetStream", n.info.Version)
}

func (n *natsServer) login(ctx context.Context) ([]verdict, error) {
	if n.Stream == nil {
		return one(skip("not tried"))
	}
	if err := n.Stream(ctx); err != nil {
		return one(fail("# correct user and password in stream.url; the account needs JetStream:\naccounts { LOCKSTEP { jetstream: enabled, users: [ … ] } }", "%s", plainError(err)))
	}
	return one(pass("logged in, and JetStream answers"))
}

// sync asks the server's monitoring port how it writes to disk: clients cannot ask.
func (n *natsServer) sync(ctx context.Context) ([]verdict, error) {
	remedy := "# in the configuration of each NATS server, then restart it:\njetstream { sync_interval: always }"
	unknown := func(why string) ([]verdict, error) {
		return one(warn(remedy, "whether the server writes to disk before it acknowledges cannot be known: %s", why))
	}
	if !n.met {
		return unknown("its greeting was not read")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(n.host, n.limits.monitor)+"/jsz?config=true", nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return unknown("its monitoring port " + n.limits.monitor + " does not answer")
	}
	defer response.Body.Close()
	var told struct {
		ID     string `json:"server_id"`
		Config struct {
			Interval time.Duration `json:"sync_interval"`
			Always   bool          `json:"sync_always"`
		} `json:"config"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&told); err != nil || told.ID != n.info.ID {
		return unknown("what listens at port " + n.limits.monitor + " is not its monitoring")
	}
	if !told.Config.Always {
		return one(warn(remedy, "the server acknowledges first and writes to disk every %s", told.Config.Interval))
	}
	return one(pass("the server writes to disk before it acknowledges (sync_interval: always)"))
}
