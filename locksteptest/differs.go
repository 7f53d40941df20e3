package locksteptest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// differs compares JSON by meaning, numbers by their text. It returns where the two
// differ first; empty when they do not.
func differs(got, want json.RawMessage) string {
	if bytes.Equal(got, want) {
		return ""
	}
	x, err1 := decode(got)
	y, err2 := decode(want)
	if err1 != nil || err2 != nil {
		return fmt.Sprintf("not JSON: %v, %v", err1, err2)
	}
	return firstDifference("", x, y)
}

func decode(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return v, d.Decode(&v)
}

func firstDifference(path string, got, want any) string {
	if reflect.DeepEqual(got, want) {
		return ""
	}
	a, ok1 := got.(map[string]any)
	b, ok2 := want.(map[string]any)
	if ok1 && ok2 {
		names := slices.Sorted(maps.Keys(a))
		for name := range b {
			if _, there := a[name]; !there {
				return fmt.Sprintf("%s.%s is missing", path, name)
			}
		}
		for _, name := range names {
			if where := firstDifference(path+"."+name, a[name], b[name]); where != "" {
				return where
			}
		}
	}
	x, ok1 := got.([]any)
	y, ok2 := want.([]any)
	if ok1 && ok2 && len(x) != len(y) {
		return fmt.Sprintf("%s has %d elements, want %d", path, len(x), len(y))
	}
	for i := range x {
		if ok1 && ok2 {
			if where := firstDifference(fmt.Sprintf("%s[%d]", path, i), x[i], y[i]); where != "" {
				return where
			}
		}
	}
	return fmt.Sprintf("%s is %.200v, want %.200v", path, got, want)
}
