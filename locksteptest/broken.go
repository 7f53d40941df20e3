package locksteptest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"lockstep/source"
)

// Unlimited is a limiter that lets everything through.
type Unlimited struct{}

// Wait implements source.Limiter.
func (Unlimited) Wait(context.Context, []string, source.Priority, float64) (func(*http.Response), error) {
	return func(*http.Response) {}, nil
}

// Penalize implements source.Limiter.
func (Unlimited) Penalize(string, time.Duration) {}

// Counter is a transport and a limiter that count.
type Counter struct {
	Base http.RoundTripper

	mu                     sync.Mutex
	sent, waited, released int
	penalties              []time.Duration
}

// RoundTrip implements http.RoundTripper.
func (c *Counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.sent++
	c.mu.Unlock()
	return c.Base.RoundTrip(r)
}

// Wait implements source.Limiter.
func (c *Counter) Wait(context.Context, []string, source.Priority, float64) (func(*http.Response), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited++
	return func(*http.Response) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.released++
	}, nil
}

// Penalize implements source.Limiter.
func (c *Counter) Penalize(_ string, pause time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.penalties = append(c.penalties, pause)
}

// Counts returns how many requests were sent, waited for and released.
func (c *Counter) Counts() (sent, waited, released int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent, c.waited, c.released
}

// Penalties returns the pauses that were asked for.
func (c *Counter) Penalties() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Duration{}, c.penalties...)
}

// Hang is a transport that never answers.
type Hang struct{}

// RoundTrip implements http.RoundTripper.
func (Hang) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Canned is a transport that gives one answer to everything; After is how many
// requests go through before it does.
type Canned struct {
	Status int
	Header map[string]string
	Body   string
	Cut    int // bytes of the body after which the connection breaks; 0: it does not
	Fail   error

	Base  http.RoundTripper
	After int

	mu   sync.Mutex
	seen int
}

// RoundTrip implements http.RoundTripper.
func (c *Canned) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.seen++
	through := c.seen <= c.After
	c.mu.Unlock()
	if through {
		return c.Base.RoundTrip(r)
	}
	if c.Fail != nil {
		return nil, c.Fail
	}
	var body io.Reader = bytes.NewReader([]byte(c.Body))
	if c.Cut > 0 {
		body = io.MultiReader(bytes.NewReader([]byte(c.Body)[:c.Cut]), broken{})
	}
	header := http.Header{}
	for name, v := range c.Header {
		header.Set(name, v)
	}
	return &http.Response{
		StatusCode: c.Status, Status: strconv.Itoa(c.Status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(body), ContentLength: int64(len(c.Body)), Request: r,
	}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// testBroken: none of these is a page, and all are tried again.
func (s Subject) testBroken(t *testing.T) {
	for name, answer := range map[string]*Canned{
		"the connection is refused": {Fail: errors.New("connection refused")},
		"cut off":                   {Status: 200, Body: `{"data":[{"id":"1"},{"id":"2"}],"has_more":false}`, Cut: 20},
		"half a document":           {Status: 200, Body: `{"data":[{"id":"1"}`},
		"an HTML page":              {Status: 200, Header: map[string]string{"Content-Type": "text/html"}, Body: "<html>sign in</html>"},
		"nothing":                   {Status: 200},
		"an HTML page with 502":     {Status: 502, Body: "<html>bad gateway</html>"},
		"503":                       {Status: 503, Body: "{}"},
	} {
		src := s.New(t, answer, Unlimited{})
		c := s.collections(t, src)[0]
		page, err := src.Backfill(t.Context(), c.Name, nil)
		var refused *source.Error
		if !errors.As(err, &refused) || refused.Kind != source.Retry {
			t.Errorf("%s: got %d records and %v, want an error of kind retry", name, len(page.Records), err)
			continue
		}
		s.leaks(t, err.Error())
	}
}

// testKinds: what a refusal means, and that a rate limit pauses its bucket.
func (s Subject) testKinds(t *testing.T) {
	for status, want := range map[int]source.Kind{401: source.Unauthorized, 403: source.Forbidden, 429: source.RateLimited, 400: source.Invalid} {
		header := map[string]string{}
		if status == http.StatusTooManyRequests {
			header["Retry-After"] = "7"
		}
		counter := &Counter{Base: &Canned{Status: status, Header: header, Body: `{"error":{"message":"no"},"message":"no"}`}}
		src := s.New(t, counter, counter)
		c := s.collections(t, src)[0]
		_, err := src.Backfill(t.Context(), c.Name, nil)
		var refused *source.Error
		if !errors.As(err, &refused) || refused.Kind != want {
			t.Errorf("%d: got %v, want an error of kind %s", status, err, want)
			continue
		}
		s.leaks(t, err.Error())
		if status == http.StatusTooManyRequests {
			if refused.After < 7*time.Second {
				t.Errorf("429: may be asked again after %s, want at least 7s", refused.After)
			}
			if p := counter.Penalties(); len(p) == 0 || p[0] < 7*time.Second {
				t.Errorf("429: the limiter was told %v, want at least 7s", p)
			}
		}
	}
}
