package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lockstep": func() { os.Exit(runProcess()) }})
}

// TestScripts runs the scripts of testdata. Each has a node of its own that speaks
// the wire contract; LOCKSTEP_SERVER names it.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			n := newNode()
			e.Defer(n.close)
			e.Values[nodeKey{}] = n
			e.Setenv("LOCKSTEP_SERVER", n.address())
			e.Setenv("NODE", strings.TrimPrefix(n.address(), "http://"))
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"commit":   cmdCommit,
			"settled":  cmdSettled,
			"restart":  cmdRestart,
			"exitcode": cmdExitcode,
			"gap":      cmdGap,
			"looked":   cmdLooked,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

type nodeKey struct{}

// cmdCommit adds a change to the node's stream.
func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: commit")
	}
	ts.Value(nodeKey{}).(*node).commit()
}

// cmdSettled waits until a tail has got everything.
func cmdSettled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: settled")
	}
	ts.Value(nodeKey{}).(*node).settled()
}

// cmdRestart cuts every connection, as a node that is started anew does.
func cmdRestart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: restart")
	}
	ts.Value(nodeKey{}).(*node).cut()
}

// cmdGap opens a gap of a database: gap DATABASE
func cmdGap(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gap DATABASE")
	}
	ts.Value(nodeKey{}).(*node).backfills.openGap(args[0])
}

// cmdLooked waits until somebody has looked at backfills so often: looked TIMES
func cmdLooked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: looked TIMES")
	}
	times, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Value(nodeKey{}).(*node).backfills.looked(times)
}

// cmdExitcode runs a command and checks its exit code: exitcode CODE PROGRAM ARG…
// Its output is there for stdout and stderr as after exec.
func cmdExitcode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE PROGRAM ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}
