package webhook

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"lockstep/locksteptest"
	"lockstep/sink"
)

const secretHeader = "hunter2-in-a-header"

// TestConformance holds every format to the contract of sinks, over HTTP/1.1 and, one
// of them, over TLS and HTTP/2.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"lockstep":               {Format: Lockstep, Secrets: []Secret{{Key: key(1)}}},
		"lockstep in parts":      {Format: Lockstep, Secrets: []Secret{{Key: key(1)}}, MaxBody: 2 << 20, PathFor: byKey},
		"plain, zipped":          {Format: Plain, Gzip: true},
		"cloudevents":            {Format: CloudEvents},
		"cloudevents structured": {Format: CloudEventsStructured, Gzip: true},
		"cloudevents batch":      {Format: CloudEventsBatch, Secrets: []Secret{{Key: key(1)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t)
			locksteptest.TestSink(t, target(e, c))
		})
	}
	t.Run("over TLS", func(t *testing.T) {
		t.Parallel()
		e := newTLSEndpoint(t)
		locksteptest.TestSink(t, target(e, Config{Secrets: []Secret{{Key: key(1)}}}))
	})
}

// byKey spreads changes over two paths.
func byKey(m sink.Message) (string, error) { return "part/" + strconv.FormatUint(m.Key%2, 10), nil }

func target(e *endpoint, c Config) locksteptest.Target {
	scheme := e.URL[:len(e.URL)-len(e.Listener.Addr().String())]
	target := locksteptest.Target{
		Address: e.Listener.Addr().String(),
		New: func(t testing.TB, address string) sink.Sink {
			c := c
			c.URL = scheme + address + "/hook/path-secret?token=query-secret"
			c.AllowPrivate = true
			c.Headers = map[string]string{"Authorization": secretHeader}
			w, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			e.trust(w)
			return w
		},
		Arrived: func(t testing.TB) []locksteptest.Arrival { return e.arrivals(t, c.Format) },
		Trouble: map[sink.Kind]func(testing.TB) func(){},
		// The endpoint rejects what holds the word.
		Poison: func(m *sink.Message) {
			m.Record = json.RawMessage(`{"poison":true}`)
			m.Body = bytes.Replace(m.Body, []byte(`"record":{`), []byte(`"record":{"poison":true,`), 1)
		},
		Secrets: []string{secretHeader, "path-secret", "query-secret", key(1), key(1)[len(secretPrefix):]},
	}
	if c.Format == Plain {
		target.Expect = func(m sink.Message) json.RawMessage { return m.Record }
	}
	e.answers(rejectPoison)
	for kind, status := range map[sink.Kind]int{
		sink.Retry: 500, sink.Throttled: 429, sink.Rejected: 422, sink.Refused: 401, sink.Gone: 410,
	} {
		target.Trouble[kind] = func(testing.TB) func() {
			e.status(status)
			return func() { e.answers(rejectPoison) }
		}
	}
	return target
}

func rejectPoison(w http.ResponseWriter, r received) bool {
	if bytes.Contains(r.Body, []byte("poison")) {
		http.Error(w, "no: "+string(r.Body), http.StatusUnprocessableEntity)
		return false
	}
	return true
}

// arrivals reads what was accepted, in the format's own way, each request once.
func (e *endpoint) arrivals(t testing.TB, format Format) []locksteptest.Arrival {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.accepted[e.read:] {
		for _, body := range bodies(t, format, r.Body) {
			e.arrived = append(e.arrived, arrival(t, format, body))
		}
	}
	e.read = len(e.accepted)
	return slices.Clone(e.arrived)
}

// bodies splits a request into its messages.
func bodies(t testing.TB, format Format, body []byte) []json.RawMessage {
	t.Helper()
	list := []json.RawMessage{body}
	switch {
	case format == CloudEventsBatch, format == Plain && body[0] == '[':
		list = nil // the decoder would write into body
		mustJSON(t, body, &list)
	case format == Lockstep || format == "":
		var several struct {
			Data []json.RawMessage `json:"data"`
		}
		if mustJSON(t, body, &several); several.Data != nil {
			list = several.Data
		}
	}
	if format == CloudEventsStructured || format == CloudEventsBatch {
		for i, b := range list {
			var e struct {
				Data json.RawMessage `json:"data"`
			}
			mustJSON(t, b, &e)
			list[i] = e.Data
		}
	}
	return list
}

func arrival(t testing.TB, format Format, body json.RawMessage) locksteptest.Arrival {
	t.Helper()
	var m struct {
		ID       string `json:"id"`
		N        uint64 `json:"n"`
		Metadata struct {
			Seq  uint64   `json:"seq"`
			Keys []string `json:"record_pks"`
		} `json:"metadata"`
	}
	mustJSON(t, body, &m)
	a := locksteptest.Arrival{Seq: m.Metadata.Seq, Body: body}
	if len(m.Metadata.Keys) == 1 {
		a.Key = m.Metadata.Keys[0]
	}
	if format == Plain {
		a = locksteptest.Arrival{Seq: m.N, Key: m.ID, Body: body}
	}
	return a
}
