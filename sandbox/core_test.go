package sandbox_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/sandbox"
)

func TestTheClockIsInEveryAnswer(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.control("clock", `{"scale":0,"set":"2031-05-06T07:08:09Z"}`)
	_, header, _, err := a.do(http.MethodGet, "/", "")
	if err != nil || header.Get("Date") != "Tue, 06 May 2031 07:08:09 GMT" {
		t.Errorf("Date %q %v", header.Get("Date"), err)
	}
	a.control("clock", `{"shift":"-1h"}`)
	if now := a.Clock().Now(); !now.Equal(time.Date(2031, 5, 6, 6, 8, 9, 0, time.UTC)) {
		t.Errorf("now %v", now)
	}
}

func TestAClockRunsAtItsScale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := sandbox.NewClock()
		begin := c.Now()
		time.Sleep(time.Second)
		c.Scale(60)
		time.Sleep(time.Second)
		c.Scale(0)
		time.Sleep(time.Hour)
		if got := c.Now().Sub(begin); got != 61*time.Second {
			t.Errorf("%v passed", got)
		}
	})
}

func TestAWorldAtAPaceIsUpToDateWhenItIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &api{world: &counter{}, t: t}
		a.Core = sandbox.New(config(a))
		begin := time.Now()
		a.Live(4)
		time.Sleep(2500 * time.Millisecond)
		a.CatchUp()
		if n := a.world.count(); n != 10 {
			t.Fatalf("%d steps in 2.5 s at 4 a second", n)
		}
		for i, at := range a.world.at {
			if want := begin.Add(time.Duration(i+1) * 250 * time.Millisecond); at.Sub(want).Abs() > time.Millisecond {
				t.Errorf("step %d at %v, want %v", i, at, want)
			}
		}
		a.Live(0)
		time.Sleep(time.Hour)
		a.Step(3)
		if n := a.world.count(); n != 13 {
			t.Errorf("%d steps, of which 3 by hand", n)
		}
	})
}

func TestAWorldThatCannotKeepItsPaceLivesSlowerInsteadOfStallingItsClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &api{world: &counter{slow: 100 * time.Millisecond}, t: t}
		a.Core = sandbox.New(config(a))
		a.Live(50)
		time.Sleep(time.Hour)
		for range 3 {
			begin := time.Now()
			a.CatchUp()
			if took := time.Since(begin); took > 1200*time.Millisecond {
				t.Errorf("a request waited for %v", took)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if last := a.world.at[len(a.world.at)-1]; a.Clock().Now().Sub(last) > 10*time.Second {
			t.Errorf("the last step was at %v, %v ago", last, a.Clock().Now().Sub(last))
		}
	})
}

func TestTheTruthIsServedAsLinesAndAResetForgetsIt(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.control("world", `{"step":3}`)
	if got := a.get("/_sandbox/state/step"); got != "{\"id\":0}\n{\"id\":1}\n{\"id\":2}\n" {
		t.Errorf("state %q", got)
	}
	if got := a.get("/_sandbox/state"); got != `{"data":[{"name":"step","count":3}]}` {
		t.Errorf("state %s", got)
	}
	a.control("faults", `{"kind":"status"}`)
	a.control("reset", "")
	if a.get("/_sandbox/state/step") != "" || len(a.Faults().List()) != 0 {
		t.Error("something is left")
	}
	if status, _, _, _ := a.do(http.MethodGet, "/_sandbox/state/nothing", ""); status != http.StatusBadRequest {
		t.Errorf("unknown collection: %d", status)
	}
}

func TestTheLogHoldsEveryRequestAndNoCredential(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.get("/a?x=1")
	a.control("faults", `{"kind":"reset","times":1}`)
	_, _, _, _ = a.do(http.MethodPost, "/b", "{}")
	text := a.get("/_sandbox/log")
	if strings.Contains(text, "verysecret") || !strings.Contains(text, `"credential":"Bearer sk_test_…1234"`) {
		t.Errorf("credential in %s", text)
	}
	calls := a.Log().Calls(0)
	if len(calls) != 2 || calls[0].Path != "/a" || calls[0].Query != "x=1" || calls[0].Status != 200 || calls[0].Bytes < 1000 || calls[1].Fault != "reset" || calls[1].Status != 0 {
		t.Fatalf("calls %+v", calls)
	}
	if later := a.Log().Calls(calls[0].N); len(later) != 1 || later[0].N != 2 {
		t.Errorf("after the first: %+v", later)
	}
	s := a.Log().Summary()
	if s.Requests != 2 || s.Status[200] != 1 || s.Faults["reset"] != 1 || s.Endpoints["GET /a"].Requests != 1 || s.MaxConcurrent != 1 {
		t.Errorf("summary %+v", s)
	}
	a.Log().Clear()
	if len(a.Log().Calls(0)) != 0 || a.Log().Summary().Requests != 0 {
		t.Error("it was not cleared")
	}
}

func TestTheLogKeepsTheLastOnesAndCountsAll(t *testing.T) {
	t.Parallel()
	a := &api{world: &counter{}, t: t}
	c := config(a)
	c.LogSize = 5
	core := sandbox.New(c)
	for range 12 {
		core.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
	}
	calls := core.Log().Calls(0)
	if len(calls) != 5 || calls[0].N != 8 || calls[4].N != 12 || core.Log().Summary().Requests != 12 {
		t.Errorf("%d calls from %d", len(calls), calls[0].N)
	}
	if peak := core.Log().Peak(time.Minute, func(c sandbox.Call) bool { return c.N > 9 }); peak != 3 {
		t.Errorf("peak %d", peak)
	}
}

func TestAHookRunsBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.Before(func(call *sandbox.Call, r *http.Request) {
		if call.N == 2 && r.URL.Path == "/page" {
			a.world.Step(time.Now())
		}
	})
	if first, second := a.get("/page"), a.get("/page"); !strings.Contains(first, `"steps":0`) || !strings.Contains(second, `"steps":1`) {
		t.Errorf("%.80s then %.80s", first, second)
	}
}

func TestSeveralAPIsAreUnderTheirNames(t *testing.T) {
	t.Parallel()
	one, two := named{"one"}, named{"two"}
	for path, want := range map[string]string{"/one/x": "one /x", "/two/_sandbox/": "two /_sandbox/"} {
		w := httptest.NewRecorder()
		sandbox.Mount(one, two).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Body.String() != want {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	w := httptest.NewRecorder()
	sandbox.Mount(one).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
	if w.Body.String() != "one /x" {
		t.Errorf("alone: %s", w.Body)
	}
	w = httptest.NewRecorder()
	sandbox.Mount(one, two).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
	if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "/two/") {
		t.Errorf("neither: %d %s", w.Code, w.Body)
	}
}

type named struct{ name string }

func (n named) Name() string { return n.name }

func (n named) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(n.name + " " + r.URL.Path)) })
}

func TestTheOverviewNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	a := open(t)
	var o struct {
		API    string
		Faults map[string]string
		Routes []string
	}
	if err := json.Unmarshal([]byte(a.get("/_sandbox/")), &o); err != nil {
		t.Fatal(err)
	}
	if o.API != "test" || o.Faults["own"] == "" || o.Faults["truncate"] == "" || len(o.Routes) < 8 {
		t.Errorf("%+v", o)
	}
	if status, _, _, _ := a.do(http.MethodGet, "/_sandbox/nonsense", ""); status != http.StatusNotFound {
		t.Errorf("unknown route: %d", status)
	}
}

func TestLimitsAreChangedFromOutside(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.control("limits", `{"limits":[{"name":"x","rate":5,"per":"10s","window":"sliding","penalty":30}]}`)
	limits, enforced := a.Limits().Limits()
	if l := limits["x"]; !enforced || l.Rate != 5 || l.Per != sandbox.Duration(10*time.Second) || l.Penalty != sandbox.Duration(30*time.Second) {
		t.Errorf("%+v %v", limits, enforced)
	}
	a.control("limits", `{"off":true}`)
	if _, enforced = a.Limits().Limits(); enforced {
		t.Error("still on")
	}
}
