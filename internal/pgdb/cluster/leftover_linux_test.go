package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLeftoverPostgresIsStopped covers what the death signal cannot: a postmaster
// whose parent died where there is no such signal, or that sat in recovery.
func TestLeftoverPostgresIsStopped(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	c := start(t, cfg)
	query(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 42 AS n")
	stop(t, c)

	arg, held, err := c.account.reach(c.lay.data())
	if err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command(filepath.Join(c.bin.Dir, "postgres"), "-D", arg, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "port="+strconv.Itoa(c.port))
	c.confine(orphan, held)
	orphan.SysProcAttr.Pdeathsig = 0
	p := run(orphan)
	held.close()
	eventually(t, 10*time.Second, "the orphan is ready", func() bool {
		text, err := os.ReadFile(c.lay.pidFile())
		return err == nil && strings.Contains(string(text), "ready")
	})

	c = start(t, cfg)
	<-p.done
	if got := query(t, c.URL("postgres"), "SELECT n FROM kept"); got != "42" {
		t.Errorf("the row is %q, want 42", got)
	}
}
