package webhook

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"lockstep/sink"
)

// Headers of each request that are Lockstep's own, in lower case.
const (
	headerAttempt = "lockstep-attempt" // of the change, from 1; of a batch the highest
	headerTest    = "lockstep-test"    // 1: a test event, which stands for no change
	headerAction  = "lockstep-action"  // of the change; format plain, one change
)

const gzipFrom = 1 << 10

// answer is what an exchange came to.
type answer struct {
	failed map[int]bool // messages that a 2xx answer names
	err    error        // nil: the others are delivered
}

// exchange sends a request once.
func (w *Webhook) exchange(ctx context.Context, messages []sink.Message, r *request) answer {
	began := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, w.config.Timeout, errTimeout)
	defer cancel()
	body := &lent{data: r.body}
	// The transport may go on reading a body after the answer is there; what is read then
	// is not ours any more.
	defer body.takeBack()
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
	header := w.header.Clone()
	for name, value := range r.aim.header {
		header.Set(name, value)
	}
	for name, value := range r.header {
		if header.Get(name) == "" { // Plain lets the user say the type
			header.Set(name, value)
		}
	}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", "Lockstep-Webhook/1")
	}
	header.Set(headerAttempt, strconv.Itoa(max(r.attempt, 1)))
	header.Set("Webhook-Id", r.id)
	header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if signature != "" {
		header.Set("Webhook-Signature", signature)
	}
	if r.test != nil {
		header.Set(headerTest, "1")
	}
	if w.config.Gzip && len(r.body) >= gzipFrom {
		if body.data, err = compress(r.body); err != nil {
			return nil, err
		}
		header.Set("Content-Encoding", "gzip")
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

func (l *lent) reader() io.ReadCloser { return &lentReader{lent: l} }

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
