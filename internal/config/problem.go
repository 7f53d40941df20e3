package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"lockstep"
)

// environment stands for the file in problems of variables that are not for the file.
const environment = "environment"

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1; 0 when the problem has no place in the file
	Column  int    `json:"column"`
	Path    string `json:"path"`    // such as consumers[0].ack_wait; empty for the whole file
	Message string `json:"message"` // what is wrong
	Remedy  string `json:"remedy"`  // what to do
}

// String returns file:line:column: path: message, remedy.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 && p.Line < math.MaxInt {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Remedy != "" {
		b.WriteString(", " + p.Remedy)
	}
	return b.String()
}

// Problems is everything that is wrong with a configuration, in the order of the
// file. As an error it wraps [lockstep.ErrInvalid].
type Problems []Problem

// Error returns one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap says that the configuration is invalid input.
func (p Problems) Unwrap() error { return lockstep.ErrInvalid }

// tidy brings the problems into the order of the file, those of other files behind it,
// each once: what aliases repeat is told once.
func (p Problems) tidy(main string) Problems {
	other := func(file string) string {
		if file == main || file == environment {
			return ""
		}
		return file
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(other(a.File), other(b.File)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(p)
}
