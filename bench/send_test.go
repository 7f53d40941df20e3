package bench

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// webhookOf is the body of a webhook with those changes, as the node sends it.
func webhookOf(seqs ...int) string {
	list := make([]string, len(seqs))
	for i, seq := range seqs {
		list[i] = fmt.Sprintf(`{"record":{"id":%d},"changes":null,"action":"insert","metadata":{"database":"app","seq":%d,"commit_lsn":7,"commit_timestamp":"2026-01-01T00:00:00.000001Z"}}`, seq, seq)
	}
	if len(list) == 1 {
		return list[0]
	}
	return `{"data":[` + strings.Join(list, ",") + `]}`
}

func TestArrivalsNoticeWhatIsMissingAndWhatComesAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bodies []string
		again  repeats
		full   int // as many changes as this count; 3 are expected
		wrong  string
	}{
		"one by one":             {[]string{webhookOf(11), webhookOf(13), webhookOf(12)}, never, 3, ""},
		"together":               {[]string{webhookOf(11, 12, 13)}, never, 3, ""},
		"one missing":            {[]string{webhookOf(11, 12)}, never, 2, ""},
		"of before the run":      {[]string{webhookOf(9, 10, 11)}, never, 1, ""},
		"twice":                  {[]string{webhookOf(11, 12), webhookOf(12)}, never, 2, "change 12 came twice"},
		"twice by a bare client": {[]string{webhookOf(11, 12), webhookOf(12)}, untilAcks, 3, ""},
		"nothing":                {[]string{`{}`}, never, 0, "without a change"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArrivals(10, 3)
			a.again = tc.again
			for _, body := range tc.bodies {
				if status := a.arrive([]byte(body), time.Now()); status != http.StatusOK {
					t.Errorf("answered %d", status)
				}
			}
			full := false
			select {
			case <-a.full:
				full = true
			default:
			}
			requests, changes := a.asked()
			if requests != len(tc.bodies) || changes != tc.full || full != (tc.full == 3) {
				t.Errorf("%d requests with %d changes, full: %t", requests, changes, full)
			}
			if a.failed == nil != (tc.wrong == "") || a.failed != nil && !strings.Contains(a.failed.Error(), tc.wrong) {
				t.Errorf("got %v, want %q", a.failed, tc.wrong)
			}
		})
	}
}

func TestADestinationThatFailsTakesNothing(t *testing.T) {
	t.Parallel()
	a := newArrivals(0, 1)
	a.status = http.StatusInternalServerError
	status := a.arrive([]byte(webhookOf(1)), time.Now())
	if requests, changes := a.asked(); status != a.status || requests != 1 || changes != 0 {
		t.Errorf("answered %d, %d requests, %d changes", status, requests, changes)
	}
}

func TestAnAudienceHearsEachChangeOnceByItsClient(t *testing.T) {
	t.Parallel()
	fresh := func() *audience {
		// Rows 1 and 2 come first, 3 to 6 are measured, in two transactions.
		return &audience{clients: 2, first: 1, counted: 3, rows: 2, lasts: make([]time.Duration, 2), met: make(chan struct{}), full: make(chan struct{})}
	}
	a := fresh()
	for id := 1; id <= 6; id++ {
		if err := a.hear(id%2, id, time.Duration(id)); err != nil {
			t.Fatal(err)
		}
	}
	<-a.met
	<-a.full
	if len(a.took) != 4 || a.lasts[0] != 4 || a.lasts[1] != 6 {
		t.Errorf("times %v, of the last clients %v", a.took, a.lasts)
	}
	for name, hear := range map[string]func(a *audience) error{
		"another client's":        func(a *audience) error { return a.hear(1, 4, 0) },
		"twice":                   func(a *audience) error { _ = a.hear(0, 4, 0); return a.hear(0, 4, 0) },
		"of before it came":       func(a *audience) error { return a.hear(0, 0, 0) },
		"that nobody has written": func(a *audience) error { return a.hear(1, 7, 0) },
	} {
		if hear(fresh()) == nil {
			t.Errorf("a row %s was taken", name)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	all := []time.Duration{4 * time.Millisecond, time.Millisecond, 3 * time.Millisecond, 2 * time.Millisecond}
	if got := []float64{quantileMS(all, 0), quantileMS(all, .5), quantileMS(all, .99), quantileMS(nil, .5)}; got[0] != 1 || got[1] != 3 || got[2] != 4 || got[3] != 0 {
		t.Errorf("got %v", got)
	}
}
