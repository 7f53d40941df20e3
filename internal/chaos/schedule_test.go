package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// accident is one thing that happens. Its numbers are drawn when the schedule is made,
// so that a seed gives the same accidents whatever the timing.
type accident struct {
	kind  kind
	after time.Duration // since the one before was over
	lasts time.Duration // for those that last
	inner bool          // the node is killed in the middle of it, too
	dice  uint64        // for what else is to be chosen
}

type kind string

const (
	killNode      kind = "kill -9 of the node"
	stopNode      kind = "SIGTERM of the node"
	freezeNode    kind = "SIGSTOP of the node, SIGCONT"
	crashPostgres kind = "immediate stop of Postgres"
	endWalsender  kind = "pg_terminate_backend of the walsender"
	loseWorkers   kind = "all workers vanish"
	cutNetwork    kind = "connections reset"
	holdNetwork   kind = "network passes nothing"
	slowNetwork   kind = "network delays"
	shutNetwork   kind = "network refuses connections"
	loseNetwork   kind = "connections go nowhere, for ever"
	halfOpen      kind = "connections half open"
	fillDisk      kind = "disk full"
	sameDirectory kind = "second node on the data directory"
	sameSlot      kind = "second node on the slot"
	jumpClock     kind = "wall clock set"
	cutPower      kind = "power cut"
)

// weight says how often a kind comes, and how long it lasts.
type weight struct {
	kind        kind
	weight      int
	least, most time.Duration
}

func weights() []weight {
	return []weight{
		{killNode, 100, 0, 400 * time.Millisecond}, // lasts: until it is started again
		{stopNode, 6, 0, 200 * time.Millisecond},
		{freezeNode, 5, 500 * time.Millisecond, 4 * time.Second},
		{crashPostgres, 8, 0, 1500 * time.Millisecond},
		{endWalsender, 8, 0, 0},
		{loseWorkers, 10, 0, 0},
		{cutNetwork, 8, 0, 0},
		{holdNetwork, 5, time.Second, 4 * time.Second},
		{slowNetwork, 3, time.Second, 3 * time.Second},
		{shutNetwork, 3, 500 * time.Millisecond, 3 * time.Second},
		{loseNetwork, 2, 0, 0},
		{halfOpen, 3, 0, 0},
		{fillDisk, 4, 500 * time.Millisecond, 4 * time.Second},
		{sameDirectory, 3, 0, 0},
		{sameSlot, 2, 3 * time.Second, 5 * time.Second},
		{jumpClock, 8, 0, 0},
	}
}

// schedule draws accidents until it holds that many kills of the node, all told. Each
// kind comes at least once when there is room.
func schedule(seed uint64, kills int, without map[kind]string) []accident {
	random := rand.New(rand.NewPCG(seed, 1))
	var usable []weight
	sum := 0
	for _, w := range weights() {
		if without[w.kind] == "" {
			usable = append(usable, w)
			sum += w.weight
		}
	}
	var all []accident
	for n := 0; n < kills; {
		dice, at := random.IntN(sum), 0
		for dice >= usable[at].weight {
			dice -= usable[at].weight
			at++
		}
		w := usable[at]
		a := accident{kind: w.kind, dice: random.Uint64(), lasts: w.least, after: 150*time.Millisecond + time.Duration(random.Int64N(int64(1300*time.Millisecond)))}
		if w.most > w.least {
			a.lasts += time.Duration(random.Int64N(int64(w.most - w.least)))
		}
		// A second node is watched beside the first, which must be there for that.
		a.inner = a.lasts > 0 && w.kind != killNode && w.kind != stopNode && w.kind != sameSlot && random.IntN(3) == 0
		if a.kind == killNode || a.inner {
			n++
		}
		all = append(all, a)
	}
	return all
}

func (a accident) String() string {
	text := string(a.kind)
	if a.lasts > 0 {
		text += fmt.Sprintf(" for %s", a.lasts.Round(time.Millisecond))
	}
	if a.inner {
		text += ", kill -9 of the node in the middle"
	}
	return text
}
