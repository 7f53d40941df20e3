package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkNextAndAck takes and acks changes in batches of 500 over HTTP, with two
// workers, everything in this process: the figure is changes per second.
func BenchmarkNextAndAck(b *testing.B) {
	r := newReal(b)
	r.want(201, "POST", "/v1/consumers", `{"name":"orders","start":"beginning","max_in_flight":10000}`)
	const perTx = 1000
	for n := 0; n < b.N; n += perTx {
		keys := make([]int, perTx)
		for i := range keys {
			keys[i] = n + i
		}
		r.commit(keys...)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for left.Load() > 0 {
				left.Add(-int64(takeAndAck(b, r)))
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
}

func takeAndAck(b *testing.B, r *real) int {
	w, err := http.Get(r.base + "/v1/consumers/orders/next?batch_size=500&wait_for=100")
	if err != nil {
		b.Error(err)
		return 1 << 30
	}
	data, err := io.ReadAll(w.Body)
	_ = w.Body.Close()
	if err != nil || w.StatusCode != http.StatusOK {
		b.Errorf("next: %d %v", w.StatusCode, err)
		return 1 << 30
	}
	// The worker reads no more than it must: what it does with rows is not ours.
	const member = `"ack_token":"`
	var ack bytes.Buffer
	ack.WriteString(`{"ack_tokens":[`)
	n := 0
	for text := string(data); ; n++ {
		i := strings.Index(text, member)
		if i < 0 {
			break
		}
		text = text[i+len(member):]
		if n > 0 {
			ack.WriteByte(',')
		}
		token, _ := json.Marshal(text[:strings.IndexByte(text, '"')])
		ack.Write(token)
	}
	if n == 0 {
		return 0
	}
	ack.WriteString("]}")
	if w, err = http.Post(r.base+"/v1/consumers/orders/ack", "application/json", &ack); err != nil {
		b.Error(err)
		return 1 << 30
	}
	_, _ = io.Copy(io.Discard, w.Body)
	_ = w.Body.Close()
	if w.StatusCode != http.StatusNoContent {
		b.Errorf("ack: %d", w.StatusCode)
	}
	return n
}
