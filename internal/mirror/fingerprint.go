package mirror

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// Print is the fingerprint of a record: 16 bytes of a SHA-256.
type Print [16]byte

var errNotObject = errors.New("the record is not a JSON object that Postgres could hold")

// Fingerprint returns the fingerprint of a record's JSON. It does not depend on the
// order of keys, white space, or how strings are escaped; of equal keys the last
// counts. Numbers count by their digits as written: 1.0 differs from 1. The values
// at the volatile paths (dotted; arrays on the way are passed through) do not count.
func Fingerprint(data json.RawMessage, volatile []string) (Print, error) {
	return fingerprint(data, newPathSet(volatile))
}

func fingerprint(data []byte, volatile *pathSet) (Print, error) {
	p, _, err := new(canon).print(data, volatile)
	return p, err
}

// pathSet is a set of dotted paths as a tree. nil: the empty set.
type pathSet struct {
	whole bool // the path ends here
	below map[string]*pathSet
}

func newPathSet(paths []string) *pathSet {
	if len(paths) == 0 {
		return nil
	}
	root := &pathSet{}
	for _, path := range paths {
		at := root
		for segment := range strings.SplitSeq(path, ".") {
			if at.below == nil {
				at.below = map[string]*pathSet{}
			}
			if at.below[segment] == nil {
				at.below[segment] = &pathSet{}
			}
			at = at.below[segment]
		}
		at.whole = true
	}
	return root
}

func (p *pathSet) at(key []byte) *pathSet {
	if p == nil {
		return nil
	}
	return p.below[string(key)]
}

// canon writes a form of JSON that two writings of one record have in common: each
// part with its kind and length in front, so that no two records share a form. It
// reads each byte once, and may be used again.
type canon struct {
	out, sorted []byte
	parts       []part // a stack: each object has its own on top
	plain       bool   // the whole record is valid UTF-8
	odd         bool   // there are escapes by number, exponents or long numbers: see clean
}

// part is a member of an object in out, with its key.
type part struct{ from, end, keyEnd int }

// keyFrom is how far behind a part's beginning its key is.
const keyFrom = 5

// longNumber is up to how many digits a number is surely one that numeric holds.
const longNumber = 1000

// print returns the fingerprint, and whether the record may need cleaning.
func (c *canon) print(data []byte, volatile *pathSet) (p Print, odd bool, err error) {
	c.out, c.parts, c.odd = c.out[:0], c.parts[:0], false
	c.plain = utf8.Valid(data)
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		return p, false, errNotObject
	}
	if end := c.value(data, i, 0, volatile); end < 0 || skipSpace(data, end) != len(data) {
		return p, false, errNotObject
	}
	sum := sha256.Sum256(c.out)
	return Print(sum[:16]), c.odd || !c.plain, nil
}

// value writes the value at i, and returns its end; -1 when there is none.
func (c *canon) value(b []byte, i, depth int, volatile *pathSet) (end int) {
	if i >= len(b) || depth > deepest {
		return -1
	}
	switch b[i] {
	case '{':
		return c.object(b, i, depth, volatile)
	case '[':
		return c.array(b, i, depth, volatile)
	case '"':
		return c.text(b, i, '"')
	}
	if end = skipValue(b, i, depth); end < 0 {
		return -1
	}
	if k := kindOf(b[i:]); k == kindNumber {
		c.odd = c.odd || end-i > longNumber || bytes.IndexByte(b[i:end], 'e') >= 0 || bytes.IndexByte(b[i:end], 'E') >= 0
	}
	c.out = append(append(c.out, b[i:end]...), ',')
	return end
}

// text writes a string by its length and what it says.
func (c *canon) text(b []byte, i int, mark byte) (end int) {
	if end = skipString(b, i); end < 0 {
		return -1
	}
	inner := b[i+1 : end-1]
	at := len(c.out)
	c.out = append(c.out, mark, 0, 0, 0, 0)
	escapes := bytes.IndexByte(inner, '\\') >= 0
	if c.plain && !escapes {
		c.out = append(c.out, inner...)
	} else {
		c.odd = c.odd || escapes && bytes.Contains(inner, []byte(`\u`))
		c.out = appendUnquoted(c.out, inner)
	}
	binary.BigEndian.PutUint32(c.out[at+1:], uint32(len(c.out)-at-keyFrom))
	return end
}

func (c *canon) array(b []byte, i, depth int, volatile *pathSet) (end int) {
	c.out = append(c.out, '[')
	for i = skipSpace(b, i+1); i >= len(b) || b[i] != ']'; {
		if i = c.value(b, i, depth+1, volatile); i < 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return -1
		}
		if b[i] == ']' {
			break
		}
		if b[i] != ',' {
			return -1
		}
		if i = skipSpace(b, i+1); i >= len(b) || b[i] == ']' {
			return -1
		}
	}
	c.out = append(c.out, ']')
	return i + 1
}

func (c *canon) object(b []byte, i, depth int, volatile *pathSet) (end int) {
	base := len(c.parts)
	c.out = append(c.out, '{')
	start := len(c.out)
	for i = skipSpace(b, i+1); i >= len(b) || b[i] != '}'; {
		if i = c.member(b, i, depth, volatile); i < 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return -1
		}
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return -1
		}
		if i = skipSpace(b, i+1); i >= len(b) || b[i] == '}' {
			return -1
		}
	}
	c.sort(base, start)
	c.parts = c.parts[:base]
	c.out = append(c.out, '}')
	return i + 1
}

// member writes the key and value at i as a part, and takes it back if its path is
// volatile.
func (c *canon) member(b []byte, i, depth int, volatile *pathSet) (end int) {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	p := part{from: len(c.out)}
	if i = c.text(b, i, 'k'); i < 0 {
		return -1
	}
	p.keyEnd = len(c.out)
	if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
		return -1
	}
	below := volatile.at(c.out[p.from+keyFrom : p.keyEnd])
	if i = c.value(b, skipSpace(b, i+1), depth+1, below); i < 0 {
		return -1
	}
	if below != nil && below.whole {
		c.out = c.out[:p.from]
		return i
	}
	p.end = len(c.out)
	c.parts = append(c.parts, p)
	return i
}

// sort brings an object's parts, which begin at start, into the order of their keys.
func (c *canon) sort(base, start int) {
	mine := c.parts[base:]
	key := func(p part) []byte { return c.out[p.from+keyFrom : p.keyEnd] }
	ordered := true
	for i := 1; i < len(mine) && ordered; i++ {
		ordered = bytes.Compare(key(mine[i-1]), key(mine[i])) < 0
	}
	if ordered {
		return
	}
	slices.SortStableFunc(mine, func(a, b part) int { return bytes.Compare(key(a), key(b)) })
	c.sorted = c.sorted[:0]
	for i, p := range mine {
		if i+1 < len(mine) && bytes.Equal(key(p), key(mine[i+1])) {
			continue // of two equal keys the last counts
		}
		c.sorted = append(c.sorted, c.out[p.from:p.end]...)
	}
	c.out = append(c.out[:start], c.sorted...)
}
