package webhook

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"lockstep/sink"
)

const connections = 16

// BenchmarkDeliver measures changes a second to a receiver on this machine, signed, next
// to a bare client that posts the same bodies unsigned.
func BenchmarkDeliver(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(server.Close)
	for _, size := range []int{1, 100} {
		messages := make([]sink.Message, size)
		for i := range messages {
			messages[i] = change(uint64(i+1), fmt.Sprint("k", i))
		}
		w, err := New(Config{URL: server.URL, AllowPrivate: true, Secrets: []Secret{{Key: key(1)}}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = w.Close(b.Context()) })
		all := make([]int, size)
		for i := range all {
			all[i] = i
		}
		encoded, err := w.encode(messages, all)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("batch=%d/webhook", size), func(b *testing.B) {
			deliver(b, size, func() error { _, err := w.Write(b.Context(), messages); return err })
		})
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
		b.Cleanup(client.CloseIdleConnections)
		b.Run(fmt.Sprintf("batch=%d/bare", size), func(b *testing.B) {
			deliver(b, size, func() error { return post(b, client, server.URL, encoded.body) })
		})
	}
}

// deliver calls one as often as the benchmark wants, from as many goroutines as there
// are connections.
func deliver(b *testing.B, size int, one func() error) {
	b.ReportAllocs()
	var callers sync.WaitGroup
	work := make(chan struct{}, connections)
	for range connections {
		callers.Go(func() {
			for range work {
				if err := one(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	callers.Wait()
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "changes/s")
}

func post(b *testing.B, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
