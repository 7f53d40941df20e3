package console

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lockstep/client"
	"lockstep/internal/obs"
)

const (
	liveEvery = 200 * time.Millisecond // rows are sent so often at most
	liveRows  = 20                     // and so many each time; of more, the newest
	liveBeat  = 15 * time.Second
	liveWrite = 30 * time.Second // a reader that takes nothing for so long has gone
)

// followChanges sends the changes that a page selects as rows, as long as it is open.
// What is more than a person sees is counted. Every event's id is the place that it
// comes to, so that a browser that lost its connection goes on there.
func followChanges(c *visit) {
	q := c.r.URL.Query()
	s := selectedBy(q)
	after, err := strconv.ParseUint(c.r.Header.Get("Last-Event-ID"), 10, 63)
	if err != nil {
		after, _ = strconv.ParseUint(q.Get("after"), 10, 63) // what is no number is the beginning
	}
	// The API's word on the selection comes before the answer begins.
	if _, err := c.api.Database(c.ctx, s.Database); err != nil {
		http.Error(c.w, words(err), statusOf(err))
		return
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	f := &follower{visit: c, database: s.Database, place: after, sent: c.now()}
	var reading sync.WaitGroup
	reading.Go(func() {
		o := s.options(after)
		// The node stops, or has lost the log: the browser comes back by itself.
		o.Interrupted = func(err error) { cancel(err) }
		for e, err := range c.api.Tail(ctx, s.Database, o) {
			if err != nil {
				cancel(err)
				return
			}
			f.take(e)
		}
	})
	if err := f.run(ctx); err != nil && c.ctx.Err() == nil {
		c.log.DebugContext(c.ctx, "a live tail of the console ended", obs.KeyDatabase, s.Database, obs.KeyError, err)
	}
	cancel(nil)
	reading.Wait()
}

// follower holds what came since rows were sent last.
type follower struct {
	*visit
	database string
	sent     time.Time // when something was sent last

	mu      sync.Mutex
	rows    []pendingRow // the newest, oldest first
	skipped uint64       // older ones that are not shown
	place   uint64       // the last change that came
}

// pendingRow is a change that was not sent yet. It is written as a row when it is sent,
// or at once when it is large.
type pendingRow struct {
	event client.Event
	row   *changeRow
}

// take keeps an event.
func (f *follower) take(e client.Event) {
	p := pendingRow{event: e}
	if len(e.Data) > largestSummary {
		row := rowOf(e, f.database)
		p = pendingRow{row: &row}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq, err := strconv.ParseUint(e.ID, 10, 64); err == nil {
		f.place = seq
	}
	if len(f.rows) == liveRows {
		copy(f.rows, f.rows[1:])
		f.rows = f.rows[:liveRows-1]
		f.skipped++
	}
	f.rows = append(f.rows, p)
}

// collect returns what came as rows, the newest first, and the place of the last.
func (f *follower) collect() ([]changeRow, uint64) {
	f.mu.Lock()
	pending, skipped, place := f.rows, f.skipped, f.place
	f.rows, f.skipped = nil, 0
	f.mu.Unlock()
	rows := make([]changeRow, 0, len(pending)+1)
	for _, p := range slices.Backward(pending) {
		if p.row != nil {
			rows = append(rows, *p.row)
		} else {
			rows = append(rows, rowOf(p.event, f.database))
		}
	}
	if skipped > 0 {
		rows = append(rows, changeRow{Skipped: skipped})
	}
	return rows, place
}

// run sends rows until the reader goes or the tail ends.
func (f *follower) run(ctx context.Context) error {
	if err := f.send("retry: 1000\nid: " + strconv.FormatUint(f.place, 10) + "\nevent: begun\ndata: \n\n"); err != nil {
		return err
	}
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		rows, place := f.collect()
		var text string
		switch {
		case len(rows) > 0:
			var out bytes.Buffer
			if err := f.pages["stream"].ExecuteTemplate(&out, "change rows", rows); err != nil {
				return err
			}
			text = "id: " + strconv.FormatUint(place, 10) + "\nevent: rows\ndata: " + strings.Join(strings.Fields(out.String()), " ") + "\n\n"
		case f.now().Sub(f.sent) >= liveBeat:
			text = ": heartbeat\n\n"
		default:
			continue
		}
		if err := f.send(text); err != nil {
			return err
		}
	}
}

func (f *follower) send(text string) error {
	answer := http.NewResponseController(f.w)
	_ = answer.SetWriteDeadline(time.Now().Add(liveWrite)) // writers without deadlines have none to set
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	f.sent = f.now()
	return answer.Flush()
}
