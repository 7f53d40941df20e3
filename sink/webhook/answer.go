package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lockstep/sink"
)

var errTimeout = errors.New("time-out")

// longest is how long an endpoint can ask to be left alone.
const longest = 24 * time.Hour

// refusal makes an error. What the cause says is not repeated: it may quote a record or
// the URL.
func (w *Webhook) refusal(kind sink.Kind, text string, cause error) *sink.Error {
	return &sink.Error{Kind: kind, Message: "webhook " + w.name + ": " + text, Err: cause}
}

// judge says what an answer means. README.md has the table.
func (w *Webhook) judge(got *http.Response, text []byte, messages []sink.Message, r *request) answer {
	if got.StatusCode >= 200 && got.StatusCode < 300 {
		return w.accepted(text, messages, r)
	}
	kind, means := w.meaning(got.StatusCode)
	e := w.refusal(kind, "answered "+strconv.Itoa(got.StatusCode)+": "+means, nil)
	e.Status = got.StatusCode
	if kind == sink.Throttled || kind == sink.Retry {
		e.After = retryAfter(got.Header.Get("Retry-After"), got.Header.Get("Date"), time.Now())
	}
	return answer{err: e}
}

// meaning says what a status that is not 2xx is about: the change, everything, or this
// moment.
func (w *Webhook) meaning(status int) (sink.Kind, string) {
	switch {
	case status >= 300 && status < 400:
		return sink.Refused, "it redirects, and redirects are not followed: put the address it redirects to into the URL"
	case status == http.StatusGone:
		return sink.Gone, "it wants no more deliveries"
	case status == http.StatusNotFound && w.config.PathFor != nil:
		return sink.Rejected, "there is nothing at the path that the expression gives for the change"
	case status >= 500:
		return retryable(status), "it cannot take it now"
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusPaymentRequired:
		return sink.Refused, "it does not let us in: check the secret and the headers"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return sink.Refused, "nothing there takes deliveries: check the URL and the method"
	case http.StatusNotAcceptable, http.StatusLengthRequired, http.StatusExpectationFailed, http.StatusMisdirectedRequest,
		http.StatusUpgradeRequired, http.StatusPreconditionRequired, http.StatusUnavailableForLegalReasons:
		return sink.Refused, "it does not take requests as they are sent: check the URL, the headers and the format"
	case http.StatusTooManyRequests:
		return sink.Throttled, "it asks for fewer requests"
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusLocked, http.StatusFailedDependency, http.StatusTooEarly:
		return sink.Retry, "it cannot take it now"
	}
	if status < 400 {
		return sink.Refused, "that is no answer to a delivery: check the URL"
	}
	return sink.Rejected, "it rejects what was sent"
}

func retryable(status int) sink.Kind {
	if status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout {
		return sink.Throttled
	}
	return sink.Retry
}

// accepted reads the list of failures of a 2xx answer.
func (w *Webhook) accepted(text []byte, messages []sink.Message, r *request) answer {
	ids, err := failures(text)
	if err != nil {
		return answer{err: w.refusal(sink.Retry, "its answer has a list of failures that cannot be read to its end", err)}
	}
	if len(ids) == 0 {
		return answer{}
	}
	index := make(map[string]int, 2*len(r.indexes))
	for _, i := range r.indexes {
		index[strconv.FormatUint(messages[i].Seq, 10)] = i
		index[messages[i].IdempotencyKey] = i
	}
	named := make(map[int]bool, len(ids))
	for _, id := range ids {
		i, known := index[id]
		if !known {
			// Some failed, and which is not known: all come again, rather than being lost.
			return answer{err: w.refusal(sink.Retry, "its answer names a failure that was not in the request: name idempotency keys or seqs", nil)}
		}
		named[i] = true
	}
	return answer{failed: named}
}

// failures returns the ids in {"failed":[…]}, texts and numbers alike as text. Anything
// else than such an object names none, whatever it is. An error: the list has begun, and
// does not end within what is read of the answer, or holds something else.
func failures(text []byte) ([]string, error) {
	if !bytes.Contains(text, []byte(`"failed"`)) {
		return nil, nil
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return nil, nil // it is not JSON, and a 2xx may hold anything
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return nil, nil
		}
		if name != "failed" {
			var skipped json.RawMessage
			if in.Decode(&skipped) != nil {
				return nil, nil
			}
			continue
		}
		if t, err := in.Token(); err != nil || t != json.Delim('[') {
			return nil, nil // not a list: a count, say
		}
		return list(in)
	}
	return nil, nil
}

func list(in *json.Decoder) ([]string, error) {
	var ids []string
	for in.More() {
		t, err := in.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case string:
			ids = append(ids, t)
		case json.Number:
			ids = append(ids, t.String())
		default:
			return nil, errors.New("an id is neither a text nor a number")
		}
	}
	if _, err := in.Token(); err != nil { // the end of the list
		return nil, err
	}
	return ids, nil
}

// retryAfter reads Retry-After: seconds, or a time of HTTP, which is measured by the
// endpoint's own clock where it tells it. 0: nothing that can be read.
func retryAfter(value, date string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789.") == "" {
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0
		}
		if seconds >= longest.Seconds() {
			return longest
		}
		return time.Duration(math.Ceil(seconds)) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(date); err == nil {
		now = theirs
	}
	return min(max(at.Sub(now), 0), longest)
}

// broken is the error of a request without an answer.
func (w *Webhook) broken(ctx context.Context, err error) error {
	if own, ok := errors.AsType[*sink.Error](err); ok {
		return own
	}
	var guard *refusedError
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), errTimeout):
		return w.refusal(sink.Retry, "no complete answer within "+w.config.Timeout.String(), errTimeout)
	case ctx.Err() != nil:
		return w.refusal(sink.Retry, "the delivery was interrupted", context.Cause(ctx))
	case errors.As(err, &guard):
		return w.refusal(sink.Refused, guard.Error(), err)
	case certificate(err) != "":
		return w.refusal(sink.Refused, certificate(err), err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return w.refusal(sink.Retry, "its name is not known to DNS", err)
	case errors.As(err, &dns):
		return w.refusal(sink.Retry, "its name cannot be resolved now", err)
	}
	return w.refusal(sink.Retry, reason(err), err)
}

// certificate says what is wrong with the endpoint's certificate; empty: nothing.
func certificate(err error) string {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var other *tls.CertificateVerificationError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not valid yet"
	case errors.As(err, &unknown):
		return "its certificate is of an authority that is not trusted here"
	case errors.As(err, &host):
		return "its certificate is for another name"
	case errors.As(err, &invalid), errors.As(err, &other):
		return "its certificate is not valid"
	}
	return ""
}

// reason says in a few words why there was no answer. Only errors whose texts are known
// are quoted: that of an answer that is not HTTP quotes the answer.
func reason(err error) string {
	var op *net.OpError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var errno syscall.Errno
	text := "the connection broke"
	if errors.As(err, &op) && op.Op == "dial" {
		text = "no connection"
	}
	switch {
	case errors.As(err, &record):
		return "it does not speak TLS: is the URL's scheme http?"
	case errors.As(err, &alert):
		return text + ": " + alert.Error()
	case errors.As(err, &errno):
		return text + ": " + errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return text + " before the answer was complete"
	case strings.Contains(err.Error(), "malformed HTTP"):
		return "its answer is not HTTP"
	}
	return text
}
