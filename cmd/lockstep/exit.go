package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"lockstep"
	"lockstep/client"
)

// The exit codes of the contract.
const (
	exitFailed      = 1
	exitBadInput    = 2
	exitEnvironment = 3
	exitChanges     = 4 // of plan --detailed-exitcode
	exitInterrupted = 130
)

// usageError is a command line that cannot be.
type usageError struct{ error }

// Unwrap returns what is wrong with it.
func (e usageError) Unwrap() error { return e.error }

// errQuiet ends a command that has said everything itself.
var errQuiet = errors.New("said before")

// errChanges ends a plan that was asked to tell by its exit code.
var errChanges = fmt.Errorf("there is something to change: %w", errQuiet)

// silent reports whether nothing is to be written about the error.
func silent(err error) bool {
	return errors.Is(err, errQuiet) || errors.Is(err, syscall.EPIPE) || errors.Is(err, context.Canceled)
}

func exitCode(err error) int {
	var usage usageError
	var problem *client.Problem
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		return 0
	case errors.As(err, &usage):
		return exitBadInput
	case errors.Is(err, errChanges):
		return exitChanges
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, lockstep.ErrEnvironment):
		return exitEnvironment
	case errors.Is(err, lockstep.ErrInvalid), errors.Is(err, lockstep.ErrNotFound), errors.Is(err, lockstep.ErrConflict):
		return exitBadInput
	case errors.As(err, &problem) && (problem.Status == http.StatusUnauthorized || problem.Status == http.StatusForbidden):
		return exitBadInput
	}
	return exitFailed
}

// reason is the error without the word for its kind, which is for programs.
func reason(err error) string {
	text := err.Error()
	for _, kind := range []error{lockstep.ErrNotFound, lockstep.ErrConflict, lockstep.ErrInvalid, lockstep.ErrUnavailable, lockstep.ErrEnvironment} {
		text = strings.TrimSuffix(text, ": "+kind.Error())
		text = strings.ReplaceAll(text, ": "+kind.Error()+" (HTTP ", " (HTTP ")
	}
	return text
}

// explain is the error for people, with the remedy where there is a common one.
func explain(err error) string {
	text := reason(err)
	var problem *client.Problem
	answered := errors.As(err, &problem)
	switch {
	case answered && problem.Status == http.StatusUnauthorized:
		return text + "\n  give a token with --token or LOCKSTEP_TOKEN; lockstep token create makes one"
	case answered && problem.Status == http.StatusForbidden:
		return text + "\n  use a token that has the scope for it; lockstep token ls shows what each may do"
	case !answered && errors.Is(err, lockstep.ErrUnavailable):
		return text + "\n  start a node with lockstep serve, or name another one with --server or LOCKSTEP_SERVER"
	}
	return text
}
