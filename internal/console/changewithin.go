package console

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
)

const (
	withinShown = 20        // differences within a value
	withinMost  = 512 << 10 // bytes of a value that is looked into
)

// within tells where two JSON values with parts differ; nothing when one of them has
// none, or is too large to look into.
func within(old, now json.RawMessage) (list []difference, more int) {
	if len(old) > withinMost || len(now) > withinMost {
		return nil, 0
	}
	a, b := decoded(old), decoded(now)
	if !parted(a) || !parted(b) || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return nil, 0
	}
	w := inside{}
	w.compare("", a, b)
	return w.list, w.more
}

// decoded reads a JSON value with its numbers as they are written; nil: it is none.
func decoded(raw json.RawMessage) any {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func parted(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

// inside collects differences.
type inside struct {
	list []difference
	more int
}

func (w *inside) compare(path string, a, b any) {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			w.objects(path, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			w.arrays(path, x, y)
			return
		}
	}
	if !reflect.DeepEqual(a, b) {
		w.add(difference{Name: path, Old: shortJSON(a), New: shortJSON(b), Was: true, Is: true})
	}
}

func (w *inside) objects(path string, a, b map[string]any) {
	names := make([]string, 0, len(a))
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		x, was := a[name]
		y, is := b[name]
		here := name
		if path != "" {
			here = path + "." + name
		}
		w.pair(here, x, y, was, is)
	}
}

func (w *inside) arrays(path string, a, b []any) {
	for i := range max(len(a), len(b)) {
		var x, y any
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		w.pair(path+"["+strconv.Itoa(i)+"]", x, y, i < len(a), i < len(b))
	}
}

func (w *inside) pair(path string, a, b any, was, is bool) {
	if was && is {
		w.compare(path, a, b)
		return
	}
	d := difference{Name: path, Was: was, Is: is}
	if was {
		d.Old = shortJSON(a)
	}
	if is {
		d.New = shortJSON(b)
	}
	w.add(d)
}

func (w *inside) add(d difference) {
	if len(w.list) == withinShown {
		w.more++
		return
	}
	w.list = append(w.list, d)
}

func shortJSON(v any) string {
	raw, _ := json.Marshal(v) // it was decoded from JSON
	return brief(raw, valueSmall)
}
