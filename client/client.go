// Package client calls the HTTP API of Lockstep: consumers take and settle
// changes, tails follow them live, and definitions, dead letters and tokens are
// managed.
//
// # Guarantees
//
//  1. A [Client] is safe for concurrent use, and keeps connections open for as many
//     workers as call it.
//  2. Every call takes a context and ends when it does.
//  3. An answer that is not a success is a [*Problem], which wraps the root
//     package's kinds of errors: errors.Is(err, lockstep.ErrNotFound) and the like.
//     A server that could not be reached gives an error that wraps
//     [lockstep.ErrUnavailable].
//  4. Only calls that may be made twice without harm are repeated, a few times, when
//     the connection breaks or the server says that it is not available. Next, Nack
//     and everything that creates are made once.
//  5. JSON values of changes are handed on as the bytes that came; nothing passes
//     through a decoded form.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lockstep"
)

// DefaultServer is where a node listens unless it is told otherwise.
const DefaultServer = "http://127.0.0.1:7300"

const (
	callTimeout = 30 * time.Second // for an answer, beyond the time that a call asked the server to wait
	attempts    = 4                // of a call that may be repeated
	maxError    = 1 << 20          // bytes of a problem document that are read
)

// Config says how to reach a server. The zero value is a server on this machine
// that needs no token.
type Config struct {
	Server string       // default [DefaultServer]
	Token  string       // bearer token; empty: none is sent
	HTTP   *http.Client // default: one made for many concurrent workers
	Agent  string       // the User-Agent; default lockstep-go
}

// Client calls one server. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	agent string
	http  *http.Client
	claim Claim
}

// New returns a client. It connects to nothing yet; a malformed address gives an
// error that wraps [lockstep.ErrInvalid].
func New(c Config) (*Client, error) {
	if c.Server == "" {
		c.Server = DefaultServer
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a server, write http://host:port: %w", c.Server, lockstep.ErrInvalid)
	}
	if c.Agent == "" {
		c.Agent = "lockstep-go"
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Transport: newTransport()}
	}
	return &Client{base: strings.TrimRight(c.Server, "/"), token: c.Token, agent: c.Agent, http: c.HTTP}, nil
}

// Close closes the connections that are not in use. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dialer.DialContext,
		// The default of two idle connections per host would make every further
		// worker dial anew for each call.
		MaxIdleConns:        1024,
		MaxIdleConnsPerHost: 1024,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     32 << 10,
		DisableCompression:  true,
	}
}

// call is one request. The zero value of retry is a call that is made once.
type call struct {
	method string
	path   []string // segments, not yet escaped
	query  url.Values
	body   any // marshalled as JSON; nil: none
	wait   time.Duration
	retry  retry
}

// retry says whether a call may be made again when nobody knows whether it was heard.
type retry bool

const (
	once       retry = false
	repeatable retry = true
)

// do makes the call and decodes the answer into out, which may be nil.
func (c *Client) do(ctx context.Context, k call, out any) error {
	body, err := c.bytes(ctx, k)
	if err != nil || out == nil || len(body) == 0 {
		return err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what was expected, is %s a lockstep server of this version?: %w", k.method, c.address(k), c.base, err)
	}
	return nil
}

// bytes makes the call, again when it may be, and returns the body of a success.
func (c *Client) bytes(ctx context.Context, k call) ([]byte, error) {
	var payload []byte
	if k.body != nil {
		var err error
		if payload, err = json.Marshal(k.body); err != nil {
			return nil, fmt.Errorf("write the request of %s: %w", c.address(k), err)
		}
	}
	for attempt := 1; ; attempt++ {
		body, err := c.once(ctx, k, payload)
		if err == nil || k.retry == once || attempt == attempts || !unavailable(err) {
			return body, err
		}
		if err := pause(ctx, attempt, retryAfter(err)); err != nil {
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, k call, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, k.wait+callTimeout, fmt.Errorf("%s gave no answer in %s: %w", c.base, k.wait+callTimeout, lockstep.ErrUnavailable))
	defer cancel()
	response, err := c.send(ctx, k, payload)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := readAll(response)
	if err != nil {
		return nil, c.transportError(ctx, k, err)
	}
	return body, nil
}

// send makes the request and returns the answer when it is a success.
func (c *Client) send(ctx context.Context, k call, payload []byte) (*http.Response, error) {
	var reader io.Reader
	if payload != nil {
		reader = bytes.NewReader(payload)
	}
	request, err := http.NewRequestWithContext(ctx, k.method, c.address(k), reader)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w: %w", c.base, err, lockstep.ErrInvalid)
	}
	request.Header.Set("User-Agent", c.agent)
	request.Header.Set("Accept", "application/json")
	if payload != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return c.roundTrip(request, k)
}

func (c *Client) roundTrip(request *http.Request, k call) (*http.Response, error) {
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.transportError(request.Context(), k, err)
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, readProblem(response)
}

// transportError says which server did not answer. The error of net/http is not
// shown as it is: it repeats the address with its parameters.
func (c *Client) transportError(ctx context.Context, k call, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("%s /%s: no answer from %s: %w: %w", k.method, strings.Join(k.path, "/"), c.base, err, lockstep.ErrUnavailable)
}

func (c *Client) address(k call) string {
	var b strings.Builder
	b.WriteString(c.base)
	for _, segment := range k.path {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(segment))
	}
	if len(k.query) > 0 {
		b.WriteByte('?')
		b.WriteString(k.query.Encode())
	}
	return b.String()
}

func readAll(response *http.Response) ([]byte, error) {
	if response.ContentLength <= 0 || response.ContentLength > 64<<20 {
		return io.ReadAll(response.Body)
	}
	body := make([]byte, response.ContentLength)
	_, err := io.ReadFull(response.Body, body)
	return body, err
}

func unavailable(err error) bool { return errors.Is(err, lockstep.ErrUnavailable) }

// retryAfter returns how long the server asked to be left alone.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.RetryAfter
	}
	return 0
}

// pause waits before the next attempt: longer each time, never in step with other
// clients, and at least as long as the server asked for.
func pause(ctx context.Context, attempt int, least time.Duration) error {
	longest := min(100*time.Millisecond<<min(attempt, 10), 5*time.Second)
	wait := max(least, longest/2+rand.N(longest/2))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func seqText(seq uint64) string { return strconv.FormatUint(seq, 10) }
