package pump_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lockstep/internal/deliver"
	"lockstep/internal/pump"
)

// attemptsIn is what a set remembers of a consumer.
func attemptsIn(set *pump.Set, consumer string) []pump.Attempt {
	p, err := set.Find(consumer)
	if err != nil {
		return nil
	}
	list, _ := p.Book.List(0, 500, pump.All)
	return list
}

func TestAttemptsOutliveARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "attempts")
	l := &places{opened: map[string]*receiver{}}
	open := func() *pump.Set {
		return pump.NewSet(pump.SetConfig{
			Consumers: r.broker.List, Sends: func(kind string) bool { return kind == "webhook" }, Logger: quiet(), Open: l.open, Dir: dir,
		})
	}
	file := func(c *deliver.Consumer) string { return filepath.Join(dir, url.PathEscape(c.ID())+".json") }
	gone := func(path string) bool { _, err := os.Stat(path); return errors.Is(err, fs.ErrNotExist) }
	kept := r.consumer(func(d *deliver.Definition) { d.Settings = []byte("one") })
	other := r.consumer(func(d *deliver.Definition) { d.Settings = []byte("two") })

	set := open()
	stop := start(t, set.Run)
	r.fill(100, 10)
	eventually(t, "both are sent to", func() bool { return l.at("one") == 100 && l.at("two") == 100 })
	eventually(t, "attempts are on disk while it runs, as for a kill", func() bool { return !gone(file(kept)) && !gone(file(other)) })
	stop()
	before := attemptsIn(set, kept.ID())

	// One consumer is deleted while nothing runs.
	if err := r.broker.Remove(t.Context(), other.ID()); err != nil {
		t.Fatal(err)
	}
	set = open()
	stop = start(t, set.Run)
	eventually(t, "the consumer is there again", func() bool { _, err := set.Find(kept.ID()); return err == nil })
	if after := attemptsIn(set, kept.ID()); len(after) < len(before) || after[len(after)-1].ID != before[len(before)-1].ID || after[len(after)-1].Duration != before[len(before)-1].Duration {
		t.Errorf("after a restart there are %d attempts, before it %d", len(after), len(before))
	}
	if !gone(file(other)) {
		t.Error("the attempts of a consumer that was deleted meanwhile are still on disk")
	}
	last := before[0].ID
	r.fill(100, 10)
	eventually(t, "the next attempts have higher ids", func() bool { return attemptsIn(set, kept.ID())[0].ID > last && l.at("one") == 100 })
	stop()

	// What cannot be read is begun anew.
	if err := os.WriteFile(file(kept), []byte(`{"last":`), 0o600); err != nil {
		t.Fatal(err)
	}
	set = open()
	stop = start(t, set.Run)
	r.fill(100, 10)
	eventually(t, "attempts are remembered again", func() bool { return len(attemptsIn(set, kept.ID())) > 0 })
	if err := r.broker.Remove(t.Context(), kept.ID()); err != nil {
		t.Fatal(err)
	}
	set.Kick()
	eventually(t, "one that is deleted leaves nothing on disk", func() bool { return gone(file(kept)) })
	stop()
	if !gone(file(kept)) {
		t.Error("the end brought it back")
	}
}

// told counts the lines of a log that hold a text.
type told struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *told) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(line)
}

func (o *told) count(text string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.text.String(), text)
}

// On a full disk attempts wait: what is left is for acks. That is told once, not each
// second.
func TestAttemptsLeaveTheRestOfTheDiskAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "attempts")
	l, log := &places{opened: map[string]*receiver{}}, &told{}
	var full atomic.Bool
	var asked atomic.Int64
	full.Store(true)
	set := pump.NewSet(pump.SetConfig{
		Consumers: r.broker.List, Sends: func(kind string) bool { return kind == "webhook" }, Open: l.open, Dir: dir, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Room: func(int) error {
			asked.Add(1)
			if full.Load() {
				return errors.New("the disk is full")
			}
			return nil
		},
	})
	r.consumer(func(d *deliver.Definition) { d.Settings = []byte("one") })
	r.consumer(func(d *deliver.Definition) { d.Settings = []byte("two") })
	stop := start(t, set.Run)
	r.fill(100, 10)
	eventually(t, "both are sent to", func() bool { return l.at("one") == 100 && l.at("two") == 100 })
	eventually(t, "each was tried twice", func() bool { return asked.Load() >= 4 })
	if files, err := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("%d files were written, %v", len(files), err)
	}
	if n := log.count("not kept over a restart"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	full.Store(false)
	eventually(t, "both are on disk when there is room", func() bool { files, _ := os.ReadDir(dir); return len(files) == 2 })
	stop()
}
