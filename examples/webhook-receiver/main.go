// Command webhook-receiver takes deliveries of a webhook consumer, verifies their
// signatures and prints each change once. It needs the standard library only. See
// README.md.
//
//  1. What is not signed with one of the secrets is answered with 401 and not looked at.
//  2. A change that comes again, which happens when an answer is lost, is answered like
//     the first time and not handled again.
//  3. A change that cannot be handled is named in the answer; the others are done.
package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const largestBody = 16 << 20

// change is what this program wants of a message; docs of the webhook have all of it.
type change struct {
	Record   json.RawMessage `json:"record"`
	Action   string          `json:"action"`
	Metadata struct {
		Seq            uint64          `json:"seq"`
		Database       string          `json:"database"`
		Schema         string          `json:"table_schema"`
		Table          string          `json:"table_name"`
		Key            json.RawMessage `json:"record_pks"`
		IdempotencyKey string          `json:"idempotency_key"`
	} `json:"metadata"`
}

// receiver is the endpoint.
type receiver struct {
	secrets []string
	handle  func(change) error

	mu sync.Mutex
	// done is the last seq of each row. A program with a database keeps it there, in the
	// transaction that does what the change asks for.
	done map[string]uint64
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := read(w, req)
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	if err := verify(req.Header, body, r.secrets...); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	changes, err := parse(body)
	if err != nil {
		http.Error(w, "the body is not a change", http.StatusBadRequest)
		return
	}
	failed := []string{}
	for _, c := range changes {
		if err := r.once(c); err != nil {
			failed = append(failed, c.Metadata.IdempotencyKey)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string][]string{"failed": failed})
}

func read(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	body := io.Reader(http.MaxBytesReader(w, req.Body, largestBody))
	if req.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = io.LimitReader(unpacked, largestBody) // a small body may unpack to a large one
	}
	return io.ReadAll(body)
}

// parse reads one change, or the list of a batch.
func parse(body []byte) ([]change, error) {
	var several struct {
		Data []change `json:"data"`
	}
	if err := json.Unmarshal(body, &several); err != nil || several.Data != nil {
		return several.Data, err
	}
	var one change
	if err := json.Unmarshal(body, &one); err != nil {
		return nil, err
	}
	if one.Action == "" {
		return nil, errors.New("there is no action")
	}
	return []change{one}, nil
}

// once handles a change unless it was handled before.
func (r *receiver) once(c change) error {
	m := c.Metadata
	row := fmt.Sprintf("%s %s.%s %s", m.Database, m.Schema, m.Table, m.Key)
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Seq > 0 && m.Seq <= r.done[row] { // seq 0: a test event
		return nil
	}
	if err := r.handle(c); err != nil {
		return err
	}
	r.done[row] = m.Seq
	return nil
}

// show prints a change.
func show(out io.Writer) func(change) error {
	return func(c change) error {
		m := c.Metadata
		_, err := fmt.Fprintf(out, "%d %s %s.%s %s %s\n", m.Seq, c.Action, m.Schema, m.Table, m.Key, c.Record)
		return err
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "webhook-receiver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, env func(string) string, out io.Writer) error {
	secrets := strings.Fields(env("WEBHOOK_SECRET"))
	if len(secrets) == 0 {
		return errors.New("WEBHOOK_SECRET is empty: set it to the consumer's secret, or to several with spaces between")
	}
	address := env("LISTEN")
	if address == "" {
		address = "127.0.0.1:8080"
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	slog.New(slog.NewTextHandler(out, nil)).InfoContext(ctx, "listening", "url", "http://"+listener.Addr().String())
	server := &http.Server{
		Handler:           &receiver{secrets: secrets, handle: show(out), done: map[string]uint64{}},
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(last)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
