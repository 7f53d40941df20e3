package sandbox_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep/sandbox"
)

func TestEachKindOfFaultBreaksTheAnswerInItsWay(t *testing.T) {
	t.Parallel()
	type result struct {
		status int
		header http.Header
		text   string
		err    error
		served int
	}
	for name, c := range map[string]struct {
		fault sandbox.Fault
		check func(result) bool
	}{
		"status":       {sandbox.Fault{Kind: "status", Status: 503}, func(r result) bool { return r.status == 503 && r.text == `{"refused":503}` && r.served == 0 }},
		"status after": {sandbox.Fault{Kind: "status", Status: 500, After: true}, func(r result) bool { return r.status == 500 && r.served == 1 }},
		"headers": {sandbox.Fault{Kind: "status", Status: 429, Headers: map[string]string{"Retry-After": "7"}}, func(r result) bool {
			return r.status == 429 && r.header.Get("Retry-After") == "7"
		}},
		"html": {sandbox.Fault{Kind: "html"}, func(r result) bool {
			return r.status == 200 && strings.HasPrefix(r.text, "<!DOCTYPE") && strings.HasPrefix(r.header.Get("Content-Type"), "text/html")
		}},
		"empty": {sandbox.Fault{Kind: "empty"}, func(r result) bool { return r.status == 204 && r.text == "" && r.err == nil }},
		"redirect": {sandbox.Fault{Kind: "redirect", Location: "http://other.example/"}, func(r result) bool {
			return r.status == 302 && r.header.Get("Location") == "http://other.example/"
		}},
		"truncate": {sandbox.Fault{Kind: "truncate"}, func(r result) bool {
			return errors.Is(r.err, io.ErrUnexpectedEOF) && len(r.text) > 100 && r.served == 1
		}},
		"truncate at 10": {sandbox.Fault{Kind: "truncate", Bytes: 10}, func(r result) bool {
			return errors.Is(r.err, io.ErrUnexpectedEOF) && len(r.text) == 10
		}},
		"length": {sandbox.Fault{Kind: "length"}, func(r result) bool { return r.err == nil && !json.Valid([]byte(r.text)) && r.text != "" }},
		"reset":  {sandbox.Fault{Kind: "reset"}, func(r result) bool { return r.err != nil && r.status == 0 && r.served == 0 }},
		"slow": {sandbox.Fault{Kind: "slow", BytesPerSecond: 20_000}, func(r result) bool {
			return r.err == nil && json.Valid([]byte(r.text))
		}},
		"gzip": {sandbox.Fault{Kind: "gzip"}, func(r result) bool { return r.err != nil && r.served == 1 }},
		"type": {sandbox.Fault{Kind: "type"}, func(r result) bool {
			return json.Valid([]byte(r.text)) && strings.HasPrefix(r.header.Get("Content-Type"), "text/plain")
		}},
		"delay": {sandbox.Fault{Kind: "delay", Delay: sandbox.Duration(time.Millisecond)}, func(r result) bool { return json.Valid([]byte(r.text)) }},
		"own":   {sandbox.Fault{Kind: "own", N: 3}, func(r result) bool { return r.text == `{"n":3,"own":"own"}` }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			if err := a.Faults().Add(c.fault); err != nil {
				t.Fatal(err)
			}
			var r result
			r.status, r.header, r.text, r.err = a.do(http.MethodPost, "/x", "")
			if r.served = a.served; !c.check(r) {
				t.Errorf("%+v", r)
			}
			calls := a.Log().Calls(0)
			if len(calls) == 0 || calls[0].Fault != c.fault.Kind {
				t.Errorf("log: %+v", calls)
			}
		})
	}
}

func TestAHangLastsUntilTheClientGivesUp(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.client.Timeout = 50 * time.Millisecond
	a.control("faults", `{"kind":"hang"}`)
	if _, _, _, err := a.do(http.MethodGet, "/", ""); err == nil {
		t.Error("it answered")
	}
}

func TestFaultsMeetTheRequestsTheyAreScriptedFor(t *testing.T) {
	t.Parallel()
	a := open(t)
	statuses := func(paths ...string) (out []int) {
		for _, path := range paths {
			status, _, _, err := a.do(http.MethodGet, path, "")
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, status)
		}
		return out
	}
	a.control("faults", `{"kind":"status","status":503,"path":"^/a$","nth":2}`)
	a.control("faults", `[{"kind":"status","status":502,"query":"page=3","times":2}]`)
	if got := statuses("/a", "/b", "/a", "/a", "/b?page=3", "/b?page=3", "/b?page=3"); !equal(got, []int{200, 200, 503, 200, 502, 502, 200}) {
		t.Errorf("got %v", got)
	}
	list := a.Faults().List()
	if list[0].Seen != 3 || list[0].Met != 1 || list[1].Met != 2 {
		t.Errorf("counts: %+v", list)
	}
}

func TestFaultsByProbabilityAreTheSameForASeed(t *testing.T) {
	t.Parallel()
	met := func() (n int) {
		a := open(t)
		a.control("faults", `{"kind":"status","probability":0.3}`)
		for range 100 {
			if status, _, _, _ := a.do(http.MethodGet, "/", ""); status == 500 {
				n++
			}
		}
		return n
	}
	first, second := met(), met()
	if first != second || first < 15 || first > 45 {
		t.Errorf("%d and %d of 100", first, second)
	}
}

func TestAFaultThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, body := range []string{`{"kind":"nonsense"}`, `{"kind":"status","path":"("}`, `{"kind":"status","status":42}`, `{"kind":"status","probability":7}`, `{"kin":"status"}`, `[`} {
		if status, _, text, err := a.do(http.MethodPost, "/_sandbox/faults", body); err != nil || status != http.StatusBadRequest {
			t.Errorf("%s: %d %s %v", body, status, text, err)
		}
	}
	if len(a.Faults().List()) != 0 {
		t.Error("one was added")
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
