package sandbox

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"time"
)

// spoil answers a request as a fault wants it.
func (c *Core) spoil(w *answer, r *http.Request, f *Fault) {
	if !pause(r, time.Duration(f.Delay)) {
		abort(w)
	}
	if f.early() {
		if f.After {
			c.config.Vendor.ServeHTTP(&buffer{header: http.Header{}}, r)
		}
		c.refuse(w, r, f)
		return
	}
	whole := &buffer{header: w.Header().Clone(), status: http.StatusOK}
	c.config.Vendor.ServeHTTP(whole, r)
	body := whole.body.Bytes()
	maps.Copy(w.Header(), whole.header)
	f.head(w)
	switch f.Kind {
	case FaultTruncate:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(whole.status)
		_, _ = w.Write(body[:min(f.upTo(len(body)/2), len(body))])
		_ = http.NewResponseController(w).Flush()
		abort(w)
	case FaultLength:
		short := min(f.upTo(len(body)*2/3), len(body))
		w.Header().Set("Content-Length", strconv.Itoa(short))
		w.WriteHeader(whole.status)
		_, _ = w.Write(body[:short])
	case FaultSlow:
		c.drip(w, r, whole, f)
	case FaultGzip:
		broken := compress(body)
		w.Header().Set("Content-Encoding", "gzip")
		WriteBody(w, whole.status, w.Header().Get("Content-Type"), broken[:len(broken)/2])
	case FaultType:
		WriteBody(w, whole.status, "text/plain; charset=utf-8", body)
	default: // delay
		w.WriteHeader(whole.status)
		_, _ = w.Write(body)
	}
}

// early says whether the answer owes nothing to the request.
func (f *Fault) early() bool {
	switch f.Kind {
	case FaultStatus, FaultHTML, FaultEmpty, FaultRedirect, FaultReset, FaultHang:
		return true
	}
	return false
}

// refuse answers without regard to the request.
func (c *Core) refuse(w *answer, r *http.Request, f *Fault) {
	switch f.Kind {
	case FaultReset:
		reset(w)
	case FaultHang:
		<-r.Context().Done()
		abort(w)
	case FaultHTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		f.head(w)
		w.WriteHeader(f.orStatus(http.StatusOK))
		page := "<!DOCTYPE html>\n<html><head><title>One moment</title></head><body><h1>Please wait</h1></body></html>\n"
		fmt.Fprint(w, f.orBody(page))
	case FaultEmpty:
		f.head(w)
		w.WriteHeader(f.orStatus(http.StatusNoContent))
	case FaultRedirect:
		w.Header().Set("Location", f.Location)
		f.head(w)
		w.WriteHeader(f.orStatus(http.StatusFound))
	default:
		status := f.orStatus(http.StatusInternalServerError)
		kind, body := c.config.Refuse(status)
		w.Header().Set("Content-Type", kind)
		f.head(w)
		w.WriteHeader(status)
		fmt.Fprint(w, f.orBody(string(body)))
	}
}

func (c *Core) drip(w *answer, r *http.Request, whole *buffer, f *Fault) {
	rate := f.BytesPerSecond
	if rate <= 0 {
		rate = 1
	}
	w.Header().Set("Content-Length", strconv.Itoa(whole.body.Len()))
	w.WriteHeader(whole.status)
	// Ten times a second is as smooth as a reader can tell.
	piece, every := max(rate/10, 1), time.Second/10
	if rate < 10 {
		every = time.Second / time.Duration(rate)
	}
	for body := whole.body.Bytes(); len(body) > 0; {
		n := min(piece, len(body))
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		body = body[n:]
		if !pause(r, every) {
			return
		}
	}
}

func (f *Fault) head(w *answer) {
	for name, value := range f.Headers {
		w.Header().Set(name, value)
	}
}

func (f *Fault) orStatus(other int) int {
	if f.Status != 0 {
		return f.Status
	}
	return other
}

func (f *Fault) orBody(other string) string {
	if f.Body != "" {
		return f.Body
	}
	return other
}

func (f *Fault) upTo(other int) int {
	if f.Bytes > 0 {
		return f.Bytes
	}
	return other
}

// pause waits, and returns false when the client has gone.
func pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// reset ends the connection with a TCP reset where that can be done.
func reset(w *answer) {
	w.finish()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		abort(w)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// abort ends the connection in the middle of the answer: this is how net/http wants
// to be told, and it logs nothing.
func abort(w *answer) {
	w.finish()
	panic(http.ErrAbortHandler)
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body)
	_ = z.Close()
	return b.Bytes()
}

// buffer keeps an answer.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }
