package realtime_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"lockstep/internal/realtime"
)

// binaryPush is a broadcast as version 2.0.0 sends it.
func binaryPush(ref, topic, event, metadata string, encoding byte, payload string) []byte {
	b := []byte{3, 1, byte(len(ref)), byte(len(topic)), byte(len(event)), byte(len(metadata)), encoding}
	return append(b, "1"+ref+topic+event+metadata+payload...)
}

func (c *client) writeBinary(b []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), wait)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageBinary, b); err != nil {
		c.t.Fatal(err)
	}
}

func TestBroadcastsReachTheOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	sender, other, old, elsewhere, private := r.connect(), r.connect(), r.connectTo("vsn=1.0.0"), r.connect(), r.connect()
	sender.join("realtime:room", `{"broadcast":{"ack":true}}`)
	other.join("realtime:room", `{}`)
	old.join("realtime:room", `{}`)
	elsewhere.join("realtime:room2", `{}`)
	private.join("realtime:room", `{"private":true}`)

	sender.push("realtime:room", "broadcast", `{"type":"broadcast","event":"shout","payload":{"n":1}}`)
	sender.answer("ok")
	const text = `{"type":"broadcast","event":"shout","payload":{"n":1}}`
	if got := other.expect("broadcast"); got != text {
		t.Errorf("2.0.0 gets %s", got)
	}
	if got := old.expect("broadcast"); got != text {
		t.Errorf("1.0.0 gets %s", got)
	}

	sender.writeBinary(binaryPush("7", "realtime:room", "été", `{"id":"x"}`, 1, `{"n":2}`))
	if m := sender.read(); m.ref != "7" || m.event != "phx_reply" {
		t.Errorf("the sender gets %s", m.raw)
	}
	want := string([]byte{4, 13, 5, 10, 1}) + `realtime:roomété{"id":"x"}{"n":2}`
	if m := other.read(); m.raw != want || !m.binary {
		t.Errorf("2.0.0 gets %q; want %q", m.raw, want)
	}
	if got := old.expect("broadcast"); got != `{"type":"broadcast","event":"été","payload":{"n":2},"meta":{"id":"x"}}` {
		t.Errorf("1.0.0 gets %s", got)
	}

	// Bytes cannot be said in 1.0.0.
	sender.writeBinary(binaryPush("8", "realtime:room", "raw", "", 0, "\x00\xff"))
	if m := other.read(); m.raw != string([]byte{4, 13, 3, 0, 0})+"realtime:roomraw\x00\xff" {
		t.Errorf("2.0.0 gets %q", m.raw)
	}
	old.push("realtime:room", "broadcast", `{"type":"broadcast","event":"last","payload":{}}`)
	for _, c := range []*client{sender, other} {
		for {
			if m := c.read(); strings.Contains(m.raw, "last") {
				break
			}
		}
	}
	for _, c := range []*client{old, elsewhere, private} {
		c.push("phoenix", "heartbeat", "{}")
		if m := c.read(); m.topic != "phoenix" {
			t.Errorf("got %s", m.raw)
		}
	}
}

func TestABroadcastComesBackWhenAskedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	c.join("realtime:room", `{"broadcast":{"self":true}}`)
	c.push("realtime:room", "broadcast", `{"type":"broadcast","event":"x","payload":{}}`)
	c.expect("broadcast")
	c.push("phoenix", "heartbeat", "{}")
	if m := c.read(); m.topic != "phoenix" {
		t.Errorf("got %s: no answer was asked for", m.raw)
	}
}

func (r *rig) post(path, contentType, body string, header ...string) (int, string, http.Header) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.http.URL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := r.http.Client().Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, string(text), response.Header
}

func TestBroadcastsByHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) { c.Limits.HTTPMessages = 5 })
	c, old := r.connect(), r.connectTo("vsn=1.0.0")
	c.join("realtime:a room", `{}`)
	old.join("realtime:a room", `{}`)
	if status, text, _ := r.post("/realtime/v1/api/broadcast?apikey=x&vsn=2.0.0", "application/json", `{"messages":[{"topic":"a room","event":"e","payload":{"n":1},"private":false},{"topic":"a room","event":"f","payload":2},{"topic":"other","event":"g","payload":3}]}`); status != 202 {
		t.Errorf("%d %s", status, text)
	}
	if got := c.expect("broadcast") + c.expect("broadcast"); got != `{"type":"broadcast","event":"e","payload":{"n":1}}{"type":"broadcast","event":"f","payload":2}` {
		t.Errorf("got %s", got)
	}
	if status, text, _ := r.post("/realtime/v1/api/broadcast/a%20room/events/up%2Fdate?apikey=x", "application/json", `{"n":4}`); status != 202 {
		t.Errorf("%d %s", status, text)
	}
	if m := c.read(); !m.binary || !strings.HasSuffix(m.raw, `realtime:a roomup/date{"n":4}`) {
		t.Errorf("got %q", m.raw)
	}
	if status, text, _ := r.post("/realtime/v1/api/broadcast/a%20room/events/raw", "application/octet-stream", "\x00"); status != 202 {
		t.Errorf("%d %s", status, text)
	}
	if m := c.read(); !strings.HasSuffix(m.raw, "raw\x00") {
		t.Errorf("got %q", m.raw)
	}
	for _, event := range []string{"e", "f", "up/date"} {
		if got := old.expect("broadcast"); !strings.Contains(got, `"event":"`+event+`"`) {
			t.Errorf("1.0.0 gets %s; want %s", got, event)
		}
	}
	for body, want := range map[string]int{`{`: 422, `{"messages":[]}`: 422, `{"messages":[{"topic":"a"}]}`: 422, `{"messages":[{"topic":"","event":"e","payload":1}]}`: 422} {
		if status, text, _ := r.post("/realtime/v1/api/broadcast", "application/json", body); status != want || !strings.Contains(text, `{"error":`) {
			t.Errorf("%s: %d %s; want %d", body, status, text, want)
		}
	}
	if status, _, _ := r.post("/realtime/v1/api/broadcast/a/events/b", "text/plain", "x"); status != 415 {
		t.Errorf("text: %d", status)
	}
	for range 20 {
		if status, _, header := r.post("/realtime/v1/api/broadcast/a/events/b", "application/json", "1"); status == 429 {
			if header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			return
		}
	}
	t.Error("there is no limit")
}

// diff is a presence_diff, or a presence_state in joins.
type diff struct {
	Joins, Leaves map[string]struct{ Metas []map[string]any }
}

func (c *client) diff() diff {
	c.t.Helper()
	var d diff
	if payload := c.expect("presence_diff"); json.Unmarshal([]byte(payload), &d) != nil {
		c.t.Fatal(payload)
	}
	return d
}

func TestPresence(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ann, bob := r.connect(), r.connectTo("vsn=1.0.0")
	ann.join("realtime:room", `{"presence":{"key":"ann","enabled":true}}`)
	if state := ann.expect("presence_state"); state != "{}" {
		t.Errorf("state %s", state)
	}
	bob.join("realtime:room", `{"presence":{"key":"bob"}}`) // older clients do not know the switch
	bob.expect("presence_state")

	ann.push("realtime:room", "presence", `{"type":"presence","event":"track","payload":{"name":"Ann","phx_ref":"forged"}}`)
	ann.answer("ok")
	for _, c := range []*client{ann, bob} {
		d := c.diff()
		metas := d.Joins["ann"].Metas
		if len(metas) != 1 || metas[0]["name"] != "Ann" || metas[0]["phx_ref"] == "forged" || metas[0]["phx_ref"] == "" || len(d.Leaves) != 0 {
			t.Errorf("diff %+v", d)
		}
	}
	// Changing what is told joins the new and leaves the old.
	ann.push("realtime:room", "presence", `{"type":"presence","event":"track","payload":{"name":"Anna"}}`)
	ann.answer("ok")
	d := bob.diff()
	now, before := d.Joins["ann"].Metas[0], d.Leaves["ann"].Metas[0]
	if now["name"] != "Anna" || before["name"] != "Ann" || now["phx_ref_prev"] != before["phx_ref"] || now["phx_ref"] == before["phx_ref"] {
		t.Errorf("diff %+v", d)
	}

	// Two of one key, and one who did not want presence until it tracks.
	second, late := r.connect(), r.connect()
	second.join("realtime:room", `{"presence":{"key":"ann","enabled":true}}`)
	second.expect("presence_state")
	second.push("realtime:room", "presence", `{"event":"track","payload":{}}`)
	second.answer("ok")
	late.join("realtime:room", `{"presence":{"enabled":false}}`)
	late.push("realtime:room", "presence", `{"event":"TRACK","payload":null}`)
	late.answer("ok")
	var state map[string]struct{ Metas []map[string]any }
	if text := late.expect("presence_state"); json.Unmarshal([]byte(text), &state) != nil || len(state) != 2 || len(state["ann"].Metas) != 2 || state["ann"].Metas[0]["name"] != "Anna" {
		t.Errorf("state %s; want ann twice, and the late one by a key of its own", text)
	}
	// Leaving, and going without a word, are told.
	second.push("realtime:room", "phx_leave", "{}")
	second.expect("presence_diff") // its own
	second.expect("presence_diff") // the late one's
	second.answer("ok")
	_ = late.conn.CloseNow()
	ann.push("realtime:room", "presence", `{"event":"untrack"}`)
	left := map[string]int{}
	for len(left) < 2 || left["ann"] < 2 {
		for key, p := range bob.diff().Leaves {
			left[key] += len(p.Metas)
		}
	}
	bob.push("realtime:room", "presence", `{"event":"track","payload":[1]}`)
	if reason := bob.answer("error"); !strings.Contains(reason, "must be a map") {
		t.Errorf("reason %s", reason)
	}
	bob.push("realtime:room", "presence", `{"event":"dance"}`)
	bob.answer("error")
}

func TestTooMuchEndsTheChannel(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) {
		c.Limits.Messages = 5
		c.Limits.PresenceCalls = 3
		c.Limits.PresenceWindow = time.Hour
	})
	c := r.connect()
	c.join("realtime:room", `{}`)
	for range 11 {
		c.push("realtime:room", "broadcast", `{"type":"broadcast","event":"x","payload":{}}`)
	}
	if system := c.expect("system"); !strings.Contains(system, `"extension":"system"`) || !strings.Contains(system, "Too many messages per second") {
		t.Errorf("system %s", system)
	}
	c.expect("phx_close")
	c.join("realtime:room", `{"presence":{"enabled":false}}`)
	for range 4 {
		c.push("realtime:room", "presence", `{"event":"untrack"}`)
	}
	for range 3 {
		c.expect("phx_reply")
	}
	if system := c.expect("system"); !strings.Contains(system, "Client presence rate limit exceeded") {
		t.Errorf("system %s", system)
	}
	c.expect("phx_close")
}
