package engine_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// opened is a stream of events, read in the background.
type opened struct {
	lines <-chan string // closed at its end
}

// stream opens a stream, and waits for its first line.
func (n *node) stream(path string) opened {
	n.t.Helper()
	request, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, "http://"+n.server+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	request.Header.Set("X-Consumer-Id", "someone")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		n.t.Fatalf("%s: status %d, %s", path, response.StatusCode, text)
	}
	lines := make(chan string, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(lines)
		for in := bufio.NewScanner(response.Body); in.Scan(); {
			lines <- in.Text()
		}
	}()
	n.t.Cleanup(func() {
		_ = response.Body.Close()
		<-done
	})
	<-lines
	return opened{lines}
}

// ended reads to the end of the stream, which must come soon, and returns what came.
func (o opened) ended(t *testing.T, what string) string {
	t.Helper()
	var text strings.Builder
	deadline := time.After(20 * time.Second)
	for {
		select {
		case line, more := <-o.lines:
			if !more {
				return text.String()
			}
			text.WriteString(line + "\n")
		case <-deadline:
			t.Fatalf("%s is still open", what)
		}
	}
}

func TestWhoFollowsADeletedDatabaseIsToldAndSentAway(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	address, d := shop(t, "api_followed")
	pgtest.Exec(t, address, `CREATE TABLE events (id bigserial PRIMARY KEY, consumer_id text NOT NULL, type text NOT NULL, payload jsonb)`)
	n.create(d)
	n.captures("shop")
	changes := n.stream("/v1/databases/shop/changes")
	subscribed := n.stream("/events?database=shop")
	socket, _, err := websocket.Dial(t.Context(), "ws://"+n.server+"/realtime/v1/websocket?database=shop&vsn=2.0.0", nil) //nolint:bodyclose // the library owns it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.CloseNow() }()
	join := `["1","1","realtime:orders","phx_join",{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"orders"}]}}]`
	if err := socket.Write(t.Context(), websocket.MessageText, []byte(join)); err != nil {
		t.Fatal(err)
	}
	await := func(part string) string {
		t.Helper()
		for {
			_, data, err := socket.Read(t.Context())
			if err != nil {
				t.Fatalf("waiting for %s: %v", part, err)
			}
			if strings.Contains(string(data), part) {
				return string(data)
			}
		}
	}
	await("Subscribed to PostgreSQL")
	// Other tables of it are captured anew: who follows it stays.
	if _, err := n.api.UpdateDatabase(t.Context(), "shop", []string{"public.orders", "public.events"}); err != nil {
		t.Fatal(err)
	}
	n.captures("shop")
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (1, 'one')`)
	await("postgres_changes")
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); err != nil {
		t.Fatal(err)
	}
	if text := changes.ended(t, "the stream of changes"); !strings.Contains(text, `"note":"one"`) || !strings.Contains(text, ": the database was deleted") {
		t.Errorf("the stream of changes ended with %s", text)
	}
	subscribed.ended(t, "the stream of events")
	await(`the database \"shop\" was deleted`)
	await("phx_close")
	for _, path := range []string{"/v1/databases/shop/changes", "/events?database=shop&consumer_id=someone"} {
		if status, text := get(t, "http://"+n.server+path); status != http.StatusNotFound {
			t.Errorf("%s again: %d %s, want 404", path, status, text)
		}
	}
	for _, err := range n.api.Tail(t.Context(), "shop", client.TailOptions{LastID: "1"}) {
		if !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("a tail again: %v, want that it is not there", err)
		}
	}
}

// Who follows a database when the node starts anew finds it, or is told to come back; never
// that it is not there, after which programs do not come back.
func TestWhoFollowsADatabaseIsNotSentAwayByARestart(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	_, d := shop(t, "api_restarted")
	n.create(d)
	n.captures("shop")
	n.kill()
	n.launch()
	pgtest.Eventually(t, 60*time.Second, "the database to be there again", func() bool {
		response, err := http.Head("http://" + n.server + "/v1/databases/shop/changes")
		if err != nil {
			return false // it does not listen yet
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("status %d after the start", response.StatusCode)
		}
		return response.StatusCode == http.StatusOK
	})
}
