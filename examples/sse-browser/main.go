// Command sse-browser serves a page that shows the events of its user as they happen.
// It needs the standard library only. See README.md.
//
//  1. The page talks to the node itself, with a ticket that this program gets for it: the
//     node's token never leaves this program, and a ticket is for one user's events only.
//  2. The page misses nothing and shows nothing twice: whatever ends its connection, it
//     goes on behind the last event that it has shown, also after a reload.
package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
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
	"syscall"
	"time"
)

//go:embed page.html
var files embed.FS

// app is the web application that has the page.
type app struct {
	node   string // the node's address, as this program and browsers reach it
	token  string // its scope is consume:<user>, or consume for all users
	user   string
	client *http.Client
	log    *slog.Logger
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{
		node:   strings.TrimRight(cmp.Or(os.Getenv("LOCKSTEP_SERVER"), "http://127.0.0.1:7300"), "/"),
		token:  os.Getenv("LOCKSTEP_TOKEN"),
		user:   cmp.Or(os.Getenv("SUBSCRIBER"), "ann"),
		client: &http.Client{Timeout: 10 * time.Second}, log: log,
	}
	if err := a.serve(ctx, cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8081")); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

// serve serves until ctx ends.
func (a *app) serve(ctx context.Context, address string) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page.html") })
	mux.HandleFunc("POST /ticket", a.ticket)
	server := &http.Server{Handler: http.NewCrossOriginProtection().Handler(mux), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	a.log.InfoContext(ctx, "listening", "url", "http://"+listener.Addr().String())
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(last)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// ticket answers where the page of this user may connect to.
func (a *app) ticket(w http.ResponseWriter, r *http.Request) {
	// Who asks? An application with several users takes that from its session, and never
	// from the request's parameters.
	address, err := a.ticketFor(r.Context(), a.user)
	if err != nil {
		a.log.WarnContext(r.Context(), "no ticket", "error", err)
		http.Error(w, "no ticket now", http.StatusBadGateway) // the page asks again
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"url": address})
}

func (a *app) ticketFor(ctx context.Context, user string) (string, error) {
	body, _ := json.Marshal(map[string]string{"consumer_id": user}) // texts always marshal
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.node+"/v1/events/tickets", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	if a.token != "" { // a node on this machine may need none
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	answer, err := a.client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the node answered %s: %.500s", answer.Status, text)
	}
	var made struct{ URL string }
	if err := json.Unmarshal(text, &made); err != nil {
		return "", err
	}
	return a.node + made.URL, nil
}
