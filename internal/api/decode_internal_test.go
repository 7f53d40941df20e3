package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lockstep"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"0": 0, "1000": time.Second, "1000ms": time.Second, "30s": 30 * time.Second, "5m": 5 * time.Minute, "1.5s": 1500 * time.Millisecond} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "-1s", "s", "1 s", "1y", "9223372036854775807", "1e3", "NaN"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %s; want an error", text, got)
		}
	}
}

func TestSpanTextReadsBack(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{0: "0s", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 24 * time.Hour: "24h", 61 * time.Minute: "1h1m", 1500 * time.Millisecond: "1.5s", time.Hour + time.Second: "1h0m1s"} {
		got := spanText(d)
		if back, err := time.ParseDuration(got); got != want || err != nil || back != d {
			t.Errorf("spanText(%s) = %q, reads back as %s, %v; want %q", d, got, back, err, want)
		}
	}
}

// FuzzSettle checks that no body makes the decoder panic, that what it lets through
// is usable, and that what it refuses is a 400 with a place.
func FuzzSettle(f *testing.F) {
	for _, seed := range []string{
		`{"ack_tokens":["a"]}`, `{"ack_tokens":["a"],"delay":"30s","release":true,"reason":"x"}`, `{"ack_tokens":["a"],"by":1}`, `{"ack_tokens":[]}`, `{}`, `[]`, `null`, ``,
		`{"ack_tokens":["a"]}}`, `{"ack_tokens":[1]}`, `{"ack_tokens":null}`, "{\"ack_tokens\":[\"\\ud800\"]}", `{"by":"-1s","ack_tokens":["a"]}`, `{"ack_tokens":["a"],"delay":{}}`, "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		for _, v := range []verb{verbAck, verbNack, verbExtend} {
			in, err := decodeSettle(v, []byte(data))
			if err != nil {
				refused(t, err)
				continue
			}
			if len(in.Tokens) == 0 || in.Delay.d < 0 || v == verbExtend && in.By.d <= 0 {
				t.Errorf("%s let through %q: %+v", v, data, in)
			}
		}
	})
}

func refused(t *testing.T, err error) {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusBadRequest || len(p.Errors) == 0 || p.Errors[0].Location == "" {
		t.Errorf("refused by %#v; want a 400 with a location", err)
	}
}

// FuzzNext does the same for the parameters of next.
func FuzzNext(f *testing.F) {
	f.Add("batch_size=1&wait_for=30s", "")
	f.Add("batch_size=1001", `{"batch_size":1000,"wait_for":"5m"}`)
	f.Add("wait_for=-1", `{"wait_for":300001}`)
	f.Add("", `{"wait_for":"9e99h"}`)
	f.Add("%zz", `null`)
	f.Fuzz(func(t *testing.T, query, data string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(data))
		r.URL.RawQuery = query
		in, err := decodeNext(r)
		if err != nil {
			refused(t, err)
			return
		}
		if in.Batch < 1 || in.Batch > maxBatchSize || in.Wait < 0 || in.Wait > maxWait {
			t.Errorf("let through: %+v", in)
		}
	})
}

// FuzzFold checks that a value stays the same JSON on one line.
func FuzzFold(f *testing.F) {
	f.Add("{\"a\":\n 1,\r\n\"b\": \"x\\n\"}")
	f.Fuzz(func(t *testing.T, text string) {
		data := []byte(text)
		lockstep.FoldLines(data)
		if strings.ContainsAny(string(data), "\r\n") || len(data) != len(text) {
			t.Errorf("%q became %q", text, data)
		}
	})
}
