package engine_test

import (
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
	"lockstep/sandbox/stripe"
)

// A sync of the configuration was made when a node found it there first, however often
// nodes start since.
func TestASyncOfTheConfigurationTellsWhenItWasFirstSeen(t *testing.T) {
	t.Parallel()
	a := newAccount(t, stripe.Options{Customers: 1, Unlimited: true})
	n := newNode(t, pgtest.Database(t), a.syncing(`"stripe:customer"`))
	began := time.Now().Add(-time.Minute)
	n.start()
	first := n.syncMade("acme")
	if first.Before(began) || first.After(time.Now().Add(time.Minute)) {
		t.Errorf("it was made at %s", first)
	}
	n.kill()
	n.start()
	if again := n.syncMade("acme"); !again.Equal(first) {
		t.Errorf("after a restart it was made at %s, before at %s", again, first)
	}
}

// syncMade returns when a sync was made, once its database has been reached; until then
// nothing is said of it.
func (n *node) syncMade(name string) (at time.Time) {
	n.t.Helper()
	pgtest.Eventually(n.t, 30*time.Second, "the sync's time", func() bool {
		code, answer := n.call("GET", "/v1/syncs/"+name, "")
		text, told := answer["created_at"].(string)
		if code != 200 || !told {
			return false
		}
		var err error
		if at, err = time.Parse(time.RFC3339Nano, text); err != nil || at.Year() == 1 {
			n.t.Fatalf("created_at is %q", text)
		}
		return true
	})
	return at
}
