package stream

import (
	"fmt"
	"sync"
	"testing"
)

// While a stream is made the server says that it could not be recovered. Who looks after
// the server just then must not start it anew under everybody.
func TestMakingALogStartsNothingAnew(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	before := s.embed.server
	done := make(chan struct{})
	var looking sync.WaitGroup
	for range 4 {
		looking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if restarted, err := s.embed.heal(); restarted != nil || err != nil {
					t.Errorf("started anew because of %v, error %v", restarted, err)
					return
				}
			}
		})
	}
	for i := range 40 {
		if _, err := s.Log(t.Context(), fmt.Sprint("shop", i)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	looking.Wait()
	if s.embed.server != before {
		t.Error("the server is another one")
	}
}
