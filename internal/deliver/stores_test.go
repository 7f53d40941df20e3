package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"lockstep"
	"lockstep/internal/deliver"
)

// memStates keeps states in memory, and fails on demand.
type memStates struct {
	mu        sync.Mutex
	values    map[string][]byte
	revisions map[string]uint64
	notes     map[string][2]uint64
	lostIDs   map[string]error // what Lost says, until the next save
	saves     int
	fail      error
	lost      error         // the save happens, and this is the answer
	gate      chan struct{} // when set, every save waits for one value
}

func newMemStates() *memStates {
	return &memStates{values: map[string][]byte{}, revisions: map[string]uint64{}, notes: map[string][2]uint64{}, lostIDs: map[string]error{}}
}

func (s *memStates) Load(_ context.Context, id string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[id]
	if !ok {
		return nil, 0, lockstep.ErrNotFound
	}
	return slices.Clone(v), s.revisions[id], nil
}

func (s *memStates) Save(_ context.Context, id string, value []byte, revision uint64) (uint64, error) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	if s.revisions[id] != revision {
		return 0, fmt.Errorf("revision %d: %w", revision, lockstep.ErrFenced)
	}
	s.saves++
	s.values[id], s.revisions[id] = slices.Clone(value), revision+1
	delete(s.lostIDs, id)
	if s.lost != nil {
		return 0, s.lost
	}
	return revision + 1, nil
}

func (s *memStates) Note(id string, floor, era uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes[id] = [2]uint64{floor, era}
}

func (s *memStates) Lost(id string) (floor, era uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes[id][0], s.notes[id][1], s.lostIDs[id]
}

func (s *memStates) Delete(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, id)
	delete(s.revisions, id)
	return nil
}

func (s *memStates) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// memDead keeps letters in memory.
type memDead struct {
	mu      sync.Mutex
	letters map[string]map[uint64]deliver.Letter
	fail    error
}

func newMemDead() *memDead { return &memDead{letters: map[string]map[uint64]deliver.Letter{}} }

func (d *memDead) Put(_ context.Context, consumer string, l deliver.Letter) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	if d.letters[consumer] == nil {
		d.letters[consumer] = map[uint64]deliver.Letter{}
	}
	d.letters[consumer][l.Seq] = l
	return nil
}

func (d *memDead) Get(_ context.Context, consumer string, seq uint64) (deliver.Letter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.letters[consumer][seq]
	if !ok {
		return l, lockstep.ErrNotFound
	}
	return l, nil
}

func (d *memDead) List(_ context.Context, consumer string, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []deliver.Letter
	for _, seq := range slices.Sorted(maps.Keys(d.letters[consumer])) {
		if seq <= after {
			continue
		}
		if len(list) == limit {
			return list, list[limit-1].Seq, nil
		}
		list = append(list, d.letters[consumer][seq])
	}
	return list, 0, nil
}

func (d *memDead) Delete(_ context.Context, consumer string, seq uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.letters[consumer][seq]; !ok {
		return lockstep.ErrNotFound
	}
	delete(d.letters[consumer], seq)
	return nil
}

func (d *memDead) DeleteAll(_ context.Context, consumer string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.letters, consumer)
	return nil
}

func (d *memDead) Count(_ context.Context, consumer string) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(len(d.letters[consumer])), nil
}

func (d *memDead) ListBefore(_ context.Context, consumer string, before uint64, limit int) ([]deliver.Letter, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []deliver.Letter
	for _, seq := range slices.Backward(slices.Sorted(maps.Keys(d.letters[consumer]))) {
		if before > 0 && seq >= before {
			continue
		}
		if len(list) == limit {
			return list, list[limit-1].Seq, nil
		}
		list = append(list, d.letters[consumer][seq])
	}
	return list, 0, nil
}

func (d *memDead) Behind(_ context.Context, consumer string, seq uint64) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint64(0)
	for s := range d.letters[consumer] {
		if s > seq {
			n++
		}
	}
	return n, nil
}

func (d *memDead) PutSome(ctx context.Context, consumer string, letters []deliver.Letter) error {
	for _, l := range letters {
		if err := d.Put(ctx, consumer, l); err != nil {
			return err
		}
	}
	return nil
}

func (d *memDead) DeleteSome(ctx context.Context, consumer string, seqs []uint64) error {
	for _, seq := range seqs {
		if err := d.Delete(ctx, consumer, seq); err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (d *memDead) Find(_ context.Context, consumer string, key, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []deliver.Letter
	for _, seq := range slices.Sorted(maps.Keys(d.letters[consumer])) {
		l := d.letters[consumer][seq]
		if seq <= after || l.Key != key && l.Key>>32 == key>>32 {
			continue
		}
		if len(list) == limit {
			return list, list[limit-1].Seq, nil
		}
		list = append(list, l)
	}
	return list, 0, nil
}
