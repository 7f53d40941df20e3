package engine

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strconv"
	"time"

	"lockstep/internal/history"
	"lockstep/internal/stage"
)

// historyStage takes a sample of everything every ten seconds, at the full ones, so
// that a chart's places and the samples are the same.
func (e *Engine) historyStage() stage.Stage {
	return stage.Stage{Name: "history", Run: func(ctx context.Context) error {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
			e.history.Add(e.sample()) //nolint:contextcheck // a sample is whole, also the last one
			now := time.Now()
			timer.Reset(now.Truncate(history.Every).Add(history.Every).Sub(now))
		}
	}}
}

func (e *Engine) sample() history.Sample {
	s := history.Sample{
		At: time.Now(), Node: history.Node{RSS: residentBytes(), Goroutines: runtime.NumGoroutine()},
		Databases: map[string]history.Database{}, Consumers: map[string]history.Consumer{},
	}
	for _, d := range e.databases.all() {
		if d.capture == nil {
			continue
		}
		c := d.capture.Status()
		s.Databases[d.Name] = history.Database{Changes: c.Changes, Lag: int64(c.LagBytes)}
	}
	for _, c := range e.broker.List() {
		d, stats := c.Definition(), c.Stats()
		s.Consumers[d.ID] = history.Consumer{
			Name: d.Name, Database: d.Database, Pending: stats.Pending, InFlight: stats.InFlight,
			Delivered: stats.Delivered, Redelivered: stats.Redelivered, Settled: stats.Acked, OldestUnacked: stats.OldestUnacked,
		}
	}
	return s
}

// residentBytes is the memory that the process has of the machine; where the system
// does not tell, what the runtime has asked it for.
func residentBytes() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(text); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
