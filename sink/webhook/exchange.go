package webhook

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"lockstep/sink"
)

// Headers that are Lockstep's own, in lower case, besides lockstep-attempt: that of the
// change, from 1, of a batch the highest.
const (
	headerTest   = "lockstep-test"   // 1: a test event, which stands for no change
	headerAction = "lockstep-action" // of the change; format plain, one change
)

const (
	userAgent = "Lockstep-Webhook/1"
	gzipFrom  = 1 << 10
)

// answer is what an exchange came to.
type answer struct {
	failed map[int]bool // messages that a 2xx answer names
	err    error        // nil: the others are delivered
}

// exchange sends a request once.
func (w *Webhook) exchange(ctx context.Context, messages []sink.Message, r *request) answer {
	if err := w.admit(ctx); err != nil {
		w.done(r)
		return answer{err: err}
	}
	began := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, w.config.Timeout, errTimeout)
	defer cancel()
	body := &lent{data: r.body}
	// The transport may go on reading a body after the answer is there; what is read then
	// is not ours any more.
	defer func() {
		body.takeBack()
		w.done(r)
	}()
	req, err := w.request(limited, r, body, began)
	var got *http.Response
	var text []byte
	if err == nil {
		got, err = w.client.RoundTrip(req) //nolint:bodyclose // readAnswer closes it
	}
	if err == nil {
		text, err = readAnswer(got.Body)
	}
	a := answer{}
	switch {
	case err != nil:
		a.err = w.broken(limited, err)
	default:
		a = w.judge(got, text, messages, r)
	}
	w.tell(ctx, told{r: r, messages: messages, req: req, got: got, text: text, began: began, err: a.err, failed: len(a.failed)})
	return a
}

// request builds the HTTP request.
func (w *Webhook) request(ctx context.Context, r *request, body *lent, now time.Time) (*http.Request, error) {
	signature, err := w.signature(r.id, now, r.body)
	if err != nil {
		return nil, &sink.Error{Kind: sink.Refused, Message: "webhook " + w.name + ": " + err.Error()}
	}
	header := w.headerOf(r)
	header["Webhook-Timestamp"] = []string{strconv.FormatInt(now.Unix(), 10)}
	if signature != "" {
		header["Webhook-Signature"] = []string{signature}
	}
	if w.config.Gzip && len(r.body) >= gzipFrom {
		if body.data, err = compress(r.body); err != nil {
			return nil, err
		}
		header["Content-Encoding"] = []string{"gzip"}
	}
	req := (&http.Request{
		Method: r.aim.method, URL: r.aim.url, Host: r.aim.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body.data)),
	}).WithContext(ctx)
	req.Body = body.reader()
	// For a connection that the endpoint had closed before it saw the request.
	req.GetBody = func() (io.ReadCloser, error) { return body.reader(), nil }
	return req, nil
}

// headerOf makes the header of a request, but for what depends on the time. Names are
// in the form that HTTP gives them.
func (w *Webhook) headerOf(r *request) http.Header {
	header := make(http.Header, 8+len(w.header)+len(r.aim.header)+len(r.header))
	maps.Copy(header, w.header) // values of a header are replaced, never changed
	for name, value := range r.aim.header {
		header.Set(name, value)
	}
	if _, said := header["Content-Type"]; !said { // Plain lets the user say it
		header["Content-Type"] = []string{r.kind}
	}
	for name, value := range r.header {
		header.Set(name, value)
	}
	if _, said := header["User-Agent"]; !said {
		header["User-Agent"] = []string{userAgent}
	}
	if w.handshake != nil {
		header[requestOrigin] = []string{w.config.Origin}
	}
	header["Lockstep-Attempt"] = []string{strconv.Itoa(max(r.attempt, 1))}
	header["Webhook-Id"] = []string{r.id}
	if r.test != nil {
		header.Set(headerTest, "1")
	}
	return header
}

func compress(body []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	err = z.Close()
	return out.Bytes(), err
}

// readAnswer reads the beginning of an answer. When there is more, the connection is
// given up.
func readAnswer(body io.ReadCloser) ([]byte, error) {
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, AnswerLimit+1))
	if len(text) > AnswerLimit {
		return text[:AnswerLimit], nil
	}
	return text, err
}

// lent is a body that is read only as long as the request runs.
type lent struct {
	mu   sync.RWMutex
	data []byte
	back bool
}

var errTakenBack = errors.New("the request is over")

func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data, l.back = nil, true
}

// smallBody is up to how many bytes a body is copied rather than lent.
const smallBody = 8 << 10

// reader returns a reader of the whole body. A transport sends the header of a request
// by itself unless it knows the body's type: two packets, and the endpoint is woken
// twice. So a small body is a copy of a type that it knows.
func (l *lent) reader() io.ReadCloser {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.back && len(l.data) <= smallBody {
		return io.NopCloser(bytes.NewReader(bytes.Clone(l.data)))
	}
	return &lentReader{lent: l}
}

type lentReader struct {
	lent *lent
	at   int // read by one goroutine at a time
}

func (r *lentReader) Read(p []byte) (int, error) {
	r.lent.mu.RLock()
	defer r.lent.mu.RUnlock()
	switch {
	case r.lent.back:
		return 0, errTakenBack
	case r.at >= len(r.lent.data):
		return 0, io.EOF
	}
	n := copy(p, r.lent.data[r.at:])
	r.at += n
	return n, nil
}

func (r *lentReader) Close() error { return nil }
