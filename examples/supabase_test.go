package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// supabase returns node, and a folder with the example and its packages. SUPABASE_SDK
// names a folder in which this was run:
//
//	npm install ws@8.23.0 supabase-new@npm:@supabase/supabase-js@2.119.1
func supabase(t *testing.T) (node, folder string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: supabase-js needs it")
	}
	sdk := os.Getenv("SUPABASE_SDK")
	if _, err := os.Stat(filepath.Join(sdk, "node_modules", "supabase-new")); sdk == "" || err != nil {
		t.Skip("there is no supabase-js for node: run the npm install that is written above this in the source somewhere, and set SUPABASE_SDK to that folder")
	}
	folder = t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("supabase-js")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(folder, "node_modules", "@supabase"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, installed := range map[string]string{"@supabase/supabase-js": "supabase-new", "ws": "ws"} {
		if err := os.Symlink(filepath.Join(sdk, "node_modules", installed), filepath.Join(folder, "node_modules", name)); err != nil {
			t.Fatal(err)
		}
	}
	return node, folder
}

// TestSupabaseJS: over a restart of the node, and kills of the program.
func TestSupabaseJS(t *testing.T) {
	t.Parallel()
	javascript, folder := supabase(t)
	n := newNode(t, "", "")
	file := filepath.Join(folder, "orders.json")
	p := newProgram(t, []string{"LOCKSTEP_SERVER=" + n.url(), "COPY=" + file}, javascript, filepath.Join(folder, "main.js"))
	copied := func() []string {
		text, err := os.ReadFile(file)
		var copy struct {
			Orders map[string]struct{ ID, Amount int }
		}
		if err != nil || json.Unmarshal(text, &copy) != nil {
			return nil
		}
		var list []string
		for _, row := range copy.Orders {
			list = append(list, fmt.Sprintf("%d %d", row.ID, row.Amount))
		}
		slices.Sort(list)
		return list
	}
	equal := func(what string) {
		t.Helper()
		want := n.table()
		pgtest.Eventually(t, time.Minute, what, func() bool { return slices.Equal(copied(), want) })
	}
	n.load(0)
	p.start()
	equal("what was written before")
	n.load(1)
	equal("what is written")
	p.kill()
	n.load(2)
	p.start()
	equal("what was written while the program was away")
	subscribed := strings.Count(p.text(), "SUBSCRIBED")
	n.end()
	n.load(3)
	n.start()
	pgtest.Eventually(t, time.Minute, "the program to be back", func() bool { return strings.Count(p.text(), "SUBSCRIBED") > subscribed })
	equal("what was written while the node was away")
	// It went on where it was: what it had seen before did not all come again.
	if lines := strings.Count(p.text(), "\nINSERT"); lines > 300 {
		t.Errorf("%d inserts were printed", lines)
	}
	p.terminate()
}
