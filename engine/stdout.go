package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"lockstep"
	"lockstep/internal/config"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/internal/stage"
)

// pumps are the stages of the consumers that the engine works for itself.
func (e *Engine) pumps() []stage.Stage {
	var stages []stage.Stage
	out := &lineWriter{w: e.Stdout}
	for _, c := range e.cfg.Consumers {
		if c.Kind != config.KindStdout {
			continue
		}
		stages = append(stages, stage.Stage{Name: "consumer " + c.Name, Run: func(ctx context.Context) error { return e.pump(ctx, c, out) }})
	}
	return stages
}

// lineWriter writes whole answers of several consumers to one output.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

const (
	pumpWait  = time.Minute
	pumpBatch = 100
)

// pump writes a consumer's changes as lines of JSON, and acks what was written.
func (e *Engine) pump(ctx context.Context, def config.Consumer, out io.Writer) error {
	c, err := e.broker.Find(def.Name)
	if err != nil {
		return err
	}
	pause := backoff.NewExponentialBackOff()
	for ctx.Err() == nil {
		err := e.pumpOnce(ctx, c, max(def.Batch.Size, pumpBatch), out)
		if err == nil {
			pause.Reset()
			continue
		}
		if ctx.Err() != nil || errors.Is(err, lockstep.ErrFenced) {
			return ended(ctx, err)
		}
		e.Logger.ErrorContext(ctx, "changes could not be written", obs.KeyConsumer, def.Name, obs.KeyError, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
	return nil
}

func (e *Engine) pumpOnce(ctx context.Context, c *deliver.Consumer, size int, out io.Writer) error {
	got, err := c.Next(ctx, deliver.NextRequest{Batch: size, Wait: pumpWait})
	if err != nil || len(got.Deliveries) == 0 {
		return err
	}
	var lines bytes.Buffer
	tokens := make([]string, len(got.Deliveries))
	for i, delivery := range got.Deliveries {
		tokens[i] = delivery.Token
		lines.Write(lockstep.FoldLines(c.AppendMessage(nil, delivery)))
		lines.WriteByte('\n')
	}
	if _, err := out.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	// What is written is written: the ack must not be lost to a stop that comes now.
	_, err = c.Ack(context.WithoutCancel(ctx), tokens)
	return err
}

// ended tells a stop from a failure.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
