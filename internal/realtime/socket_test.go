package realtime_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"lockstep"
	"lockstep/internal/realtime"
)

// scopes are the tokens of tests.
func scopes(_ context.Context, token string) (realtime.Claims, error) {
	switch token {
	case "reader":
		return realtime.Claims{Name: "r", Read: true}, nil
	case "consumer":
		return realtime.Claims{Name: "c"}, nil
	case "down":
		return realtime.Claims{}, fmt.Errorf("no database: %w", lockstep.ErrUnavailable)
	}
	return realtime.Claims{}, errors.New("no valid token")
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) {
		c.Authorize = scopes
		c.AllowedOrigins = []string{"https://app.example.com", "https://*.preview.example.com"}
	})
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	for _, tc := range []struct {
		query  string
		header http.Header
		status int
		body   string
	}{
		{"apikey=reader", nil, 101, ""},
		{"", header("X-Api-Key", "reader"), 101, ""},
		{"", header("Authorization", "Bearer reader"), 101, ""},
		{"", nil, 401, "API key is missing"},
		{"apikey=wrong", nil, 401, "no valid token"},
		{"apikey=consumer", nil, 403, "it needs read"},
		{"apikey=down", nil, 503, "cannot be checked"},
		{"apikey=reader&vsn=3.0.0", nil, 400, "not known"},
		{"apikey=reader&database=nope", nil, 404, "nope"},
		{"apikey=reader", header("Origin", "https://evil.example"), 403, "other sites"},
		{"apikey=reader", header("Origin", "null"), 403, "other sites"},
		{"apikey=reader", header("Origin", "http://localhost:5173"), 403, "other sites"},
		{"apikey=reader", header("Origin", "https://app.example.com"), 101, ""},
		{"apikey=reader", header("Origin", "https://APP.example.com"), 101, ""},
		{"apikey=reader", header("Origin", "http://app.example.com"), 403, ""},
		{"apikey=reader", header("Origin", "https://x.preview.example.com"), 101, ""},
		{"apikey=reader", header("Origin", "https://.preview.example.com.evil.example"), 403, ""},
		{"apikey=reader", header("Origin", r.http.URL), 101, ""},
	} {
		query := tc.query
		c, response, err := r.dial(query, tc.header)
		if response == nil {
			t.Fatalf("%s: %v", query, err)
		}
		if response.StatusCode != tc.status {
			t.Errorf("%s %v: %d; want %d", query, tc.header, response.StatusCode, tc.status)
		}
		if c != nil {
			_ = c.conn.CloseNow()
			continue
		}
		text := make([]byte, 1000)
		n, _ := response.Body.Read(text)
		if !strings.Contains(string(text[:n]), `{"error":"`) || !strings.Contains(string(text[:n]), tc.body) {
			t.Errorf("%s: %s; want %s", query, text[:n], tc.body)
		}
	}
}

func TestAnOpenNodeAnswersItsOwnMachineOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) { c.AllowedOrigins = []string{"*"} })
	for origin, want := range map[string]int{"": 101, "http://localhost:5173": 101, "http://127.0.0.1:1": 101, "http://[::1]:1": 101, "https://evil.example": 403, "null": 403} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		c, response, _ := r.dial("", h)
		if response.StatusCode != want {
			t.Errorf("origin %q: %d; want %d", origin, response.StatusCode, want)
		}
		if c != nil {
			_ = c.conn.CloseNow()
		}
	}
	// A name that was made to resolve to this machine.
	if status, text, _ := r.post("/realtime/v1/api/broadcast/a/events/b", "application/json", "1", "Origin", "http://localhost:5173"); status != 202 {
		t.Errorf("%d %s", status, text)
	}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http.URL+"/realtime/v1/api/broadcast/a/events/b", strings.NewReader("1"))
	request.Host = "rebound.example"
	response, err := r.http.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 403 {
		t.Errorf("a foreign Host: %d", response.StatusCode)
	}
}

func TestANodeMayBeOpenAndCeaseToBe(t *testing.T) {
	t.Parallel()
	var closed atomic.Bool
	r := newRig(t, func(c *realtime.Config) {
		c.AllowedOrigins = []string{"*"}
		c.Open = func() bool { return !closed.Load() }
		c.Authorize = func(ctx context.Context, token string) (realtime.Claims, error) {
			if !closed.Load() {
				return realtime.Claims{Read: true}, nil
			}
			return scopes(ctx, token)
		}
	})
	evil := http.Header{"Origin": {"https://evil.example"}}
	c, _, err := r.dial("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.join("realtime:room", `{}`)
	if _, response, err := r.dial("", evil); err == nil || response.StatusCode != 403 {
		t.Errorf("a foreign page at an open node: %v", err)
	}
	closed.Store(true)
	if _, response, err := r.dial("", nil); err == nil || response.StatusCode != 401 {
		t.Errorf("without a token: %v", err)
	}
	if _, _, err := r.dial("apikey=reader", evil); err != nil {
		t.Errorf("an allowed page, with a token: %v", err)
	}
}

func TestPagesThatAreAllowedMayPost(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) { c.Authorize = scopes; c.AllowedOrigins = []string{"*"} })
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodOptions, r.http.URL+"/realtime/v1/api/broadcast", nil)
	request.Header.Set("Origin", "https://app.example.com")
	response, err := r.http.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 204 || response.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || !strings.Contains(response.Header.Get("Access-Control-Allow-Headers"), "apikey") {
		t.Errorf("%d %v", response.StatusCode, response.Header)
	}
	for token, want := range map[string]int{"": 401, "consumer": 403, "reader": 202} {
		if status, text, _ := r.post("/realtime/v1/api/broadcast/a/events/b", "application/json", "1", "apikey", token); status != want {
			t.Errorf("%s: %d %s; want %d", token, status, text, want)
		}
	}
}

func TestTokensOfChannels(t *testing.T) {
	t.Parallel()
	var revoked atomic.Bool
	r := newRig(t, func(c *realtime.Config) {
		c.Limits.Reauthorize = 20 * time.Millisecond
		c.Authorize = func(ctx context.Context, token string) (realtime.Claims, error) {
			switch {
			case token == "revocable" && !revoked.Load(), token == "unknowable" && !revoked.Load():
				return realtime.Claims{Read: true}, nil
			case token == "unknowable":
				return realtime.Claims{}, lockstep.ErrUnavailable
			case token == "brief":
				return realtime.Claims{Read: true, Expires: time.Now().Add(200 * time.Millisecond)}, nil
			}
			return scopes(ctx, token)
		}
	})
	c := r.connectTo("apikey=reader")
	joinWith := func(topic, token string) {
		c.ref = 0
		c.push(topic, "phx_join", `{"config":{"presence":{"enabled":false}},"access_token":"`+token+`"}`)
	}
	joinWith("realtime:a", "consumer")
	if reason := c.answer("error"); !strings.Contains(reason, "Unauthorized") {
		t.Errorf("reason %s", reason)
	}
	for _, token := range []string{"sb_publishable_x", "", "unknowable", "reader"} {
		joinWith("realtime:with "+token, token)
		c.answer("ok")
	}
	// A token that is refused on the way ends its channel only.
	c.push("realtime:with reader", "access_token", `{"access_token":"sb_x"}`)
	c.push("realtime:with reader", "access_token", `{"access_token":"unknowable"}`)
	c.push("realtime:with reader", "access_token", `{"access_token":"wrong"}`)
	if system := c.expect("system"); !strings.Contains(system, "Unauthorized") {
		t.Errorf("system %s", system)
	}
	c.expect("phx_close")
	joinWith("realtime:brief", "brief")
	c.answer("ok")
	if system := c.expect("system"); !strings.Contains(system, "expired") || !strings.Contains(system, `"channel":"brief"`) {
		t.Errorf("system %s", system)
	}
	c.expect("phx_close")
	joinWith("realtime:revocable", "revocable")
	c.answer("ok")
	revoked.Store(true)
	if system := c.expect("system"); !strings.Contains(system, "Unauthorized") || !strings.Contains(system, `"channel":"revocable"`) {
		t.Errorf("system %s; one that cannot be checked for now stays", system)
	}
}

func TestLimitsOfASocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) {
		c.Limits.Channels, c.Limits.Sockets, c.Limits.MessageBytes, c.Limits.Frames = 3, 2, 10_000, 20
	})
	c, second := r.connect(), r.connect()
	if _, response, err := r.dial("", nil); err == nil || response.StatusCode != 429 {
		t.Errorf("a third socket: %v", err)
	}
	for i := range 3 {
		c.join(fmt.Sprintf("realtime:%d", i), `{}`)
	}
	c.ref = 0
	c.push("realtime:one too many", "phx_join", `{}`)
	if reason := c.answer("error"); !strings.Contains(reason, "ChannelRateLimitReached") {
		t.Errorf("reason %s", reason)
	}
	// One byte too long, so that all of it is read before the end: bytes that come after
	// it would make the network drop what the server still says.
	const frame = `["1","1","realtime:0","broadcast",""]`
	c.write(frame[:len(frame)-2] + strings.Repeat("x", 10_001-len(frame)) + `"]`)
	if end := c.closed(); end.Code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", end)
	}
	for range 60 {
		second.push("phoenix", "heartbeat", "{}")
	}
	if end := second.closed(); end.Code != websocket.StatusPolicyViolation || !strings.Contains(end.Reason, "too many") {
		t.Errorf("closed with %v", end)
	}
}

func TestBadMessagesEndTheSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, text := range []string{"", "x", "[]", `[1,2,3,4,5]`, `{"topic":"a"}`, `[{},"1","t","e",{}]`, `["1","1","` + strings.Repeat("t", 256) + `","e",{}]`} {
		c := r.connect()
		c.write(text)
		if end := c.closed(); end.Code != websocket.StatusInvalidFramePayloadData || end.Reason == "" {
			t.Errorf("%.40s: closed with %v", text, end)
		}
	}
	for _, b := range [][]byte{nil, {3}, {9, 0, 0, 0, 0, 0, 0}, {3, 9, 0, 0, 0, 0, 1}, binaryPush("1", "t", "e", "", 1, "{"), binaryPush("1", "t", "e", "", 2, ""), binaryPush("1", "t", "e", "{", 0, "")} {
		c := r.connect()
		c.writeBinary(b)
		if end := c.closed(); end.Code != websocket.StatusInvalidFramePayloadData {
			t.Errorf("%v: closed with %v", b, end)
		}
	}
	old := r.connectTo("vsn=1.0.0")
	old.writeBinary(binaryPush("1", "t", "e", "", 1, "{}"))
	if end := old.closed(); end.Code != websocket.StatusInvalidFramePayloadData {
		t.Errorf("1.0.0: closed with %v", end)
	}
	// What is well formed and makes no sense is answered.
	c := r.connect()
	for event, topic := range map[string]string{"phx_join": "other:x", "broadcast": "realtime:not joined", "presence": "realtime:not joined"} {
		c.ref = 0
		c.push(topic, event, "{}")
		if reason := c.answer("error"); !strings.Contains(reason, "unmatched topic") {
			t.Errorf("%s: %s", event, reason)
		}
	}
	c.ref = 0
	c.push("realtime:", "phx_join", "{}")
	if reason := c.answer("error"); !strings.Contains(reason, "TopicNameRequired") {
		t.Errorf("reason %s", reason)
	}
	c.push("realtime:x", "phx_join", `{"config":7}`)
	if reason := c.answer("error"); !strings.Contains(reason, "InvalidJoinPayload") {
		t.Errorf("reason %s", reason)
	}
	c.push("realtime:not joined", "phx_leave", "{}")
	c.answer("ok")
}

func TestASilentSocketIsClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) { c.Limits.Idle = 500 * time.Millisecond })
	c := r.connect()
	if end := c.closed(); end.Code != websocket.StatusPolicyViolation || end.Reason != "no heartbeat" {
		t.Errorf("closed with %v", end)
	}
}

func TestTheEndIsTold(t *testing.T) {
	t.Parallel()
	r := newTightRig(t, nil)
	c, stuck := r.connect(), r.connect()
	c.follow(everything)
	stuck.follow(everything)
	body := `,"body":"` + strings.Repeat("x", 50_000) + `"`
	for id := range 20 {
		r.log.add(t, insert(id, body))
	}
	c.sequences(20)
	began := time.Now()
	stopped := make(chan struct{})
	go func() {
		r.stop()
		close(stopped)
	}()
	if end := c.closed(); end.Code != websocket.StatusGoingAway {
		t.Errorf("closed with %v", end)
	}
	<-stopped
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the end took %s, for a client that reads nothing", took)
	}
	if r.log.open() != 0 {
		t.Errorf("%d readers are left", r.log.open())
	}
}

func TestAfterTheEndNobodyIsServed(t *testing.T) {
	t.Parallel()
	s := realtime.New(realtime.Config{Log: func(string) (realtime.Log, error) { return newMemLog(), nil }})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	r := startServed(t, s)
	if _, response, err := r.dial("", nil); err == nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end: %v", err)
	}
}
