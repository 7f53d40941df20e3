package stream

import (
	"errors"
	"sync"
	"testing"

	"lockstep"
)

func openStates(t testing.TB, s *Server) *States {
	t.Helper()
	states, err := s.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return states
}

func TestStateIsReplacedOnlyAtItsRevision(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	states := openStates(t, s)
	_, _, err := states.Load(t.Context(), "c1")
	wantError(t, err, lockstep.ErrNotFound)
	first, err := states.Save(t.Context(), "c1", []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = states.Save(t.Context(), "c1", []byte("other"), 0)
	wantError(t, err, lockstep.ErrFenced)
	second, err := states.Save(t.Context(), "c1", []byte("two"), first)
	if err != nil || second <= first {
		t.Fatalf("got revision %d after %d, error %v", second, first, err)
	}
	_, err = states.Save(t.Context(), "c1", []byte("late"), first)
	wantError(t, err, lockstep.ErrFenced)
	value, revision, err := states.Load(t.Context(), "c1")
	if err != nil || string(value) != "two" || revision != second {
		t.Errorf("got %q at %d, error %v; want two at %d", value, revision, err, second)
	}
	if err := states.Delete(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	_, _, err = states.Load(t.Context(), "c1")
	wantError(t, err, lockstep.ErrNotFound)
	if err := states.Delete(t.Context(), "c1"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	_, err = states.Save(t.Context(), "c1", []byte("stale"), second)
	wantError(t, err, lockstep.ErrFenced)
	if _, err := states.Save(t.Context(), "c1", []byte("again"), 0); err != nil {
		t.Errorf("saving anew after a delete: %v", err)
	}
	_, err = states.Save(t.Context(), "c2", make([]byte, 9<<20), 0)
	wantError(t, err, lockstep.ErrInvalid)
}

func TestStatesSurviveReopening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	revision, err := openStates(t, s).Save(t.Context(), "a name.with *", []byte("kept"), 0)
	if err != nil {
		t.Fatal(err)
	}
	closeServer(t, s)
	value, got, err := openStates(t, openServer(t, Config{Dir: dir})).Load(t.Context(), "a name.with *")
	if err != nil || string(value) != "kept" || got != revision {
		t.Errorf("got %q at %d, error %v", value, got, err)
	}
}

func TestOnlyOneOfManySaversWinsEachRevision(t *testing.T) {
	t.Parallel()
	states := openStates(t, openServer(t, Config{}))
	revision := uint64(0)
	for range 10 {
		var wg sync.WaitGroup
		won := make(chan uint64, 8)
		for range 8 {
			wg.Go(func() {
				switch r, err := states.Save(t.Context(), "c", []byte("x"), revision); {
				case err == nil:
					won <- r
				case !errors.Is(err, lockstep.ErrFenced):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d savers won", len(won))
		}
		revision = <-won
	}
}
