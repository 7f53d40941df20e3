package deliver

import "unsafe"

// WindowBytes returns how much memory the unsettled changes of all consumers hold,
// about: no bodies are among it.
func (b *Broker) WindowBytes() int64 {
	var sum int64
	for _, c := range b.List() {
		c.mu.Lock()
		sum += int64(cap(c.w.entries))*int64(unsafe.Sizeof(entry{})) + int64(cap(c.w.keys))*int64(unsafe.Sizeof(key{}))
		c.mu.Unlock()
	}
	return sum
}
