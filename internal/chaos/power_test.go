package chaos_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// cutPower takes from the node what a machine loses with its power: everything that it
// did not sync. The node is frozen while the image is copied, so that the copy is of
// one instant; then it is killed and goes on from the copy. What it had confirmed
// before, to Postgres and to workers, must be in there: the audit knows.
func (c *campaign) cutPower(ctx context.Context) error {
	c.cuts++
	image := filepath.Join(filepath.Dir(c.disk.image), strconv.Itoa(c.cuts)+".img")
	c.node.signal(syscall.SIGSTOP)
	err := c.disk.copyTo(image)
	c.node.kill()
	if err != nil {
		return err
	}
	if err := c.disk.swap(image, filepath.Join(filepath.Dir(image), strconv.Itoa(c.cuts))); err != nil {
		return err
	}
	// The directory moved with its disk.
	if err := c.node.configure(filepath.Join(c.disk.dir, "data")); err != nil {
		return err
	}
	return errors.Join(c.node.launch(), ctx.Err())
}

// TestPowerCut cuts the power LOCKSTEP_CHAOS_CUTS times (default 2).
func TestPowerCut(t *testing.T) {
	t.Parallel()
	seed, cuts := uint64(1), number(t, "LOCKSTEP_CHAOS_CUTS", 2)
	if os.Getenv("LOCKSTEP_CHAOS") != "" {
		seed = seedOf(t)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	var events []accident
	for range cuts {
		events = append(events, accident{kind: cutPower, after: time.Second + time.Duration(random.Int64N(int64(2*time.Second)))})
	}
	changes := 10_000 * cuts
	disk, reason := powerDisk(t, filepath.Join(workDir(t), "disk"), 256+changes/200)
	if reason != "" {
		t.Skip(reason)
	}
	c := newCampaign(t, seed, changes, events)
	c.disk = disk
	c.begin()
	c.run()
}
