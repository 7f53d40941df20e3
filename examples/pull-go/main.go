// Command pull-go is a worker: it takes changes from a pull consumer, hands each to an
// HTTP API, and acks. See README.md.
//
//  1. A change is acked after the API has taken it, so that none is lost. When the
//     worker dies in between, the change comes again with the same Idempotency-Key.
//  2. Changes of one row go to the API one after the other, in order; those of
//     different rows side by side.
//  3. What fails comes again, ever later, and holds up nothing but its own row.
//  4. SIGTERM ends it: what was begun is finished, what was not is given back.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"lockstep"
	"lockstep/client"
)

const (
	batch = 16               // changes at a time, and so many calls of the API side by side at most
	wait  = 20 * time.Second // for the first change: there is no need to ask again and again
)

type worker struct {
	api      *client.Client
	consumer string
	target   string        // where changes are posted to
	lease    time.Duration // the consumer's ack_wait
	http     *http.Client
	log      *slog.Logger
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	api, err := client.New(client.Config{Server: os.Getenv("LOCKSTEP_SERVER"), Token: os.Getenv("LOCKSTEP_TOKEN")})
	lease, err2 := time.ParseDuration(cmp.Or(os.Getenv("ACK_WAIT"), "30s"))
	if err = errors.Join(err, err2); err != nil || os.Getenv("TARGET") == "" {
		log.Error("LOCKSTEP_SERVER is to be the node's address, TARGET the API's, and ACK_WAIT a time such as 30s", "error", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &worker{
		api: api, consumer: cmp.Or(os.Getenv("CONSUMER"), "orders"), target: os.Getenv("TARGET"), log: log, lease: lease,
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: batch, IdleConnTimeout: time.Minute}},
	}
	w.run(ctx)
}

// run works until ctx ends. When the node is away it tries again.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		got, err := w.api.Next(ctx, w.consumer, batch, wait)
		if err == nil {
			w.work(ctx, got.Deliveries)
			continue
		}
		if ctx.Err() == nil {
			w.log.WarnContext(ctx, "trying again soon", "error", err)
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}

// work handles a batch: its rows side by side, the changes of a row in their order.
func (w *worker) work(ctx context.Context, list []client.Delivery) {
	rows := map[string][]client.Delivery{}
	for _, d := range list {
		row := d.Metadata.Table() + "\x00" + strings.Join(d.Metadata.RecordPKs, "\x00")
		rows[row] = append(rows[row], d)
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx)) // what was begun is finished, also on the way out
	var holding, handling sync.WaitGroup
	holding.Go(func() { w.hold(working, list) })
	for _, row := range rows {
		handling.Go(func() { w.row(ctx, working, row) })
	}
	handling.Wait()
	stop()
	holding.Wait()
}

// row handles the changes of one row.
func (w *worker) row(ctx, working context.Context, row []client.Delivery) {
	for _, d := range row {
		if ctx.Err() != nil {
			// Without an attempt being counted; the later ones of the row go with it.
			w.settled(working, w.api.Nack(working, w.consumer, client.Nack{Release: true}, d.Token))
			return
		}
		if err := w.handle(working, d); err != nil {
			w.log.WarnContext(ctx, "a change was not handled", "seq", d.Metadata.Seq, "attempt", d.Attempt, "error", err)
			// It comes again after the consumer's backoff, and with it the later ones of its
			// row: they are not to be handled before it.
			w.settled(working, w.api.Nack(working, w.consumer, client.Nack{Reason: err.Error()}, d.Token))
			return
		}
		w.settled(working, w.api.Ack(working, w.consumer, d.Token))
	}
}

// handle has the effect. It may come twice for one change; the API is told by the key.
func (w *worker) handle(ctx context.Context, d client.Delivery) error {
	body := fmt.Appendf(nil, `{"seq":%d,"action":%q,"record":%s}`, d.Metadata.Seq, d.Action, cmp.Or(string(d.Record), "null"))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", d.Metadata.IdempotencyKey)
	answer, err := w.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)) // so that the connection can be used again
	if answer.StatusCode >= 300 {
		return errors.New("the API answered " + answer.Status)
	}
	return nil
}

// hold keeps the batch while it is worked on: what is not settled within the consumer's
// ack_wait would be handed to another worker.
func (w *worker) hold(ctx context.Context, list []client.Delivery) {
	tokens := make([]string, len(list))
	for i, d := range list {
		tokens[i] = d.Token
	}
	tick := time.NewTicker(w.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// Those that are settled are refused, the others go on.
			if err := w.api.Extend(ctx, w.consumer, w.lease, tokens...); !errors.Is(err, lockstep.ErrConflict) {
				w.settled(ctx, err)
			}
		}
	}
}

// settled logs what could not be told to the node: those changes come again.
func (w *worker) settled(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.log.WarnContext(ctx, "changes come again", "error", err)
	}
}
