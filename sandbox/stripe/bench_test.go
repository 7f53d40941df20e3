package stripe_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"lockstep/sandbox/stripe"
)

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := stripe.New(stripe.Options{Customers: 300}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkListBulk measures how fast a million customers can be listed, in process.
func BenchmarkListBulk(b *testing.B) {
	s, err := stripe.New(stripe.Options{Customers: -1, Bulk: 1_000_000, Unlimited: true})
	if err != nil {
		b.Fatal(err)
	}
	h := s.Handler()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, "/v1/customers?limit=100", nil)
		r.Header.Set("Authorization", "Bearer "+testKey)
		r.Header.Set("Stripe-Version", newest)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		_, _ = io.Copy(io.Discard, w.Body)
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "customers/s")
}

func BenchmarkStep(b *testing.B) {
	s, err := stripe.New(stripe.Options{Customers: 300})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Step(time.Now())
	}
}
