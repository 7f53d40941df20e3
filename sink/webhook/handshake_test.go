package webhook

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"lockstep/sink"
)

// consents answers OPTIONS with those headers, and takes everything else.
func (e *endpoint) consents(status int, header ...string) {
	e.answers(func(w http.ResponseWriter, r received) bool {
		if r.Method != http.MethodOptions {
			return true
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		return false
	})
}

func (e *endpoint) methods() (list []string) {
	for _, r := range e.seen() {
		list = append(list, r.Method)
	}
	return list
}

// TestAHandshakeComesBeforeTheFirstDelivery, once, with what the user configured, and
// deliveries say the origin.
func TestAHandshakeComesBeforeTheFirstDelivery(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.consents(http.StatusOK, "WebHook-Allowed-Origin", "Events.Example.com", "WebHook-Allowed-Rate", "*")
	var told []Attempt
	w := e.open(t, Config{
		Handshake: true, Origin: "events.example.com", RequestRate: 120, Headers: map[string]string{"Authorization": "Bearer x"}, URL: e.URL + "/hook?a=b",
		Attempt: func(_ context.Context, a Attempt) { told = append(told, a) },
	})
	for seq := range uint64(2) {
		if _, err := w.Write(t.Context(), []sink.Message{change(seq+1, "7")}); err != nil {
			t.Fatal(err)
		}
	}
	seen := e.seen()
	if len(seen) != 3 || seen[0].Method != http.MethodOptions || len(seen[0].Body) > 0 || seen[0].Path != "/hook?a=b" || len(e.accepted) != 2 {
		t.Fatalf("got %v", e.methods())
	}
	h := seen[0].Header
	if h.Get("WebHook-Request-Origin") != "events.example.com" || h.Get("WebHook-Request-Rate") != "120" || h.Get("Authorization") != "Bearer x" || h.Get("webhook-signature") != "" {
		t.Errorf("the handshake has the header %v", h)
	}
	for _, r := range seen[1:] {
		if r.Header.Get("WebHook-Request-Origin") != "events.example.com" {
			t.Errorf("a delivery has the header %v", r.Header)
		}
	}
	if len(told) != 3 || told[0].Method != http.MethodOptions || told[0].Status != http.StatusOK || told[0].RequestHeader().Get("Authorization") != redacted || len(told[0].Seqs) > 0 {
		t.Errorf("attempts: %+v", told)
	}
}

// TestWithoutConsentNothingIsDelivered: and it is asked again, until there is consent.
func TestWithoutConsentNothingIsDelivered(t *testing.T) {
	t.Parallel()
	const origin, rate = "WebHook-Allowed-Origin", "WebHook-Allowed-Rate"
	for name, tc := range map[string]struct {
		status int
		header []string
		ask    int // rate
		kind   sink.Kind
		after  time.Duration
		text   string
	}{
		"knows nothing of it":      {200, nil, 0, sink.Refused, 0, "OPTIONS, answered 200): there is no WebHook-Allowed-Origin"},
		"takes no OPTIONS":         {405, nil, 0, sink.Refused, 0, "answered 405"},
		"is not there":             {404, nil, 0, sink.Refused, 0, "answered 404"},
		"redirects":                {302, []string{"Location", "https://a.test"}, 0, sink.Refused, 0, "answered 302"},
		"allows another":           {200, []string{origin, "other.test"}, 0, sink.Refused, 0, "is not lockstep"},
		"does not say the rate":    {200, []string{origin, "*"}, 60, sink.Refused, 0, "no WebHook-Allowed-Rate"},
		"says a rate of nonsense":  {200, []string{origin, "*", rate, "many"}, 0, sink.Refused, 0, "neither * nor a number"},
		"says a rate of nothing":   {200, []string{origin, "*", rate, "0"}, 60, sink.Refused, 0, "neither * nor a number"},
		"is away":                  {503, []string{"Retry-After", "7"}, 0, sink.Throttled, 7 * time.Second, "answered 503 to the handshake"},
		"fails":                    {500, nil, 0, sink.Retry, 0, "answered 500 to the handshake"},
		"wants nothing ever again": {410, nil, 0, sink.Gone, 0, "answered 410 to the handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t)
			e.consents(tc.status, tc.header...)
			w := e.open(t, Config{Handshake: true, RequestRate: tc.ask})
			done, err := w.Write(t.Context(), []sink.Message{change(1, "7"), change(2, "8")})
			var refused *sink.Error
			if done != 0 || !errors.As(err, &refused) || refused.Kind != tc.kind || refused.After != tc.after {
				t.Fatalf("got %d and %#v, want kind %s", done, err, tc.kind)
			}
			mustContain(t, err.Error(), tc.text)
			if got := e.methods(); len(got) != 1 || got[0] != http.MethodOptions {
				t.Fatalf("got %v, want one OPTIONS", got)
			}
			e.consents(http.StatusNoContent, origin, "*", rate, "*")
			if done, err := w.Write(t.Context(), []sink.Message{change(1, "7"), change(2, "8")}); done != 2 || err != nil {
				t.Errorf("with consent %d are delivered: %v", done, err)
			}
		})
	}
}

// TestCallsAtTheSameTimeShareAHandshake, also one that is refused.
func TestCallsAtTheSameTimeShareAHandshake(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusForbidden} {
		e := newEndpoint(t)
		asked, answer := make(chan struct{}), make(chan struct{})
		var once sync.Once
		e.answers(func(w http.ResponseWriter, r received) bool {
			if r.Method != http.MethodOptions {
				return true
			}
			once.Do(func() { close(asked) })
			<-answer
			if status == http.StatusOK {
				w.Header().Set("WebHook-Allowed-Origin", "*")
			}
			w.WriteHeader(status)
			return false
		})
		w := e.open(t, Config{Handshake: true})
		const calls = 8
		began := make(chan struct{}, calls)
		var all sync.WaitGroup
		for i := range calls {
			all.Go(func() {
				began <- struct{}{}
				_, err := w.Write(t.Context(), []sink.Message{change(uint64(i+1), "7")})
				if err == nil != (status == http.StatusOK) {
					t.Errorf("with the answer %d: %v", status, err)
				}
			})
		}
		for range calls {
			<-began
		}
		<-asked
		close(answer)
		all.Wait()
		options := 0
		for _, m := range e.methods() {
			if m == http.MethodOptions {
				options++
			}
		}
		// One that has begun and is not waiting yet when the answer comes asks for itself.
		if options >= calls || status == http.StatusOK && options != 1 {
			t.Errorf("with the answer %d it was asked %d times by %d calls", status, options, calls)
		}
	}
}

// TestTheAllowedRateIsKept: what would wait long is given back, as throttled.
func TestTheAllowedRateIsKept(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.consents(http.StatusOK, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "600")
	w := e.open(t, Config{Handshake: true})
	began := time.Now()
	for seq := range uint64(4) {
		if _, err := w.Write(t.Context(), []sink.Message{change(seq+1, "7")}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("four requests at 600 a minute took %s, want 300 ms at least", took)
	}
	e.consents(http.StatusOK, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "1")
	w = e.open(t, Config{Handshake: true, Format: CloudEvents})
	done, err := w.Write(t.Context(), []sink.Message{change(5, "7"), change(6, "8"), change(7, "9")})
	var refused *sink.Error
	if done != 1 || !errors.As(err, &refused) || refused.Kind != sink.Throttled || refused.After < 50*time.Second || refused.After > time.Minute {
		t.Errorf("at one a minute %d are delivered at once, and the next is told %#v", done, err)
	}
}

// TestAHandshakeThatIsInterruptedIsNobodyElses.
func TestAHandshakeThatIsInterruptedIsNobodyElses(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	e.answers(func(w http.ResponseWriter, r received) bool {
		if r.Method != http.MethodOptions {
			return true
		}
		w.Header().Set("WebHook-Allowed-Origin", "*")
		once.Do(func() {
			close(asked)
			<-answer
		})
		return false
	})
	w := e.open(t, Config{Handshake: true})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := w.Write(ctx, []sink.Message{change(1, "7")})
		failed <- err
	}()
	<-asked
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(answer)
	if _, err := w.Write(t.Context(), []sink.Message{change(1, "7")}); err != nil {
		t.Error(err)
	}
}

func TestHandshakesThatAreConfiguredWrong(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]Config{
		"set handshake too": {Origin: "a.test"},
		"as in DNS":         {Handshake: true, Origin: "https://a.test"},
		"negative":          {Handshake: true, RequestRate: -1},
		"WebHook":           {Handshake: true, Headers: map[string]string{"WebHook-Request-Origin": "b.test"}},
	} {
		c.URL = "https://a.test"
		_, err := New(c)
		if err == nil {
			t.Errorf("%s: nothing is wrong with it", text)
			continue
		}
		if text != "WebHook" {
			mustContain(t, err.Error(), text)
		}
	}
}
