package webhook

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"time"

	"lockstep/sink"
)

// Attempt is one request and what came of it, for people to look at. It holds data of
// records; values of configured headers and cookies are redacted, and of the URL only
// what the change decided is shown.
type Attempt struct {
	At       time.Time
	Duration time.Duration
	Test     bool
	ID       string   // webhook-id
	Seqs     []uint64 // of the changes in the request
	Number   int      // of the attempt, from 1; the highest of the changes

	Method      string
	URL         string
	RequestBody []byte // the first Kept bytes, before compression
	RequestSize int    // bytes, before compression
	header      func() http.Header

	Status       int // 0: there was no answer
	AnswerHeader http.Header
	AnswerBody   []byte // the first Kept bytes
	// Failed is how many of the changes the answer named as failed.
	Failed int
	// Err is why the request was not accepted; nil: it was.
	Err error
}

// RequestHeader returns what the request had, a copy; nil: there was no request. Few
// who are told want it, so it is made when it is asked for.
func (a Attempt) RequestHeader() http.Header {
	if a.header == nil {
		return nil
	}
	return a.header()
}

// told is what an Attempt is made of.
type told struct {
	r        *request
	messages []sink.Message
	req      *http.Request  // nil: it was not made
	got      *http.Response // nil: there was none
	text     []byte
	began    time.Time
	failed   int
	err      error
}

const redacted = "[redacted]"

// tell makes the Attempt. It is called before Write returns, while the messages may be
// read; what it keeps is a copy.
func (w *Webhook) tell(ctx context.Context, t told) {
	if w.config.Attempt == nil && t.r.test == nil {
		return
	}
	a := Attempt{
		At: t.began, Duration: time.Since(t.began), Test: t.r.test != nil, ID: t.r.id, Number: max(t.r.attempt, 1),
		Method: t.r.aim.method, URL: w.shownURL(t.r.aim), RequestSize: len(t.r.body), RequestBody: w.kept(t.r.body), Failed: t.failed, Err: t.err,
	}
	a.Seqs = make([]uint64, len(t.r.indexes))
	for n, i := range t.r.indexes {
		a.Seqs[n] = t.messages[i].Seq
	}
	if t.req != nil {
		header, aim := t.req.Header, t.r.aim
		a.header = func() http.Header { return w.shownHeader(header, aim) }
	}
	if t.got != nil {
		a.Status, a.AnswerBody = t.got.StatusCode, w.kept(t.text)
		a.AnswerHeader = t.got.Header // nobody else has it
		if a.AnswerHeader.Get("Set-Cookie") != "" {
			a.AnswerHeader.Set("Set-Cookie", redacted)
		}
	}
	if t.r.test != nil {
		*t.r.test = a
	}
	if w.config.Attempt != nil {
		w.config.Attempt(ctx, a)
	}
}

func (w *Webhook) kept(body []byte) []byte {
	return bytes.Clone(body[:min(len(body), max(w.config.Kept, 0))])
}

// shownHeader hides what users configured: mostly credentials.
func (w *Webhook) shownHeader(header http.Header, a aim) http.Header {
	shown := maps.Clone(header) // the transport may still read the other one
	for name := range w.header {
		shown.Set(name, redacted)
	}
	for name := range a.header {
		shown.Set(name, redacted)
	}
	return shown
}

// shownURL hides the path and the query of the configuration: some endpoints know their
// callers by them.
func (w *Webhook) shownURL(a aim) string {
	shown := w.url.Scheme + "://" + w.url.Host
	if w.url.Path != "" && w.url.Path != "/" || w.url.RawQuery != "" {
		shown += "/…"
	}
	if a.tail == "" {
		return shown
	}
	if a.tail[0] != '/' && a.tail[0] != '?' {
		shown += "/"
	}
	return shown + a.tail
}
