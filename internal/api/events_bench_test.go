package api_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/internal/events"
)

// BenchmarkEvents follows with 1,000 clients over loopback HTTP, in the same process,
// and tells how long an event takes from the log to its last client. A name says how
// many events a second there are in all, and whether each is for one client or for
// everybody. An operation is an event.
func BenchmarkEvents(b *testing.B) {
	for _, c := range []struct{ perSecond, subscribers int }{{1000, 1000}, {20_000, 1000}, {20, 1}} {
		name := fmt.Sprintf("%d/s_each_for_one", c.perSecond)
		if c.subscribers == 1 {
			name = fmt.Sprintf("%d/s_each_for_all", c.perSecond)
		}
		b.Run(name, func(b *testing.B) { benchEvents(b, c.perSecond, c.subscribers) })
	}
}

type arrivals struct {
	mu    sync.Mutex
	sent  []time.Time     // by id
	left  []int           // clients that have not got it
	took  []time.Duration // to the last client
	count atomic.Int64
}

func (a *arrivals) arrived(id int) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left[id]--; a.left[id] == 0 {
		a.took = append(a.took, now.Sub(a.sent[id]))
	}
	a.count.Add(1)
}

func benchEvents(b *testing.B, perSecond, subscribers int) {
	const clients = 1000
	n, _, _ := newEvents(b, nil, events.Limits{})
	l, err := n.Listen(b.Context(), "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: n, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	a := &arrivals{sent: make([]time.Time, b.N+1), left: make([]int, b.N+1)}
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	before := memory()
	var open sync.WaitGroup
	for i := range clients {
		open.Add(1)
		all.Go(func() { a.follow(ctx, b, l.Addr().String(), i%subscribers, open.Done) })
	}
	open.Wait()
	each := float64(memory()-before) / clients / 1024 // of the server and of the client
	b.ResetTimer()
	batch := max(perSecond/200, 1)
	tick := time.NewTicker(time.Second * time.Duration(batch) / time.Duration(perSecond))
	defer tick.Stop()
	for id := 1; id <= b.N; {
		<-tick.C
		var rows []string
		a.mu.Lock()
		for range min(batch, b.N-id+1) {
			a.sent[id], a.left[id] = time.Now(), clients/subscribers
			rows = append(rows, happening(id, strconv.Itoa(rand.IntN(subscribers))))
			id++
		}
		a.mu.Unlock()
		n.log.add(rows...)
	}
	for a.count.Load() < int64(b.N*clients/subscribers) {
		<-tick.C
	}
	b.StopTimer()
	b.ReportMetric(each, "KB/client")
	slices.Sort(a.took)
	b.ReportMetric(float64(a.took[len(a.took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(a.took[len(a.took)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(float64(a.count.Load())/b.Elapsed().Seconds(), "sent/s")
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func (a *arrivals) follow(ctx context.Context, b *testing.B, address string, subscriber int, open func()) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		b.Error(err)
		open()
		return
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_, _ = fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\nX-Consumer-Id: %d\r\n\r\n", subscriber)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if lines.Text() == "retry: 2000" {
			open()
		}
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			n, err := strconv.Atoi(id)
			if err != nil {
				b.Error(err)
			}
			a.arrived(n)
		}
	}
}
