// Package webhook sends changes to an HTTP endpoint.
//
// # Guarantees
//
//  1. A change is delivered when the endpoint has answered 2xx to its request, whole
//     and within the time-out, and has not named it in the answer's list of failures.
//  2. Changes of one key leave in order, and none leaves before the answer to an
//     earlier one of its key, also within one call. A change that failed holds back
//     the later ones of its key in the call, and no other.
//  3. webhook-id is the change's idempotency key (of a batch: a hash of its keys),
//     equal on each attempt. Whether what comes twice has the effect of one is up to
//     the endpoint, by that id.
//  4. Every request is signed with all secrets that are valid at that time. When
//     secrets are configured and none is valid, nothing is sent.
//  5. Redirects are never followed, certificates are verified, proxies of the
//     environment are not used, and without AllowPrivate no connection goes to an
//     address that is not public: decided on the address that is connected to, so a
//     name that resolves to another one the second time gains nothing.
//  6. At most AnswerLimit bytes of an answer are read, and an answer that is not
//     complete within the time-out is a failed attempt.
//  7. With Handshake nothing is delivered before the endpoint has given its consent,
//     and no faster than it allows.
//  8. Errors name the host and the status; never the path, a header, a secret, or
//     anything of a record or an answer.
//
// README.md has the formats, the headers and what each status means.
package webhook

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"lockstep"
	"lockstep/sink"
)

// Format says how changes become a request.
type Format string

// The formats; see README.md for each one's body and headers.
const (
	Lockstep              Format = "lockstep"               // the message; of several {"data":[…]}
	CloudEvents           Format = "cloudevents"            // binary mode, one per request
	CloudEventsStructured Format = "cloudevents-structured" // one per request
	CloudEventsBatch      Format = "cloudevents-batch"      // always an array
	Plain                 Format = "plain"                  // the record alone; of several an array. Not signed
)

// The limits that are used unless Config says otherwise.
const (
	DefaultTimeout = 15 * time.Second
	DefaultMaxBody = 8 << 20
	DefaultKept    = 4 << 10
	// AnswerLimit is how many bytes of an answer are read.
	AnswerLimit = 256 << 10
)

// Config is an endpoint and how to speak to it.
type Config struct {
	// URL is where requests go: http or https, any port, no user information.
	URL string
	// Secrets sign each request, in this order. None: requests are not signed.
	Secrets []Secret
	// Headers are sent with each request. Names that the sink or HTTP itself sets are
	// refused by [New].
	Headers map[string]string
	// Method is POST (default), PUT, PATCH or DELETE.
	Method string
	// Timeout is how long one request may take, from the connection to the last byte of
	// the answer; default 15 s.
	Timeout time.Duration
	// Format default: Lockstep.
	Format Format
	// Source is the CloudEvents source, a URI reference; default /databases/<name>.
	Source string
	// AllowPrivate permits addresses that are not public: for development, and for
	// endpoints within one's own network.
	AllowPrivate bool
	// Handshake asks for consent by OPTIONS before the first delivery, as CloudEvents' HTTP
	// 1.1 Web Hooks for Event Delivery has it. A sink of another URL asks anew.
	Handshake bool
	// Origin is how the handshake calls the sender, a name as in DNS; default DefaultOrigin.
	Origin string
	// RequestRate is how many requests a minute are asked for; 0: none in particular.
	RequestRate int
	// Gzip compresses bodies of 1 KiB and more. Signatures are over the body before.
	Gzip bool
	// MaxBody is how many bytes a body may have before it is compressed; default 8 MiB.
	// A batch is parted; a single change that is larger is rejected.
	MaxBody int

	// The following decide by the change, for each change by itself: a request holds
	// neighbours for which they say the same. Nil: as above. An error rejects the change.
	//
	// PathFor is appended to the URL: "orders/7", "/orders/7?full=1". It cannot leave
	// the URL's host and path. MethodFor replaces Method. HeadersFor adds to Headers.
	PathFor    func(sink.Message) (string, error)
	MethodFor  func(sink.Message) (string, error)
	HeadersFor func(sink.Message) (map[string]string, error)
	// TypeFor is the CloudEvents type; nil: lockstep.<schema>.<table>.<action>.
	TypeFor func(sink.Message) (string, error)

	// Attempt is told about each request when it is over, before Write returns, from
	// the goroutine that called Write. Nil: nobody is told.
	Attempt func(context.Context, Attempt)
	// Kept is how many bytes of each body an Attempt holds; default 4 KiB, below 0 none.
	Kept int
	// Transport takes the place of the guarded one: for tests. AllowPrivate is then the
	// transport's own business.
	Transport http.RoundTripper
}

// Webhook is a [sink.Sink]. Its methods may be called concurrently.
type Webhook struct {
	config  Config
	url     *url.URL
	name    string // of the endpoint in errors
	header  http.Header
	signers []signer
	client  http.RoundTripper
	own     *http.Transport // nil: the transport is the caller's
	dialer  *net.Dialer
	life    *life
	rooms   sync.Pool // of *[]byte: bodies of batches are made in them

	handshake *handshake // nil: none is wanted
}

var _ sink.Sink = (*Webhook)(nil)

// New checks the configuration; it does not connect. Errors wrap lockstep.ErrInvalid
// and name all that is wrong.
func New(config Config) (*Webhook, error) {
	w := &Webhook{config: config, life: newLife()}
	if err := w.configure(); err != nil {
		return nil, err
	}
	w.client = config.Transport
	if w.client == nil {
		w.own = w.transport()
		w.client = w.own
	}
	return w, nil
}

// Write implements [sink.Sink]: one request for all messages, or as many as the format,
// MaxBody and the functions of the configuration make necessary. When an endpoint
// rejects a batch, it is sent again in halves until the rejected messages are known.
func (w *Webhook) Write(ctx context.Context, messages []sink.Message) (int, error) {
	if !w.life.enter() {
		return 0, w.refusal(sink.Retry, "the sink is closed", lockstep.ErrUnavailable)
	}
	defer w.life.leave()
	d := delivery{w: w, messages: messages}
	return d.run(ctx)
}

// Close ends all connections; those of requests that are under way when the last of
// these ends.
func (w *Webhook) Close(context.Context) error {
	if w.own != nil {
		w.own.CloseIdleConnections()
	}
	w.life.close()
	return nil
}
