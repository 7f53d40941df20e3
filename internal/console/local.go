package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// local calls a handler in this process as if it were a server. An answer can be read
// while it is written, as streams of events need it.
type local struct{ handler http.Handler }

// remoteKey is where a request's context keeps the address of the page's reader.
type remoteKey struct{}

// RoundTrip implements http.RoundTripper.
func (l local) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	in := r.Clone(ctx)
	in.RequestURI = r.URL.RequestURI()
	in.Host = r.URL.Host
	in.RemoteAddr, _ = ctx.Value(remoteKey{}).(string)
	if in.Body == nil {
		in.Body = http.NoBody
	}
	read, write := io.Pipe()
	out := &answer{header: http.Header{}, pipe: write, begun: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil { // as a server does: the connection breaks
				_ = write.CloseWithError(errors.New("the API broke off its answer"))
				out.begin(http.StatusInternalServerError)
			}
		}()
		l.handler.ServeHTTP(out, in)
		out.begin(http.StatusOK)
		_ = write.Close()
	}()
	select {
	case <-out.begun:
	case <-r.Context().Done():
		cancel()
		_ = read.CloseWithError(r.Context().Err())
		<-done
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(out.status), StatusCode: out.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.sent, ContentLength: -1, Request: r, Body: &body{PipeReader: read, cancel: cancel, done: done},
	}, nil
}

// body ends the handler when it is closed, and returns after it.
type body struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   <-chan struct{}
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.cancel()
	err := b.PipeReader.Close()
	<-b.done
	return err
}

// answer is what a handler writes to.
type answer struct {
	header http.Header
	pipe   *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	status int         // fixed when begun is closed
	sent   http.Header // likewise
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status >= 200 {
		a.begin(status)
	}
}

// Write implements http.ResponseWriter. It waits until the bytes were read.
func (a *answer) Write(p []byte) (int, error) {
	a.begin(http.StatusOK)
	return a.pipe.Write(p)
}

// Flush implements http.Flusher.
func (a *answer) Flush() { a.begin(http.StatusOK) }

// SetWriteDeadline does nothing: who reads is this process, and ends the call itself.
func (a *answer) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, as above.
func (a *answer) SetReadDeadline(time.Time) error { return nil }

func (a *answer) begin(status int) {
	a.once.Do(func() {
		a.status, a.sent = status, a.header.Clone()
		close(a.begun)
	})
}
