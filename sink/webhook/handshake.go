package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"lockstep/sink"
)

// DefaultOrigin is how the sender calls itself in a handshake.
const DefaultOrigin = "lockstep"

// The headers of a handshake, in the form that HTTP gives them.
const (
	requestOrigin = "Webhook-Request-Origin"
	requestRate   = "Webhook-Request-Rate"
	allowedOrigin = "Webhook-Allowed-Origin"
	allowedRate   = "Webhook-Allowed-Rate"
)

// longestWait is how long a request waits for its turn within the allowed rate; what
// would take longer is given back.
const longestWait = 10 * time.Second

// handshake is what the endpoint said when it was asked for its consent. Who holds turn
// asks.
type handshake struct {
	turn chan struct{}

	mu      sync.Mutex
	granted bool
	asked   time.Time // when the last answer came
	refused error     // what it was; nil: consent
	apart   time.Duration
	next    time.Time // before which no request may leave
}

func newHandshake() *handshake { return &handshake{turn: make(chan struct{}, 1)} }

// admit returns when the endpoint has given its consent and its rate allows a request.
// It asks once, and again after each refusal; calls that wait meanwhile share an answer.
func (w *Webhook) admit(ctx context.Context) error {
	h := w.handshake
	if h == nil {
		return nil
	}
	began := time.Now()
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return w.interrupted(ctx)
	}
	err := w.consent(ctx, began)
	<-h.turn
	if err != nil {
		return err
	}
	return w.pace(ctx)
}

func (w *Webhook) interrupted(ctx context.Context) error {
	return w.refusal(sink.Retry, "the delivery was interrupted", context.Cause(ctx))
}

// consent asks, unless the endpoint has consented or was asked since began.
func (w *Webhook) consent(ctx context.Context, began time.Time) error {
	h := w.handshake
	h.mu.Lock()
	granted, fresh, refused := h.granted, h.asked.After(began), h.refused
	h.mu.Unlock()
	if granted {
		return nil
	}
	if fresh {
		return refused
	}
	apart, err := w.ask(ctx)
	if err != nil && ctx.Err() != nil {
		return err // that of one call is nobody else's
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.granted, h.asked, h.refused, h.apart = err == nil, time.Now(), err, apart
	return err
}

// ask sends the validation request once, and returns how far apart requests must be.
func (w *Webhook) ask(ctx context.Context) (apart time.Duration, err error) {
	began := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, w.config.Timeout, errTimeout)
	defer cancel()
	header := make(http.Header, len(w.header)+3)
	maps.Copy(header, w.header) // values of a header are replaced, never changed
	header[requestOrigin] = []string{w.config.Origin}
	if w.config.RequestRate > 0 {
		header[requestRate] = []string{strconv.Itoa(w.config.RequestRate)}
	}
	if _, said := header["User-Agent"]; !said {
		header["User-Agent"] = []string{userAgent}
	}
	req := (&http.Request{
		Method: http.MethodOptions, URL: w.url, Host: w.url.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}).WithContext(limited)
	got, err := w.client.RoundTrip(req) //nolint:bodyclose // readAnswer closes it
	var text []byte
	if err == nil {
		text, err = readAnswer(got.Body)
	}
	if err != nil {
		err = w.broken(limited, err)
	} else {
		apart, err = w.allowed(got)
	}
	w.tell(ctx, told{r: &request{aim: aim{method: http.MethodOptions, url: w.url}}, req: req, got: got, text: text, began: began, err: err})
	return apart, err
}

// allowed says whether an answer is consent. Its headers say so, never its status:
// endpoints that know nothing of handshakes answer 200 too.
func (w *Webhook) allowed(got *http.Response) (apart time.Duration, err error) {
	origin := strings.TrimSpace(got.Header.Get(allowedOrigin))
	if origin == "" {
		return 0, w.silent(got)
	}
	if origin != "*" && !strings.EqualFold(origin, w.config.Origin) {
		return 0, w.withheld(got, "WebHook-Allowed-Origin is not "+w.config.Origin+": let the endpoint allow this origin, or configure the one that it allows")
	}
	switch rate := strings.TrimSpace(got.Header.Get(allowedRate)); {
	case rate == "*", rate == "" && w.config.RequestRate == 0:
		return 0, nil
	case rate == "":
		return 0, w.withheld(got, "there is no WebHook-Allowed-Rate, though a rate was asked for")
	default:
		n, err := strconv.ParseUint(rate, 10, 32)
		if err != nil || n == 0 {
			return 0, w.withheld(got, "WebHook-Allowed-Rate is neither * nor a number of requests a minute")
		}
		return time.Minute / time.Duration(n), nil
	}
}

// silent is the error of an answer that does not speak of consent.
func (w *Webhook) silent(got *http.Response) error {
	kind, means := w.meaning(got.StatusCode)
	if got.StatusCode >= 400 && (kind == sink.Gone || kind == sink.Retry || kind == sink.Throttled) {
		e := w.refusal(kind, fmt.Sprintf("answered %d to the handshake: %s", got.StatusCode, means), nil)
		e.Status = got.StatusCode
		if kind != sink.Gone {
			e.After = retryAfter(got.Header.Get("Retry-After"), got.Header.Get("Date"), time.Now())
		}
		return e
	}
	return w.withheld(got, "there is no WebHook-Allowed-Origin: it does not want deliveries, or knows nothing of handshakes, and then handshake must be off")
}

func (w *Webhook) withheld(got *http.Response, why string) error {
	e := w.refusal(sink.Refused, fmt.Sprintf("gave no consent to deliveries (OPTIONS, answered %d): %s", got.StatusCode, why), nil)
	e.Status = got.StatusCode
	return e
}

// pace waits for a request's turn within the allowed rate.
func (w *Webhook) pace(ctx context.Context) error {
	h := w.handshake
	now := time.Now()
	h.mu.Lock()
	wait := max(h.next.Sub(now), 0)
	if wait <= longestWait {
		h.next = now.Add(wait + h.apart)
	}
	h.mu.Unlock()
	if wait == 0 {
		return nil
	}
	if wait > longestWait {
		e := w.refusal(sink.Throttled, "it allows no more requests this minute", nil)
		e.After = wait
		return e
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return w.interrupted(ctx)
	}
}

// configureHandshake checks what is said of the handshake.
func (w *Webhook) configureHandshake() error {
	c := &w.config
	switch {
	case !c.Handshake && (c.Origin != "" || c.RequestRate != 0):
		return errors.New("origin and request_rate are of the handshake: set handshake too")
	case !c.Handshake:
		return nil
	case c.RequestRate < 0:
		return errors.New("request_rate must not be negative: it is a number of requests a minute")
	}
	if c.Origin == "" {
		c.Origin = DefaultOrigin
	}
	if !isName(c.Origin) {
		return errors.New("the origin must be a name as in DNS, such as events.example.com")
	}
	w.handshake = newHandshake()
	return nil
}

// isName reports whether s is a name as in DNS.
func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		odd := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, odd) || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
