package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/config"
	"lockstep/internal/connect"
)

// startSandbox runs the command on a free port and returns what it said, as JSON.
func startSandbox(t *testing.T, args ...string) []sandboxView {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out, write := io.Pipe()
	code := make(chan int, 1)
	args = append([]string{"sandbox", "--listen", "127.0.0.1:0", "-o", "json", "--customers", "20", "--pace", "0"}, args...)
	go func() {
		code <- run(ctx, args, streams{in: strings.NewReader(""), out: write, err: os.Stderr, lookup: os.LookupEnv})
		_ = write.Close()
	}()
	t.Cleanup(func() {
		stop()
		if got := <-code; got != 0 {
			t.Errorf("exit code %d", got)
		}
	})
	var views []sandboxView
	if err := json.NewDecoder(out).Decode(&views); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return views
}

// ask sends a request and returns the status and the answer.
func ask(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := (&http.Client{Timeout: 30 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(raw)
}

func TestASandboxServesAnAPIAsItsVendorDoes(t *testing.T) {
	t.Parallel()
	views := startSandbox(t, "--api", "stripe", "--fault", "status,status=503,path=^/v1/products$", "--fault", `stripe:{"kind":"html","path":"^/v1/prices$"}`)
	if len(views) != 1 || views[0].API != "stripe" || views[0].Control != views[0].URL+"/_sandbox/" {
		t.Fatalf("%+v", views)
	}
	url, key := views[0].URL, views[0].Credential.Properties["secret"]
	if status, body := ask(t, "GET", url+"/v1/customers?limit=100", key, ""); status != 200 || !strings.Contains(body, `"cus_`) {
		t.Errorf("customers: %d %.200s", status, body)
	}
	if status, _ := ask(t, "GET", url+"/v1/customers", "", ""); status != 401 {
		t.Errorf("without a key: %d", status)
	}
	if status, _ := ask(t, "GET", url+"/v1/products", key, ""); status != 503 {
		t.Errorf("with a fault: %d", status)
	}
	if _, body := ask(t, "GET", url+"/v1/prices", key, ""); !strings.Contains(body, "<html") {
		t.Errorf("with a fault of HTML: %.200s", body)
	}
	if status, body := ask(t, "GET", views[0].Control+"log", "", ""); status != 200 || !strings.Contains(body, "/v1/customers") || strings.Contains(body, key) {
		t.Errorf("the log: %d %.300s", status, body)
	}
	if status, _ := ask(t, "POST", views[0].Control+"world", "", `{"step": 5}`); status != 200 {
		t.Errorf("steer the world: %d", status)
	}
}

// What the command tells to paste is a configuration, and it leads to the sandbox.
func TestTheSnippetOfASandboxIsAConfiguration(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	stop() // it tells where it is, and ends
	code := run(ctx, []string{"sandbox", "--listen", "127.0.0.1:0"}, streams{in: strings.NewReader(""), out: &out, err: os.Stderr, lookup: os.LookupEnv})
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, out.String())
	}
	_, snippet, ok := strings.Cut(out.String(), "\n\nsyncs:\n")
	if !ok {
		t.Fatalf("no snippet in:\n%s", out.String())
	}
	c, err := config.Parse("snippet", []byte("syncs:\n"+snippet), configOptions(streams{lookup: os.LookupEnv}))
	if err != nil || len(c.Syncs) == 0 {
		t.Fatalf("%v\n%s", err, snippet)
	}
	for _, s := range c.Syncs {
		if !strings.Contains(out.String(), s.Provider+"   http://") && !strings.Contains(out.String(), s.BaseURL) || s.Schema != s.Provider {
			t.Errorf("%+v", s)
		}
	}
}

// Everything that the example of a mirror says holds with the sandbox.
func TestTheExampleOfAMirror(t *testing.T) {
	t.Parallel()
	url := startSandbox(t, "--api", "stripe")[0].URL
	lookup := func(name string) (string, bool) {
		if name == "STRIPE_URL" {
			return url, true
		}
		return "", false
	}
	file := filepath.Join("..", "..", "examples", "mirror", "lockstep.yml")
	c, err := config.Load(file, configOptions(streams{lookup: lookup}))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Syncs[0]
	account, err := connect.Resolve(connect.Definition{
		Provider: s.Provider, BaseURL: s.BaseURL, Kind: s.Credential.Kind, Collections: s.Collections,
		Properties: map[string]string{"secret": s.Credential.Properties["secret"].Reveal()},
	})
	if err != nil {
		t.Fatal(err)
	}
	api, err := account.Open(connect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Check(t.Context()); err != nil {
		t.Error(err)
	}
	for _, name := range account.Collections() {
		if _, err := api.Backfill(t.Context(), name, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without variables it is about the address that the sandbox has by itself.
	plain, err := config.Load(file, configOptions(streams{lookup: func(string) (string, bool) { return "", false }}))
	if err != nil || plain.Syncs[0].BaseURL != "http://127.0.0.1:12111" {
		t.Errorf("%+v, %v", plain, err)
	}
}

// Several APIs live at one address, each below its name, and a fault may be one's own.
func TestSandboxesShareAnAddress(t *testing.T) {
	t.Parallel()
	views := startSandbox(t, "--repositories", "2", "--fault", "stripe:status,status=503", "--unlimited")
	if len(views) != 2 || !strings.HasSuffix(views[1].URL, "/github") {
		t.Fatalf("%+v", views)
	}
	if status, _ := ask(t, "GET", views[0].URL+"/v1/customers", views[0].Credential.Properties["secret"], ""); status != 503 {
		t.Errorf("stripe: %d", status)
	}
	account, err := connect.Resolve(connect.Definition{
		Provider: "github", BaseURL: views[1].URL, Kind: views[1].Credential.Kind, Properties: views[1].Credential.Properties,
	})
	if err != nil {
		t.Fatal(err)
	}
	api, err := account.Open(connect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if who, err := api.Check(t.Context()); err != nil || who == "" {
		t.Errorf("signed in as %q, %v", who, err)
	}
	for _, name := range []string{"repository", "issue", "pull_request"} {
		page, err := api.Backfill(t.Context(), name, nil)
		if err != nil || len(page.Records) == 0 {
			t.Errorf("%s: %d records, %v", name, len(page.Records), err)
		}
		// Addresses of further pages lead below the name, too.
		for n := 0; err == nil && page.Next != nil && n < 5; n++ {
			if page, err = api.Backfill(t.Context(), name, page.Next); err != nil {
				t.Errorf("%s, further on: %v", name, err)
			}
		}
	}
}

// A signal ends the process in order, also while a fault holds a request.
func TestASandboxStopsOnASignal(t *testing.T) {
	t.Parallel()
	command := exec.CommandContext(t.Context(), "lockstep", "sandbox", "--api", "stripe", "--listen", "127.0.0.1:0", "--customers=-1", "-q", "--fault", "hang")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	command.Stderr = &errs
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	held := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), "GET", strings.TrimSpace(url)+"/v1/customers", nil)
		if err != nil {
			held <- err
			return
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err == nil {
			_ = answer.Body.Close()
			err = errors.New("the fault did not hold the request")
		} else {
			err = nil
		}
		held <- err
	}()
	seen := func() bool {
		_, body := ask(t, "GET", strings.TrimSpace(url)+"/_sandbox/faults", "", "")
		return strings.Contains(body, `"met":1`)
	}
	for deadline, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond); !seen(); {
		select {
		case <-deadline:
			t.Fatal("the request did not arrive")
		case <-tick.C:
		}
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("%v\n%s", err, errs.String())
	}
	if err := <-held; err != nil {
		t.Error(err)
	}
}
