package api

import (
	"testing"
	"time"
)

func TestTicketsAreBounded(t *testing.T) {
	t.Parallel()
	var s tickets
	now := time.Now()
	for i := range maxTickets {
		if _, ok := s.add(ticket{}, now); !ok {
			t.Fatalf("ticket %d was refused", i)
		}
	}
	if _, ok := s.add(ticket{}, now); ok {
		t.Error("there is no limit")
	}
	if _, ok := s.add(ticket{}, now.Add(2*ticketLife)); !ok || len(s.all) != 1 {
		t.Errorf("%d tickets are kept that nobody used", len(s.all))
	}
}
