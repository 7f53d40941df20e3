package rest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"lockstep/source"
)

// clocked is a table whose answers say what its clock says.
type clocked struct {
	table
	ahead time.Duration
	once  bool // only in the next answer
}

func (a *clocked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	ahead := a.ahead
	if a.once {
		a.ahead = 0
	}
	a.mu.Unlock()
	w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
	a.table.ServeHTTP(w, r)
}

func (a *clocked) set(ahead time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ahead = ahead
}

// One answer with a clock that is hours ahead does not move the cursor there.
func TestOneWrongDateMovesNoCursor(t *testing.T) {
	t.Parallel()
	a := &clocked{}
	s := open(t, serve(t, a.ServeHTTP), updated)
	at, err := s.Start(t.Context(), "thing")
	if err != nil {
		t.Fatal(err)
	}
	_, at = poll(t, s, "thing", at)
	a.mu.Lock()
	a.ahead, a.once = 6*time.Hour, true
	a.mu.Unlock()
	_, at = poll(t, s, "thing", at)
	a.touch("new", time.Now())
	if ids, _ := poll(t, s, "thing", at); !slices.Equal(ids, []string{"new"}) {
		t.Errorf("after one wrong Date the feed shows %v", ids)
	}
}

// A clock that was set back a little: what changes from then on is found.
func TestAClockThatWasSetBackALittleHidesNothing(t *testing.T) {
	t.Parallel()
	a := &clocked{}
	a.set(30 * time.Second)
	s := open(t, serve(t, a.ServeHTTP), updated)
	at, err := s.Start(t.Context(), "thing")
	if err != nil {
		t.Fatal(err)
	}
	_, at = poll(t, s, "thing", at)
	a.set(0)
	_, at = poll(t, s, "thing", at)
	a.touch("new", time.Now())
	if ids, _ := poll(t, s, "thing", at); !slices.Equal(ids, []string{"new"}) {
		t.Errorf("the feed shows %v", ids)
	}
}

// A clock that was set back by hours: nobody knows what changed meanwhile, so that
// everything is read again.
func TestAClockThatWasSetBackRestarts(t *testing.T) {
	t.Parallel()
	a := &clocked{}
	s := open(t, serve(t, a.ServeHTTP), updated)
	if _, err := s.Start(t.Context(), "thing"); err != nil {
		t.Fatal(err)
	}
	ahead, err := json.Marshal(map[string]any{"since": time.Now().Add(6 * time.Hour).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Changes(t.Context(), "thing", ahead, 0)
	_ = kind(t, err, source.Restart)
}
