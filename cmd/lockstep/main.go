// Command lockstep runs a node and talks to one.
//
// # Guarantees
//
//  1. Exit codes: 0 done, 1 failed at run time, 2 bad input or configuration, 3 the
//     machine lacks something, 130 interrupted.
//  2. Errors go to standard error and say what, where and what to do; standard
//     output holds nothing but what was asked for.
//  3. A reader that closes the pipe ends the command without a word.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(runProcess()) }

// runProcess is everything that main does, so that deferred calls run before the
// process ends.
func runProcess() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// After the first signal the next one ends the process at once.
	context.AfterFunc(ctx, stop)
	// A closed pipe shall be an error of the write, which ends the command in order.
	signal.Ignore(syscall.SIGPIPE)
	return run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, lookup: os.LookupEnv})
}
