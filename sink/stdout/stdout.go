// Package stdout writes changes as lines of JSON, for pipes: one message of the wire
// contract per line, with its lines folded.
//
//  1. A line is written whole, also when several sinks share the writer by one [Lines].
//  2. What Write says is delivered was taken by the writer. A writer that fails in the
//     middle of a line has the next line begin anew.
//  3. A message that comes twice is written twice: readers tell it by its
//     metadata.idempotency_key.
package stdout

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"lockstep"
	"lockstep/sink"
)

// Lines is a writer that several sinks share. It is safe for concurrent use.
type Lines struct {
	mu     sync.Mutex
	w      io.Writer
	broken bool // the last line has no end
}

// NewLines shares a writer.
func NewLines(w io.Writer) *Lines { return &Lines{w: w} }

// write writes lines and returns how many bytes of them were taken.
func (l *Lines) write(lines []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		if _, err := l.w.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		l.broken = false
	}
	n, err := l.w.Write(lines)
	n = min(max(n, 0), len(lines))
	l.broken = n > 0 && lines[n-1] != '\n'
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Sink is a [sink.Sink] that writes lines.
type Sink struct{ lines *Lines }

var _ sink.Sink = (*Sink)(nil)

// New makes a sink.
func New(lines *Lines) *Sink { return &Sink{lines: lines} }

// Write implements [sink.Sink]. A writer that blocks holds it up beyond its context:
// nothing can take a write back that a pipe has begun with.
func (s *Sink) Write(ctx context.Context, messages []sink.Message) (int, error) {
	if err := ctx.Err(); err != nil && len(messages) > 0 {
		return 0, fmt.Errorf("write to standard output: %w", err)
	}
	var lines bytes.Buffer
	ends := make([]int, len(messages))
	for i, m := range messages {
		start := lines.Len()
		lines.Write(m.Body)
		lockstep.FoldLines(lines.Bytes()[start:])
		lines.WriteByte('\n')
		ends[i] = lines.Len()
	}
	if len(messages) == 0 {
		return 0, nil
	}
	taken, err := s.lines.write(lines.Bytes())
	if err == nil {
		return len(messages), nil
	}
	n := 0
	for n < len(ends) && ends[n] <= taken {
		n++
	}
	if n == len(messages) {
		return n, nil // all of it is out, whatever the writer says
	}
	return n, &sink.Error{Kind: sink.Retry, Message: "write to standard output: " + err.Error(), Err: err}
}

// Close implements [sink.Sink]. The writer is not the sink's own.
func (s *Sink) Close(context.Context) error { return nil }
