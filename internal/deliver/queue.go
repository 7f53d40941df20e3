package deliver

// list is a queue of keys, linked through the keys themselves.
type list struct{ first, last int32 }

func newList() list { return list{none, none} }

func (l *list) push(w *window, k int32) {
	kk := &w.keys[k]
	kk.prev, kk.next = l.last, none
	if l.last == none {
		l.first = k
	} else {
		w.keys[l.last].next = k
	}
	l.last = k
}

func (l *list) remove(w *window, k int32) {
	kk := &w.keys[k]
	if kk.prev == none {
		l.first = kk.next
	} else {
		w.keys[kk.prev].next = kk.next
	}
	if kk.next == none {
		l.last = kk.prev
	} else {
		w.keys[kk.next].prev = kk.prev
	}
	kk.prev, kk.next = none, none
}

// timers is a heap of slots by time. It tells each slot where it lies, so that a
// timer can be taken out of the middle.
type timers struct {
	items []timer
	moved func(slot, index int32)
}

type timer struct {
	at   int64
	slot int32
}

func (t *timers) push(at int64, slot int32) {
	t.items = append(t.items, timer{at, slot})
	t.up(len(t.items) - 1)
}

func (t *timers) remove(index int32) {
	i, last := int(index), len(t.items)-1
	gone := t.items[i].slot
	if i != last {
		t.items[i] = t.items[last]
	}
	t.items = t.items[:last]
	t.moved(gone, none)
	if i != last {
		t.down(i)
		t.up(i)
	}
}

// min returns the earliest timer, or false when there is none.
func (t *timers) min() (timer, bool) {
	if len(t.items) == 0 {
		return timer{}, false
	}
	return t.items[0], true
}

func (t *timers) up(i int) {
	item := t.items[i]
	for i > 0 {
		parent := (i - 1) / 2
		if t.items[parent].at <= item.at {
			break
		}
		t.items[i] = t.items[parent]
		t.moved(t.items[i].slot, int32(i))
		i = parent
	}
	t.items[i] = item
	t.moved(item.slot, int32(i))
}

func (t *timers) down(i int) {
	item := t.items[i]
	for {
		child := 2*i + 1
		if child >= len(t.items) {
			break
		}
		if child+1 < len(t.items) && t.items[child+1].at < t.items[child].at {
			child++
		}
		if t.items[child].at >= item.at {
			break
		}
		t.items[i] = t.items[child]
		t.moved(t.items[i].slot, int32(i))
		i = child
	}
	t.items[i] = item
	t.moved(item.slot, int32(i))
}
