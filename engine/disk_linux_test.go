package engine_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

func TestFullDiskIsToldAndLosesNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a file system of a size of one's own needs root")
	}
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE wide (id int PRIMARY KEY, pad text)`)
	n := newNode(t, url, "  - {name: wide, tables: [public.wide], start: beginning}\n")
	data := filepath.Join(filepath.Dir(n.config), "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=90m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		n.kill()
		if err := syscall.Unmount(data, 0); err != nil {
			t.Error(err)
		}
	})
	n.start()
	pgtest.Exec(t, url, `INSERT INTO wide SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i`)
	said := func() bool {
		status, body := get(t, "http://"+n.server+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "disk") && strings.Contains(body, "full")
	}
	pgtest.Eventually(t, 60*time.Second, "the node to tell that its disk is full", said)
	// What is there is delivered, and acks find their room.
	ack(t, n.api, "wide", take(t, n.api, "wide", 100)...)
	if !said() {
		t.Error("the node is ready again although nothing has changed")
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", syscall.MS_REMOUNT, "size=600m"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 60*time.Second, "everything to be in the stream", func() bool {
		databases, err := n.api.Databases(t.Context())
		return err == nil && databases[0].LastSeq == 100_000 && n.api.Ready(t.Context()) == nil
	})
}
