package engine_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"lockstep/internal/pgdb/pgtest"
)

// What a Supabase client sees of a node: nothing that is written after the join's
// answer is missed.
func TestRealtimeTellsWhatIsWrittenAfterTheJoin(t *testing.T) {
	database := pgtest.Database(t)
	pgtest.Exec(t, database, "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric)")
	n := newNode(t, database, "  []")
	n.start()
	ctx := t.Context()
	socket, _, err := websocket.Dial(ctx, "ws://"+n.server+"/realtime/v1/websocket?apikey=anon&vsn=1.0.0", nil) //nolint:bodyclose // the library owns it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.CloseNow() }()
	join := `{"topic":"realtime:orders","event":"phx_join","ref":"1","join_ref":"1","payload":{"config":{"postgres_changes":[
		{"event":"INSERT","schema":"public","table":"orders","filter":"amount=gt.100"}]}}}`
	if err := socket.Write(ctx, websocket.MessageText, []byte(join)); err != nil {
		t.Fatal(err)
	}
	type message struct {
		Event   string
		Payload struct {
			Status string
			Data   struct {
				Record  map[string]any
				Columns []struct{ Name, Type string }
			}
		}
	}
	await := func(event string) message {
		t.Helper()
		for {
			_, data, err := socket.Read(ctx)
			if err != nil {
				t.Fatalf("waiting for %s: %v", event, err)
			}
			var m message
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			if m.Event == event {
				return m
			}
		}
	}
	if m := await("phx_reply"); m.Payload.Status != "ok" {
		t.Fatalf("join: %+v", m)
	}
	pgtest.Exec(t, database, "INSERT INTO orders VALUES (1, 50), (2, 100.50)")
	m := await("postgres_changes")
	if m.Payload.Data.Record["id"] != float64(2) || len(m.Payload.Data.Columns) != 2 {
		t.Errorf("change: %+v", m)
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the node took %s to stop with a socket open", took)
	}
	if _, _, err := socket.Read(ctx); err == nil || !strings.Contains(err.Error(), "going away") && websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("after the stop: %v", err)
	}
}
