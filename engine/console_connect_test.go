package engine_test

import (
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// consolePage reads a page of the console, which must be there.
func (n *node) consolePage(path string) string {
	n.t.Helper()
	answer, err := http.Get("http://" + n.server + "/console/" + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
	return string(page)
}

var snippetPattern = regexp.MustCompile(`(?s)<div data-snippet="(\w+)">.*?<pre[^>]*>(.*?)</pre>`)

// snippets returns the code on the page that says how to connect, by language.
func (n *node) snippets(consumer string) map[string]string {
	n.t.Helper()
	found := map[string]string{}
	for _, m := range snippetPattern.FindAllStringSubmatch(n.consolePage("consumers/"+consumer+"/connect"), -1) {
		found[m[1]] = html.UnescapeString(m[2])
	}
	return found
}

// workerOf makes a command of a snippet; ok is false where the machine lacks the language.
func workerOf(t *testing.T, language, code string) (command *exec.Cmd, ok bool) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	var argv []string
	switch language {
	case "curl":
		if _, err := exec.LookPath("jq"); err != nil {
			return nil, false
		}
		argv = []string{"sh", write("worker.sh")}
	case "Python":
		argv = []string{"python3", write("worker.py")}
	case "JavaScript":
		argv = []string{"node", write("worker.mjs")}
	case "Java":
		argv = []string{"java", write("Worker.java")}
	case "Go":
		argv = []string{goProgram(t, dir, write("main.go"))}
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, false
	}
	return exec.Command(argv[0], argv[1:]...), true
}

// goProgram vets and builds a file as if it were a program of this module: in the place
// of an example, since vet goes where its package is.
func goProgram(t *testing.T, dir, file string) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "examples", "pull-go", "main.go"): file}})
	if err != nil {
		t.Fatal(err)
	}
	where := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(where, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "worker")
	for _, argv := range [][]string{{"vet", "-overlay", where, "lockstep/examples/pull-go"}, {"build", "-overlay", where, "-o", out, "lockstep/examples/pull-go"}} {
		if text, err := exec.Command("go", argv...).CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", argv[0], err, text)
		}
	}
	return out
}

// failsFirst is how a snippet's own work is made to fail on the first attempt.
func failsFirst() map[string][2]string {
	return map[string][2]string{
		"curl":       {`  printf '%s\n' "$1" | jq`, `  case "$1" in *'"attempt":1,'*) return 1 ;; esac; printf '%s\n' "$1" | jq`},
		"Python":     {`    print(change["action"]`, "    assert change['attempt'] > 1, 'the first'\n    print(change[\"action\"]"},
		"JavaScript": {`  console.log(change.action`, "  if (change.attempt === 1) throw new Error('the first')\n  console.log(change.action"},
		"Java":       {`        System.out.println(change);`, `        if (change.contains("\"attempt\":1,")) throw new Exception("the first");`},
		"Go":         {`	log.Printf("%s %s %s"`, "	if d.Attempt == 1 {\n		return os.ErrInvalid\n	}\n	log.Printf(\"%s %s %s\""},
	}
}

// What the console gives people to copy works as it stands: every change is worked on
// and acked, and one that failed comes again.
func TestSnippetsOfTheConsoleAreWorkers(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, note text)`)
	n := newNode(t, url, "  []\n")
	n.slot("console_snippets")
	n.start()
	for language, failing := range failsFirst() {
		t.Run(language, func(t *testing.T) {
			made, err := n.api.CreateConsumer(t.Context(), client.Definition{
				Name: "it's \"" + language + "\" & <b> $(x) #{x} ü", Tables: []string{"public.orders"}, Start: "beginning", Backoff: &client.Backoff{First: "10ms", Max: "50ms"},
			})
			if err != nil {
				t.Fatal(err)
			}
			code := n.snippets(made.ID)[language]
			if strings.Count(code, failing[0]) != 1 {
				t.Fatalf("the work of the %s snippet was not found in:\n%s", language, code)
			}
			command, ok := workerOf(t, language, strings.Replace(code, failing[0], failing[1], 1))
			if !ok {
				t.Skip(language + " is not on this machine")
			}
			pgtest.Exec(t, url, `INSERT INTO orders SELECT i, E'it''s "\\ \n' || i || '"' FROM (SELECT coalesce(max(id), 0) AS top FROM orders) o, generate_series(top + 1, top + 5) i`)
			runs(t, command)
			pgtest.Eventually(t, 60*time.Second, "every change to be acked", func() bool {
				now, err := n.api.Consumer(t.Context(), made.ID)
				return err == nil && now.Stats.Acked >= 5 && now.Stats.Pending == 0 && now.Stats.InFlight == 0 && now.Stats.Nacked > 0
			})
			pgtest.Exec(t, url, `UPDATE orders SET note = 'again' WHERE id = 1`) // it goes on, and waits for what comes
			pgtest.Eventually(t, 60*time.Second, "a later change to be acked", func() bool {
				now, err := n.api.Consumer(t.Context(), made.ID)
				return err == nil && now.Stats.FloorSeq == now.Stats.LastSeq
			})
		})
	}
}

// runs runs a program until the test ends.
func runs(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that what a shell started ends, too
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		_ = command.Wait()
		if t.Failed() {
			t.Logf("it said:\n%s", said.String())
		}
	})
}

// arrived is a request that a webhook made.
type arrived struct {
	header http.Header
	body   []byte
}

// The snippets that verify a webhook take what Lockstep sends, and nothing else.
func TestSnippetsOfTheConsoleVerifyWebhooks(t *testing.T) {
	t.Parallel()
	requests := make(chan arrived, 16)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- arrived{r.Header, body}
	}))
	t.Cleanup(endpoint.Close)
	url := pgtest.Database(t)
	n := newNode(t, url, "  []\n")
	n.slot("console_verify")
	n.start()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	made, err := n.api.CreateConsumer(t.Context(), client.Definition{
		Name: "hook", Kind: "webhook", Webhook: json.RawMessage(`{"url":"` + endpoint.URL + `","secret":"` + secret + `","allow_private":true}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if result, err := n.api.TestConsumer(t.Context(), made.ID); err != nil || !result.Delivered {
		t.Fatalf("the test event: %+v, %v", result, err)
	}
	got := <-requests
	code := n.snippets(made.ID)
	for _, v := range verifiers() {
		t.Run(v.language, func(t *testing.T) {
			command := v.command(t, code[v.language])
			said := func(body, timestamp string) string {
				argv := append(command[1:len(command):len(command)], got.header.Get("webhook-id"), timestamp, got.header.Get("webhook-signature"), body, secret)
				if text, err := exec.Command(command[0], argv...).CombinedOutput(); err != nil {
					return err.Error() + " " + string(text)
				}
				return "good"
			}
			timestamp := got.header.Get("webhook-timestamp")
			if text := said(string(got.body), timestamp); text != "good" {
				t.Errorf("a request of Lockstep's: %s", text)
			}
			for what, text := range map[string]string{"another body": said(string(got.body)+" ", timestamp), "an old one": said(string(got.body), "1700000000")} {
				if !strings.HasPrefix(text, "exit status 3") {
					t.Errorf("%s: %s", what, text)
				}
			}
		})
	}
}

// verifier calls a snippet with what its arguments say: exit status 3 for a request that
// is not Lockstep's.
type verifier struct{ language, file, rest, run string }

func verifiers() []verifier {
	return []verifier{
		{"Python", "verify.py", `
import sys
try:
    verify({"webhook-id": sys.argv[1], "webhook-timestamp": sys.argv[2], "webhook-signature": sys.argv[3]}, sys.argv[4].encode(), sys.argv[5])
except ValueError:
    sys.exit(3)
`, "python3"},
		{"JavaScript", "verify.mjs", `
const [id, timestamp, signature, body, secret] = process.argv.slice(2)
try {
  verify({ 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature }, Buffer.from(body), secret)
} catch { process.exit(3) }
`, "node"},
		{"Java", "Main.java", `class Main {
    public static void main(String[] a) throws Exception {
        System.exit(Signature.valid(a[0], a[1], a[2], a[3].getBytes(StandardCharsets.UTF_8), a[4]) ? 0 : 3);
    }
}
`, "java"},
		{"Go", "main.go", `
func main() {
	h := http.Header{}
	h.Set("webhook-id", os.Args[1])
	h.Set("webhook-timestamp", os.Args[2])
	h.Set("webhook-signature", os.Args[3])
	if Verify(h, []byte(os.Args[4]), os.Args[5]) != nil {
		os.Exit(3)
	}
}
`, ""},
	}
}

// command writes the program, and returns how it is run.
func (v verifier) command(t *testing.T, code string) []string {
	t.Helper()
	switch v.language {
	case "Go":
		code = strings.Replace(strings.Replace(code, "package hooks", "package main", 1), "\t\"strconv\"", "\t\"os\"\n\t\"strconv\"", 1) + v.rest
	case "Java": // the class with main comes first in a file that is run as it stands
		head, class, _ := strings.Cut(code, "public final class")
		code = head + v.rest + "final class" + class
	default:
		code += v.rest
	}
	dir := t.TempDir()
	file := filepath.Join(dir, v.file)
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if v.language == "Go" {
		return []string{goProgram(t, dir, file)}
	}
	if _, err := exec.LookPath(v.run); err != nil {
		t.Skip(v.language + " is not on this machine")
	}
	return []string{v.run, file}
}
