// Command kafka-go keeps a copy of the table orders in a file, from what a consumer of
// kind kafka writes to a topic. It is a plain Kafka program. See README.md.
//
//  1. Offsets are committed after the file is written, so that no change is lost.
//  2. A change that comes again does nothing: the seq of each row's last change is kept
//     in the same file.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
)

// change is what this program wants of a record.
type change struct {
	Record   json.RawMessage `json:"record"`
	Action   string          `json:"action"`
	Metadata struct {
		Seq uint64          `json:"seq"`
		Key json.RawMessage `json:"record_pks"`
	} `json:"metadata"`
}

// row is the last change of a row. Deleted ones stay, with a record of null: an older
// change that comes again is not to bring them back.
type row struct {
	Seq    uint64          `json:"seq"`
	Record json.RawMessage `json:"record"`
}

// truncated is the place of the last truncation among the rows; no row has such a key.
const truncated = "truncated"

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
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(cmp.Or(os.Getenv("KAFKA_BROKERS"), "127.0.0.1:9092"), ",")...),
		kgo.ConsumerGroup(cmp.Or(os.Getenv("GROUP"), "orders")), kgo.ConsumeTopics(cmp.Or(os.Getenv("TOPIC"), "app.public.orders")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
	)
	if err != nil {
		return err
	}
	// It leaves the group: the next member need not wait until this one counts as dead.
	defer client.Close()
	log.InfoContext(ctx, "working")
	for ctx.Err() == nil {
		got := client.PollRecords(ctx, 1000)
		for _, e := range got.Errors() {
			if ctx.Err() == nil {
				log.WarnContext(ctx, "fetch", "topic", e.Topic, "error", e.Err) // it connects again by itself
			}
		}
		if err := handle(ctx, log, client, file, rows, got.Records()); err != nil {
			return err
		}
	}
	return nil
}

// handle applies records, writes the file, and commits.
func handle(ctx context.Context, log *slog.Logger, client *kgo.Client, file string, rows map[string]row, got []*kgo.Record) error {
	if len(got) == 0 {
		return nil
	}
	for _, r := range got {
		var c change
		if err := json.Unmarshal(r.Value, &c); err != nil {
			log.ErrorContext(ctx, "not a change", "offset", r.Offset, "partition", r.Partition)
			continue // it will be the same the next time
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
	// What is not committed comes again, and does nothing.
	if err := client.CommitRecords(ctx, got...); err != nil && ctx.Err() == nil {
		log.WarnContext(ctx, "commit", "error", err)
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
		// Earlier changes may still be to come, from other partitions.
		rows[truncated] = row{Seq: max(seq, rows[truncated].Seq), Record: json.RawMessage("null")}
	case "gap": // changes may be missing: a backfill of the consumer brings what there is
	case "insert", "update", "delete", "read":
		if seq <= max(rows[key].Seq, rows[truncated].Seq) {
			return
		}
		if c.Action == "delete" {
			c.Record = json.RawMessage("null")
		}
		rows[key] = row{Seq: seq, Record: c.Record}
	}
}
