package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// forwardedView is a delivery as programs read it.
type forwardedView struct {
	Time           string   `json:"time"` // of the attempt
	Seq            uint64   `json:"seq"`
	Action         string   `json:"action"`
	Table          string   `json:"table"`
	RecordPKs      []string `json:"record_pks"`
	IdempotencyKey string   `json:"idempotency_key"`
	Attempt        int      `json:"attempt"`
	Status         int      `json:"status"` // 0: there was no answer
	MS             float64  `json:"ms"`
	Delivered      bool     `json:"delivered"`
	Error          string   `json:"error,omitempty"`
}

func viewOf(r forwarded) forwardedView {
	m := &r.change.Metadata
	v := forwardedView{
		Time: r.at.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Seq: m.Seq, Action: r.change.Action, Table: m.Table(), RecordPKs: append([]string{}, m.RecordPKs...),
		IdempotencyKey: m.IdempotencyKey, Attempt: r.change.Attempt, Status: r.status, MS: float64(r.took.Microseconds()) / 1000, Delivered: r.err == nil,
	}
	if r.err != nil {
		v.Error = r.err.Error()
	}
	return v
}

// forwardedWriter writes deliveries the way that the flags ask for, one after the other.
func forwardedWriter(s streams, p printer) func(forwarded) error {
	if p.format == "table" {
		colours := plainPaint()
		if s.colours(s.out) {
			colours = colourPaint()
		}
		return func(r forwarded) error {
			_, err := io.WriteString(s.out, forwardedLine(r, colours)+"\n")
			return err
		}
	}
	return func(r forwarded) error {
		text, err := json.Marshal(viewOf(r))
		if err != nil {
			return fmt.Errorf("write a delivery: %w", err)
		}
		if p.format == "json" {
			return writeLine(s.out, text)
		}
		if text, err = toYAML(text); err != nil {
			return err
		}
		_, err = s.out.Write(append([]byte("---\n"), text...))
		return err
	}
}

// forwardedLine is a delivery on one line: when, what, and what came of it.
func forwardedLine(r forwarded, c paint) string {
	status := strconv.Itoa(r.status)
	if r.status == 0 {
		status = "---"
	}
	parts := []string{
		c.wrap(c.dim, r.at.Local().Format("15:04:05.000")),
		c.wrap(c.actions[r.change.Action], padded(r.change.Action, 8)),
		printable(r.change.Metadata.Table()),
	}
	if key := keyText(r.change.Metadata.RecordPKs); key != "" {
		parts = append(parts, key)
	}
	parts = append(parts, c.wrap(c.actions[colourOf(r.err)], status), r.took.Round(100*time.Microsecond).String())
	if r.change.Attempt > 1 {
		parts = append(parts, "attempt "+strconv.Itoa(r.change.Attempt))
	}
	if r.err != nil {
		parts = append(parts, printable(r.err.Error()))
	}
	return strings.Join(parts, "  ")
}

// colourOf is the action whose colour a delivery has.
func colourOf(err error) string {
	if err == nil {
		return "insert"
	}
	return "delete"
}
