package obs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"lockstep/internal/obs"
)

var update = flag.Bool("update", false, "write the golden file anew")

func everything(t *testing.T) (*prometheus.Registry, *obs.Metrics) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m, err := obs.NewMetrics(reg, "v1")
	if err != nil {
		t.Fatal(err)
	}
	c := m.Capture("app")
	c.Captured(3, 1, 300)
	c.Connected()
	c.Reconnecting()
	c.SetLag(10, 2*time.Second)
	c.SetSlotRetained(4096)
	s := m.Stream("app")
	s.Appended(3, 250)
	s.SetRange(1, 3)
	m.Consumer("app", "orders").Report(obs.ConsumerTotals{Delivered: 3}, obs.ConsumerNow{Pending: 1})
	m.Destination("app", "orders", []string{"delivered"}, []string{"ok"}).Attempt("delivered", time.Second)
	m.SetMemory("stream_cache", 1000)
	m.Answered("GET", "/v1/consumers", 200)
	m.Took("GET", "/v1/consumers", time.Millisecond)
	m.StreamOpened("app")
	return reg, m
}

func TestMetricNamesAndHelpAreThoseOfTheGoldenFile(t *testing.T) {
	t.Parallel()
	reg, _ := everything(t)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		lines = append(lines, fmt.Sprintf("%s %s {%s}\n\t%s\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ","), f.GetHelp()))
	}
	sort.Strings(lines)
	got := strings.Join(lines, "")
	if *update {
		if err := os.WriteFile("testdata/metrics.golden", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("metrics changed (-golden +got); dashboards depend on them:\n%s", d)
	}
}

func TestMetricsKeepPrometheusConventions(t *testing.T) {
	t.Parallel()
	reg, _ := everything(t)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestTwoEnginesInOneProcessCountApart(t *testing.T) {
	t.Parallel()
	a, m := everything(t)
	b, _ := everything(t)
	m.Answered("GET", "/v1/consumers", 200)
	const want = `# HELP lockstep_http_requests_total HTTP requests answered, by route pattern and status code.
# TYPE lockstep_http_requests_total counter
lockstep_http_requests_total{code="200",method="GET",route="/v1/consumers"} %d
`
	for reg, n := range map[*prometheus.Registry]int{a: 2, b: 1} {
		if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(want, n)), "lockstep_http_requests_total"); err != nil {
			t.Error(err)
		}
	}
}

func TestSecondDeclarationOnARegistryIsAnError(t *testing.T) {
	t.Parallel()
	reg, _ := everything(t)
	if _, err := obs.NewMetrics(reg, "v1"); err == nil {
		t.Error("no error")
	}
}

func TestConsumerTotalsAddUpOverReportsAndRestarts(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m, err := obs.NewMetrics(reg, "v1")
	if err != nil {
		t.Fatal(err)
	}
	c := m.Consumer("app", "orders")
	for _, total := range []uint64{5, 5, 9, 2} { // 5, +0, +4, opened anew: +2
		c.Report(obs.ConsumerTotals{Acked: total}, obs.ConsumerNow{Paused: true})
	}
	const want = `# HELP lockstep_consumer_acked_total Changes acknowledged.
# TYPE lockstep_consumer_acked_total counter
lockstep_consumer_acked_total{consumer="orders",database="app"} 11
# HELP lockstep_consumer_paused 1 while the consumer is paused, 0 otherwise.
# TYPE lockstep_consumer_paused gauge
lockstep_consumer_paused{consumer="orders",database="app"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "lockstep_consumer_acked_total", "lockstep_consumer_paused"); err != nil {
		t.Error(err)
	}
	to := m.Destination("app", "orders", []string{"delivered", "retry"}, []string{"ok", "open"})
	to.Attempt("delivered", 2*time.Millisecond)
	to.Attempt("delivered", time.Second)
	to.Attempt("of no name", time.Second)
	to.State("open")
	const sent = `
# HELP lockstep_delivery_attempts_total Tries to deliver to a destination, of one change or a batch, by outcome: delivered, partly, or the kind of the error.
# TYPE lockstep_delivery_attempts_total counter
lockstep_delivery_attempts_total{consumer="orders",database="app",outcome="delivered"} 2
lockstep_delivery_attempts_total{consumer="orders",database="app",outcome="retry"} 0
# HELP lockstep_delivery_state 1 for the state that sending to a destination is in, 0 for the others.
# TYPE lockstep_delivery_state gauge
lockstep_delivery_state{consumer="orders",database="app",state="ok"} 0
lockstep_delivery_state{consumer="orders",database="app",state="open"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(sent), "lockstep_delivery_attempts_total", "lockstep_delivery_state"); err != nil {
		t.Error(err)
	}
	m.Forget("app", "orders")
	if n, err := testutil.GatherAndCount(reg, "lockstep_consumer_acked_total", "lockstep_consumer_paused", "lockstep_delivery_attempts_total", "lockstep_delivery_seconds", "lockstep_delivery_state"); err != nil || n != 0 {
		t.Errorf("after Forget: %d series, error %v; want none", n, err)
	}
}

func TestHandlerRefreshesGaugesBeforeItAnswers(t *testing.T) {
	t.Parallel()
	reg, m := everything(t)
	m.BeforeScrape(func() { m.SetMemory("stream_cache", 77) })
	w := httptest.NewRecorder()
	m.Handler(reg).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), `lockstep_memory_bytes{stage="stream_cache"} 77`) {
		t.Errorf("the gauge was not refreshed:\n%s", w.Body)
	}
}

type hidden struct{ Password string }

func TestLoggersPrintNoSecret(t *testing.T) {
	t.Parallel()
	const canary = "cAnArYcAnArYcAnArYcAnArY"
	for _, format := range []obs.Format{obs.JSON, obs.Terminal} {
		var out bytes.Buffer
		log := obs.NewLogger(&out, slog.LevelInfo, format)
		dsn := "postgres://app:" + canary + "@db:5432/app"
		log.Info("start",
			"password", canary,
			"Authorization", "Bearer "+canary,
			"ack_token", canary,
			"url", dsn,
			"dsn", "host=db password="+canary+" user=app",
			"quoted", "host=db password='"+canary+" x' user=app",
			"header", "Bearer "+canary,
			"given", "ls_abcdefgh_"+canary,
			"webhook", "whsec_"+canary,
			"struct", hidden{canary},
			"nested", map[string]any{"a": map[string]any{"client_secret": canary}},
			slog.Group("group", "secret", canary, "error", errors.New("connect to "+dsn)),
			"slash", "postgres://app:"+canary+"/x@db/app",
		)
		log.Error("connect", obs.KeyError, fmt.Errorf("open: %w", errors.New(dsn)))
		if strings.Contains(out.String(), canary) {
			t.Errorf("format %d: the secret is in the log:\n%s", format, out.String())
		}
		if !strings.Contains(out.String(), obs.Redacted) {
			t.Errorf("format %d: nothing was redacted:\n%s", format, out.String())
		}
	}
}

func TestLoggersKeepWhatIsHarmless(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := obs.NewLogger(&out, slog.LevelInfo, obs.JSON)
	log.Info("connected", obs.KeyDatabase, "app", obs.KeyLSN, "0/16B3748", obs.KeyAddress, "http://127.0.0.1:7300/v1", "token_count", 3, "list", []int{1, 2})
	log.Debug("not wanted")
	got := out.String()
	for _, want := range []string{`"database":"app"`, `"lsn":"0/16B3748"`, `"address":"http://127.0.0.1:7300/v1"`, `"token_count":3`, `"list":[1,2]`} {
		if !strings.Contains(got, want) {
			t.Errorf("log lacks %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, "not wanted") {
		t.Error("a line below the level was written")
	}
}

func TestParseLevel(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]slog.Level{"": slog.LevelInfo, "DEBUG": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := obs.ParseLevel(name); err != nil || got != want {
			t.Errorf("ParseLevel(%q) = %v, %v; want %v", name, got, err, want)
		}
	}
	if _, err := obs.ParseLevel("loud"); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
		t.Errorf("ParseLevel(loud): %v; want an error that names the levels", err)
	}
}
