package nats

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/sink"
)

// link is one connection. It does not reconnect by itself, so that what was published
// on it is behind what another one publishes; the next call of Write makes a new one.
type link struct {
	ready chan struct{} // closed when it is connected, or cannot be
	err   error         // set before ready is closed, as the following
	nc    *natsgo.Conn
	js    jetstream.JetStream
	inbox string
	lost  chan struct{} // closed when the connection is

	mu      sync.Mutex
	socket  net.Conn
	last    uint64
	waiting map[uint64]chan<- reply // by number of the message on this link
	streams map[string]bool         // known to be there
	denied  bool                    // the server refused to publish
}

// reply is what JetStream said about a message.
type reply struct {
	number uint64
	ack    ack
	status string // 503: nobody listens
	bad    bool   // it cannot be read
}

// ack is JetStream's acknowledgment.
type ack struct {
	Stream string `json:"stream"`
	Error  *struct {
		Code    int `json:"code"`
		ErrCode int `json:"err_code"`
	} `json:"error"`
}

// connected returns a connection, a new one when there is none.
func (n *NATS) connected(ctx context.Context) (*link, error) {
	n.mu.Lock()
	if n.life.Err() != nil {
		n.mu.Unlock()
		return nil, n.shut()
	}
	if n.link == nil || n.link.over() {
		n.link = &link{ready: make(chan struct{}), lost: make(chan struct{}), waiting: map[uint64]chan<- reply{}, streams: map[string]bool{}}
		go n.connect(n.life, n.link) //nolint:contextcheck // it serves later calls too; Close waits for it
	}
	l := n.link
	n.mu.Unlock()
	select {
	case <-l.ready:
	case <-ctx.Done():
		return nil, n.refusal(sink.Retry, "not connected in time", context.Cause(ctx))
	}
	return l, l.err
}

// over reports whether a connection was made or tried, and is no more.
func (l *link) over() bool {
	select {
	case <-l.ready:
	default:
		return false
	}
	return l.err != nil || l.nc.IsClosed()
}

func (l *link) leave() {
	if l.nc != nil {
		l.nc.Close()
	}
}

// connect makes the connection; it ends with the sink, or when ConnectTimeout is over.
func (n *NATS) connect(ctx context.Context, l *link) {
	defer close(l.ready)
	c := n.config
	options := []natsgo.Option{
		natsgo.Name("lockstep"), natsgo.NoReconnect(), natsgo.Timeout(c.ConnectTimeout), natsgo.SetCustomDialer(dialer{ctx, c.ConnectTimeout, l}), natsgo.FlusherTimeout(c.AckTimeout),
		natsgo.ClosedHandler(func(*natsgo.Conn) { close(l.lost) }), natsgo.ErrorHandler(l.noted), natsgo.DrainTimeout(time.Second),
	}
	if c.Server != nil {
		// Apart from the clients' inboxes: nobody else is to hear or to say what comes there.
		options = append(options, natsgo.InProcessServer(inProcess{c.Server, l}), natsgo.CustomInboxPrefix("_LOCKSTEP"))
	}
	if c.User != "" {
		options = append(options, natsgo.UserInfo(c.User, c.Password))
	}
	if c.Token != "" {
		options = append(options, natsgo.Token(c.Token))
	}
	if c.Credentials != "" {
		options = append(options, natsgo.UserCredentials(c.Credentials))
	}
	if c.TLS != nil {
		options = append(options, natsgo.Secure(c.TLS))
	}
	nc, err := natsgo.Connect(or(c.URL, natsgo.DefaultURL), options...)
	if err != nil {
		l.err = n.judgeConnect(err)
		return
	}
	if err = ctx.Err(); err == nil {
		l.inbox = nc.NewInbox() + "."
		if _, err = nc.Subscribe(l.inbox+"*", l.answered); err == nil {
			l.js, err = jetstream.New(nc)
		}
	}
	if err != nil {
		nc.Close()
		l.err = n.refusal(sink.Retry, "the connection broke", nil)
		return
	}
	l.nc = nc
}

// dialer dials for as long as the sink lives.
type dialer struct {
	ctx     context.Context //nolint:containedctx // the library's interface has none
	timeout time.Duration
	link    *link
}

// Dial implements the library's interface.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: d.timeout}).DialContext(d.ctx, network, address)
	return d.link.keep(conn, err)
}

// inProcess is an embedded server.
type inProcess struct {
	server InProcess
	link   *link
}

// InProcessConn implements the library's interface.
func (p inProcess) InProcessConn() (net.Conn, error) {
	conn, err := p.server.InProcessConn()
	return p.link.keep(conn, err)
}

func (l *link) keep(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.socket = conn
	return conn, nil
}

// abort ends the connection under the library, which may be writing to it.
func (l *link) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.socket != nil {
		l.socket.Close()
	}
}

// judgeConnect makes an error of a failed connect.
func (n *NATS) judgeConnect(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired), errors.Is(err, natsgo.ErrAuthRevoked),
		strings.Contains(strings.ToLower(err.Error()), "authorization"), strings.Contains(err.Error(), "authentication"):
		return n.refusal(sink.Refused, "it does not let us in: check user, password, token or credentials", nil)
	case n.config.Credentials != "" && (strings.Contains(err.Error(), "no such file") || strings.Contains(err.Error(), "nkey")):
		return n.refusal(sink.Refused, "the credentials' file cannot be read", nil)
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &certificate):
		return n.refusal(sink.Refused, "its certificate cannot be verified", nil)
	case errors.Is(err, natsgo.ErrSecureConnRequired), errors.Is(err, natsgo.ErrSecureConnWanted):
		return n.refusal(sink.Refused, "one side wants TLS and the other does not: check the URL", nil)
	}
	return n.refusal(sink.Retry, "no connection", nil)
}

// noted hears what the server refuses without an answer.
func (l *link) noted(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.denied = true
	for number, to := range l.waiting {
		to <- reply{number: number, status: "denied"}
		delete(l.waiting, number)
	}
}

// answered hands an acknowledgment to the one who waits for it.
func (l *link) answered(m *natsgo.Msg) {
	number, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, l.inbox), 36, 64)
	if err != nil {
		return
	}
	r := reply{number: number, status: m.Header.Get("Status")}
	if r.status == "" && !plain(m.Data) {
		r.bad = json.Unmarshal(m.Data, &r.ack) != nil || r.ack.Error == nil && r.ack.Stream == ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if to, ok := l.waiting[number]; ok {
		delete(l.waiting, number)
		to <- r // it has room for as many as its call publishes
	}
}

// plain reports whether an answer is an acknowledgment as servers write it, without an
// error: nothing else of it matters.
func plain(answer []byte) bool {
	const head = `{"stream":"`
	return len(answer) > len(head) && bytes.HasPrefix(answer, []byte(head)) && answer[len(head)] != '"' &&
		answer[len(answer)-1] == '}' && !bytes.Contains(answer, []byte("error"))
}

// publish sends a message; its reply comes to the channel, which has room for it.
func (l *link) publish(m *natsgo.Msg, to chan<- reply) (uint64, error) {
	l.mu.Lock()
	l.last++
	number := l.last
	l.waiting[number] = to
	l.mu.Unlock()
	m.Reply = l.inbox + strconv.FormatUint(number, 36)
	if err := l.nc.PublishMsg(m); err != nil {
		l.forget(number)
		return 0, err
	}
	return number, nil
}

func (l *link) forget(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, number)
}
