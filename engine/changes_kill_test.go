package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// followers are clients of the stream of changes, each with a filter of its own.
type followers struct {
	mu  sync.Mutex
	ids [][]int // of each client, as they came
	all int
}

// follow is one client, through kills, until ctx ends.
func (f *followers) follow(ctx context.Context, api *client.Client, k int) error {
	o := client.TailOptions{From: "beginning", Tables: []string{"public.followed"}, Filter: fmt.Sprintf("record.customer == %d", k)}
	for e, err := range api.Tail(ctx, "app", o) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("client %d: %w", k, err)
		}
		var got struct {
			Record struct{ ID, Customer int }
		}
		if err := json.Unmarshal(e.Data, &got); err != nil || got.Record.Customer != k {
			return fmt.Errorf("client %d got the %s %s: %w", k, e.Name, e.Data, err)
		}
		f.mu.Lock()
		f.ids[k] = append(f.ids[k], got.Record.ID)
		f.all++
		f.mu.Unlock()
	}
	return nil
}

func (f *followers) came() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

// TestKilledNodeWhileFiveHundredClientsResume kills a node again and again under 500
// clients of its changes, also while they come back. Each has every change of its
// filter, once and in order.
func TestKilledNodeWhileFiveHundredClientsResume(t *testing.T) {
	t.Parallel()
	const clients, kills = 500, 4
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE followed (id int PRIMARY KEY, customer int NOT NULL)`)
	n := newNode(t, url, "  - {name: audit, tables: [public.followed], start: beginning}\n")
	n.start()

	f := &followers{ids: make([][]int, clients)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	var group, writer errgroup.Group
	for k := range clients {
		group.Go(func() error { return f.follow(ctx, n.api, k) })
	}
	committed := make([][]int, clients)
	total := 0
	writer.Go(func() (err error) {
		total, err = writeFollowed(writing, t, url, committed)
		return err
	})
	pgtest.Eventually(t, 120*time.Second, "the clients to follow", func() bool { return f.came() > clients })
	for range kills {
		timer := time.NewTimer(300*time.Millisecond + rand.N(1500*time.Millisecond))
		<-timer.C
		n.kill()
		n.launch()
	}
	pgtest.Eventually(t, 120*time.Second, "the node to be back", func() bool { return n.api.Ready(t.Context()) == nil })
	stopWriting()
	if err := writer.Wait(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 180*time.Second, "every change to come", func() bool { return f.came() >= total })
	cancel()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for k := range clients {
		if diff := cmp.Diff(committed[k], f.ids[k]); diff != "" {
			t.Errorf("client %d: %.300s", k, diff)
		}
	}
	t.Logf("%d kills, %d changes, %d clients", kills, total, clients)
}

// writeFollowed commits rows until ctx ends, and notes the ids by customer.
func writeFollowed(ctx context.Context, t *testing.T, url string, committed [][]int) (total int, err error) {
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		first, count := total+1, 1+rand.IntN(30)
		sql := `INSERT INTO followed SELECT i, i % ` + strconv.Itoa(len(committed)) + ` FROM generate_series($1::int, $2::int) i`
		if _, err := conn.Exec(t.Context(), sql, first, first+count-1); err != nil {
			return total, err
		}
		for id := first; id < first+count; id++ {
			committed[id%len(committed)] = append(committed[id%len(committed)], id)
		}
		total += count
	}
	return total, nil
}
