package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"lockstep/internal/obs"
)

// isTerminal reports whether a person reads what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns returns the width of the terminal, or 0 when w is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return n
}

// colours reports whether w takes colours: a terminal, and NO_COLOR (no-color.org)
// does not forbid it.
func (s streams) colours(w io.Writer) bool {
	if v, _ := s.lookup("NO_COLOR"); v != "" {
		return false
	}
	if v, _ := s.lookup("TERM"); v == "dumb" {
		return false
	}
	return isTerminal(w)
}

// logger returns the logger of a node: to standard error, from the level that
// LOCKSTEP_LOG names, as text for people and as JSON for machines.
func (s streams) logger() (*slog.Logger, error) {
	name, _ := s.lookup("LOCKSTEP_LOG")
	level, err := obs.ParseLevel(name)
	if err != nil {
		return nil, usageError{err}
	}
	format := obs.JSON
	if isTerminal(s.err) {
		format = obs.Terminal
	}
	return obs.NewLogger(s.err, level, format), nil
}

// quiet is the logger of commands that show what happens in their own words.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
