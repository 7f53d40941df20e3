package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep/sink"
)

// snippet returns the block of README.md in a language.
func snippet(t testing.TB, language string) string {
	t.Helper()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```"+language+"\n")
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatalf("README.md has no block of %s", language)
	}
	return block
}

// sent is a request for the snippets to judge.
type sent struct {
	What    string            `json:"what"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Secret  string            `json:"secret"`
	OK      bool              `json:"ok"`
	IDs     []string          `json:"ids,omitempty"`
}

func asSent(r received) sent {
	s := sent{Headers: map[string]string{}, Body: string(r.Body)}
	for name := range r.Header {
		s.Headers[strings.ToLower(name)] = r.Header.Get(name)
	}
	return s
}

// requests sends some, and returns them with what the receiver must say of each.
func requests(t testing.TB) []sent {
	t.Helper()
	e := newEndpoint(t)
	both := Config{Secrets: []Secret{{Key: key(2)}, {Key: key(1), Until: time.Now().Add(time.Hour)}}}
	var list []sent
	add := func(what string, secret string, r received, change func(*sent)) {
		s := asSent(r)
		s.What, s.Secret, s.OK = what, secret, change == nil
		if change != nil {
			change(&s)
		}
		list = append(list, s)
	}
	one := write(t, e, both, change(1, "Grüße 🚀"))[0]
	add("the new secret", key(2), one, nil)
	add("the old secret", key(1), one, nil)
	add("another secret", key(3), one, func(*sent) {})
	add("another body", key(1), one, func(s *sent) { s.Body += " " })
	add("another id", key(1), one, func(s *sent) { s.Headers["webhook-id"] = "x" })
	add("too old", key(1), one, func(s *sent) { s.Headers["webhook-timestamp"] = fmt.Sprint(time.Now().Unix() - 301) })
	batch := write(t, e, both, change(1, "a"), change(2, "b"))[0]
	add("a batch", key(1), batch, nil)
	event := write(t, e, Config{Format: CloudEventsBatch, Secrets: both.Secrets}, change(1, "a"))[0]
	add("a CloudEvent", key(1), event, nil)
	return list
}

// events sends one in each mode of CloudEvents.
func events(t testing.TB) []sent {
	t.Helper()
	e := newEndpoint(t)
	var list []sent
	for _, format := range []Format{CloudEvents, CloudEventsStructured, CloudEventsBatch} {
		messages := []sink.Message{change(1, "Grüße")}
		if format == CloudEventsBatch {
			messages = append(messages, change(2, "b"))
		}
		s := asSent(write(t, e, Config{Format: format}, messages...)[0])
		for _, m := range messages {
			s.IDs = append(s.IDs, m.IdempotencyKey)
		}
		list = append(list, s)
	}
	return list
}

func run(t testing.TB, input any, dir, name string, args ...string) {
	t.Helper()
	in, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(string(in))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func TestPythonVerifies(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3: the snippet of README.md needs it")
	}
	program := snippet(t, "python") + `
import json, sys
for r in json.load(sys.stdin):
    try:
        verify(r["headers"], r["body"].encode(), r["secret"])
        ok = True
    except ValueError as e:
        ok = False
    assert ok == r["ok"], r["what"]
`
	run(t, requests(t), "", python, "-c", program)
}

// TestNodesLibrariesVerify runs testdata/verify.mjs. WEBHOOK_NODE names a folder in which
// `npm install standardwebhooks@1.1.1 svix@2.5.0 cloudevents@10.0.0` was run.
func TestNodesLibrariesVerify(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: its libraries need it")
	}
	folder := os.Getenv("WEBHOOK_NODE")
	for _, library := range []string{"standardwebhooks", "svix", "cloudevents"} {
		if _, err := os.Stat(filepath.Join(folder, "node_modules", library)); folder == "" || err != nil {
			t.Skipf("there is no %s for node: npm install standardwebhooks@1.1.1 svix@2.5.0 cloudevents@10.0.0 somewhere, and set WEBHOOK_NODE to that folder", library)
		}
	}
	// Within the folder: imports are looked for from the importing file upwards.
	dir, err := os.MkdirTemp(folder, "verify-") //nolint:usetesting // as said
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	script, err := os.ReadFile(filepath.Join("testdata", "verify.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"readme.mjs": snippet(t, "js"), "verify.mjs": string(script)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, map[string]any{"requests": requests(t), "events": events(t)}, dir, node, "verify.mjs")
}

// TestTheGoSnippetIsThatOfTheExample, whose own test runs it.
func TestTheGoSnippetIsThatOfTheExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "webhook-receiver", "verify.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), snippet(t, "go")) {
		t.Error("README.md shows something else than examples/webhook-receiver/verify.go")
	}
}

// TestTheTableOfStatuses: README.md says what TestStatusMeans holds.
func TestTheTableOfStatuses(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	w := &Webhook{}
	words := map[sink.Kind]string{sink.Refused: "refused", sink.Rejected: "rejected", sink.Retry: "again", sink.Throttled: "throttled", sink.Gone: "gone"}
	for status := 300; status < 600; status++ {
		if http.StatusText(status) == "" {
			continue
		}
		kind, _ := w.meaning(status)
		row := ""
		for line := range strings.SplitSeq(string(page), "\n") {
			if strings.HasPrefix(line, "| ") && strings.Contains(strings.SplitN(line, "|", 3)[1], fmt.Sprint(status)) {
				row = line
			}
		}
		switch {
		case row == "" && status < 400:
			row = "refused" // 3xx
		case row == "" && status < 500:
			row = "rejected" // other 4xx
		case row == "":
			row = "again" // other 5xx
		}
		if !strings.Contains(row, words[kind]) {
			t.Errorf("%d is %s, and README.md says %q", status, kind, row)
		}
	}
}
