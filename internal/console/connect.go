package console

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// connectView says how to connect to a consumer: code to copy.
type connectView struct {
	consumerView
	Token    string // how to make a token for it
	Open     bool   // the reader came in without one: so may workers on this machine
	Server   string
	Snippets []snippet
	Verify   []snippet // of webhooks: whether a request is Lockstep's
	Look     string    // how to see what arrives, of other kinds
}

// snippet is a program to copy.
type snippet struct {
	Name string // what it is written in
	File string // what to call it
	Run  string // how to start it
	Text string
}

// pullSnippets are programs that take changes, work and ack.
func pullSnippets() []snippet {
	return []snippet{
		{Name: "curl", File: "curl.sh", Run: "LOCKSTEP_TOKEN=… sh worker.sh"},
		{Name: "Go", File: "worker.go.txt", Run: "LOCKSTEP_TOKEN=… go run ."},
		{Name: "Python", File: "worker.py", Run: "LOCKSTEP_TOKEN=… python3 worker.py"},
		{Name: "JavaScript", File: "worker.mjs", Run: "LOCKSTEP_TOKEN=… node worker.mjs"},
		{Name: "Elixir", File: "worker.exs", Run: "LOCKSTEP_TOKEN=… elixir worker.exs"},
		{Name: "Java", File: "Worker.java", Run: "LOCKSTEP_TOKEN=… java Worker.java"},
	}
}

// verifySnippets check the signature of a webhook's request.
func verifySnippets() []snippet {
	return []snippet{
		{Name: "JavaScript", File: "verify.mjs"}, {Name: "Python", File: "verify.py"}, {Name: "Go", File: "verify.go.txt"},
		{Name: "Elixir", File: "verify.exs"}, {Name: "Java", File: "Signature.java"},
	}
}

func consumerConnect(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "connect")
	if err != nil {
		return nil, err
	}
	_, err = c.token(c.r)
	v := &connectView{consumerView: frame, Server: c.server(), Open: err != nil}
	name := v.Consumer.Name
	v.Token = "lockstep token create " + shellQuoted(name+"-worker") + " --scope " + shellQuoted("consume:"+name)
	switch v.Consumer.Kind {
	case "http":
		v.Snippets, err = snippetsFor(pullSnippets(), v.Server, name)
	case "webhook":
		v.Verify, err = snippetsFor(verifySnippets(), v.Server, name)
	default:
		v.Look = looks(v.Consumer.Kind)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// looks says how to see what arrives at a destination.
func looks(kind string) string {
	switch kind {
	case "nats":
		return "nats consumer next lockstep-NAME --count 10\nnats sub 'lockstep.>'"
	case "kafka":
		return "kcat -b host:9092 -t database.schema.table -o -10 -e"
	case "redis":
		return "redis-cli XREVRANGE lockstep:database:schema.table + - COUNT 10"
	case "postgres":
		return "SELECT * FROM schema.table ORDER BY _seq DESC LIMIT 10;"
	}
	return ""
}

// hostPattern is what a Host header may hold to be shown in code: a name or an address,
// and a port.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+(:[0-9]{1,5})?$|^\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?$`)

// server is the address that the reader has of this node.
func (c *visit) server() string {
	scheme := "http"
	if c.r.TLS != nil || c.r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	if !hostPattern.MatchString(c.r.Host) {
		return "http://127.0.0.1:7300"
	}
	return scheme + "://" + c.r.Host
}

// snippetsFor writes snippets for a consumer. The queue's address is escaped so far that it
// is the same text in every language.
func snippetsFor(list []snippet, server, name string) ([]snippet, error) {
	escaped := strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
	fill := map[string]any{
		"Queue": server + "/v1/http-consumers/" + escaped, "Globoff": strings.Contains(server, "["),
		"GoServer": strconv.Quote(server), "GoName": strconv.Quote(name),
	}
	for i := range list {
		text, err := templates.ReadFile("templates/snippets/" + list[i].File)
		if err != nil {
			return nil, fmt.Errorf("read a snippet: %w", err)
		}
		t, err := template.New(list[i].File).Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("read a snippet: %w", err)
		}
		var out strings.Builder
		if err := t.Execute(&out, fill); err != nil {
			return nil, fmt.Errorf("fill in a snippet: %w", err)
		}
		list[i].Text = out.String()
	}
	return list, nil
}

// shellQuoted quotes a text for a shell where it needs it.
func shellQuoted(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
