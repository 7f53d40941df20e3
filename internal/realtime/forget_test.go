package realtime_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"lockstep"
	"lockstep/internal/realtime"
)

// newForgetful is a rig whose database can be deleted.
func newForgetful(t *testing.T) (r *rig, deleted *atomic.Bool) {
	deleted = &atomic.Bool{}
	r = newRig(t, func(c *realtime.Config) {
		log := c.Log
		c.Log = func(database string) (realtime.Log, error) {
			if deleted.Load() {
				return nil, fmt.Errorf("database %q: %w", database, lockstep.ErrNotFound)
			}
			return log(database)
		}
	})
	return r, deleted
}

func TestChannelsOfADeletedDatabaseEndWithTheReason(t *testing.T) {
	t.Parallel()
	r, deleted := newForgetful(t)
	c := r.connectTo("database=app")
	c.follow(everything)
	other := r.connect() // its database has another name
	other.follow(everything)
	deleted.Store(true)
	r.server.Forget("app")
	if text := c.expect("system"); !strings.Contains(text, `"status":"error"`) || !strings.Contains(text, `the database \"app\" was deleted`) {
		t.Errorf("the channel is told %s", text)
	}
	c.expect("phx_close")
	c.push("phoenix", "heartbeat", "{}")
	c.answer("ok") // the socket stays: who comes back at once would only be refused again and again

	c.push("realtime:changes", "phx_join", `{"config":{"postgres_changes":[`+everything+`]}}`)
	if text := c.answer("error"); !strings.Contains(text, "not there any more") {
		t.Errorf("a join is answered with %s", text)
	}
	if _, response, err := r.dial("database=app", nil); err == nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("a new socket: %v, want 404", err)
	} else {
		_ = response.Body.Close()
	}
	// One that is made again under the name is followed by the same socket.
	deleted.Store(false)
	c.follow(everything)
	r.log.add(t, insert(1, ""))
	if got := c.change(); got.Data.Sequence == 0 {
		t.Errorf("got %+v", got)
	}
	other.change()
}

// A join that is under way while the database is deleted does not become a channel that
// nobody ends.
func TestAJoinWhileTheDatabaseIsDeleted(t *testing.T) {
	t.Parallel()
	for range 50 {
		r, deleted := newForgetful(t)
		c := r.connectTo("database=app")
		c.push("realtime:changes", "phx_join", `{"config":{"postgres_changes":[`+everything+`]}}`)
		deleted.Store(true)
		r.server.Forget("app")
		for {
			m := c.read()
			if m.event == "phx_close" || m.event == "phx_reply" && strings.Contains(m.raw, `"error"`) {
				break
			}
		}
		_ = c.conn.CloseNow()
		r.stop()
	}
}
