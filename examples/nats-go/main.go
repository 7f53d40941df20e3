// Command nats-go keeps a copy of the table orders in a file, from what a consumer of kind
// nats publishes to JetStream. It is a plain NATS program. See README.md.
//
//  1. Messages are acked after the file is written, so that none is lost.
//  2. A message that comes again does nothing: the seq of each row's last change is kept
//     in the same file.
//  3. JetStream redelivers what was not acked after later messages; the seq tells, so that
//     an older change never takes a row back.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// change is what this program wants of a message.
type change struct {
	Record   json.RawMessage `json:"record"`
	Action   string          `json:"action"`
	Metadata struct {
		Seq uint64          `json:"seq"`
		Key json.RawMessage `json:"record_pks"`
	} `json:"metadata"`
}

// row is the last change of a row. Deleted ones stay, with a record of null: an older
// change that comes late is not to bring them back.
type row struct {
	Seq    uint64          `json:"seq"`
	Record json.RawMessage `json:"record"`
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log); err != nil && ctx.Err() == nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	file := cmp.Or(os.Getenv("COPY"), "orders.json")
	rows := map[string]row{}
	if text, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(text, &rows); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	conn, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	// Durable: JetStream remembers what was acked. The stream is there when the first
	// change was published.
	consumer, err := js.CreateOrUpdateConsumer(ctx, cmp.Or(os.Getenv("STREAM"), "lockstep-app"), jetstream.ConsumerConfig{
		Durable: "orders", FilterSubject: cmp.Or(os.Getenv("SUBJECT"), "lockstep.app.public.orders.*"), AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "working")
	for ctx.Err() == nil {
		batch, err := consumer.Fetch(100, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		var got []jetstream.Msg
		for m := range batch.Messages() {
			got = append(got, m)
		}
		if err := batch.Error(); err != nil {
			log.WarnContext(ctx, "fetch", "error", err) // it reconnects by itself
		}
		if err := handle(file, rows, got); err != nil {
			return err
		}
	}
	return nil
}

// handle applies messages, writes the file, and acks.
func handle(file string, rows map[string]row, got []jetstream.Msg) error {
	if len(got) == 0 {
		return nil
	}
	for _, m := range got {
		var c change
		if err := json.Unmarshal(m.Data(), &c); err != nil {
			// It will be the same the next time.
			if err := m.TermWithReason("not a change"); err != nil {
				return err
			}
			continue
		}
		apply(rows, c)
	}
	text, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil { // the old copy or the new one, never half of it
		return err
	}
	for _, m := range got {
		// What is lost here comes again after AckWait, and does nothing.
		if err := m.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return err
		}
	}
	return nil
}

// apply sets a row, unless a later change of it was applied before.
func apply(rows map[string]row, c change) {
	seq, key := c.Metadata.Seq, string(c.Metadata.Key)
	switch c.Action {
	case "truncate":
		for key, old := range rows {
			if old.Seq < seq {
				rows[key] = row{Seq: seq, Record: json.RawMessage("null")}
			}
		}
	case "gap": // changes may be missing: a backfill of the consumer brings what there is
	case "insert", "update", "delete", "read":
		if seq <= rows[key].Seq {
			return
		}
		if c.Action == "delete" {
			c.Record = json.RawMessage("null")
		}
		rows[key] = row{Seq: seq, Record: c.Record}
	}
}
