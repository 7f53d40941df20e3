package kafka

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestKcatReadsWhatIsWritten: a client of another family (librdkafka) reads keys,
// headers and every compression.
func TestKcatReadsWhatIsWritten(t *testing.T) {
	t.Parallel()
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed: it comes with the system's packages (apt-get install kcat)")
	}
	c := newCluster(t)
	for i, z := range []Compression{Gzip, None, Snappy, LZ4, Zstd} {
		k := open(t, Config{Brokers: c.ListenAddrs(), Compression: z, Partitions: 1})
		write(t, k, change(uint64(2*i+1), fmt.Sprint(i)), change(uint64(2*i+2), fmt.Sprint(i)))
	}
	out, err := exec.CommandContext(t.Context(), kcat, "-b", c.ListenAddrs()[0], "-C", "-t", "app.public.orders", "-e", "-q", "-f", "%k %h %s\n").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 10 {
		t.Fatalf("kcat read %d records, want 10: %s", len(lines), out)
	}
	for i, line := range lines {
		contains(t, line, fmt.Sprintf("%d content-type=application/json,ce_specversion=1.0,ce_id=sys-1-%d-0", i/2, i+1))
	}
}
