package stream

import (
	"container/list"
	"sync"

	"lockstep"
)

// entry is a batch and where it lies in JetStream: messages start to end.
type entry struct {
	batch      *lockstep.Batch
	start, end uint64
	clock      int64 // the latest commit time in the log up to this batch
}

// cacheOverhead is about what an entry costs besides the batch's own bytes: the
// batch's tables and transactions, list and map.
const cacheOverhead = 1024

type cacheKey struct {
	log   *Log
	first uint64
}

type cached struct {
	key   cacheKey
	entry entry
}

// cache keeps the parsed batches used last, within a budget of bytes.
type cache struct {
	mu     sync.Mutex
	limit  int64
	size   int64
	recent *list.List // of cached, the one used last in front
	byKey  map[cacheKey]*list.Element
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, recent: list.New(), byKey: map[cacheKey]*list.Element{}}
}

func (c *cache) get(l *Log, first uint64) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[cacheKey{l, first}]
	if e == nil {
		return entry{}, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(cached).entry, true
}

// put keeps a batch that has changes. One that would take more than half of the
// cache is left out: it would push out everything else.
func (c *cache) put(l *Log, e entry) {
	cost := int64(e.batch.Size() + cacheOverhead)
	if e.batch.Len() == 0 || cost > c.limit/2 {
		return
	}
	key := cacheKey{l, e.batch.First}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] != nil {
		return
	}
	c.byKey[key] = c.recent.PushFront(cached{key, e})
	c.size += cost
	for c.size > c.limit {
		c.remove(c.recent.Back())
	}
}

// drop forgets everything of a log.
func (c *cache) drop(l *Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.byKey {
		if key.log == l {
			c.remove(e)
		}
	}
}

func (c *cache) remove(e *list.Element) {
	it := c.recent.Remove(e).(cached)
	delete(c.byKey, it.key)
	c.size -= int64(it.entry.batch.Size() + cacheOverhead)
}

// CacheBytes returns how much memory the parsed batches hold that are kept for all
// logs together.
func (s *Server) CacheBytes() int64 {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	return s.cache.size
}
