package client

import (
	"encoding/json"
	"errors"
	"strconv"
)

var errJSON = errors.New("malformed JSON")

// scanner walks JSON without decoding what nobody asked for. Values that are taken
// are parts of the input, not copies: a worker at full speed would otherwise spend
// most of its time in encoding/json. It trusts the insides of values it skips.
type scanner struct {
	data []byte
	text string // the same bytes, for strings without a copy each
	at   int
}

func newScanner(data []byte) scanner { return scanner{data: data, text: string(data)} }

// peek returns the next byte that is not space, or 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// next moves on to the following member or element of what open began. It returns
// false after the last one.
func (s *scanner) next(started *bool, end byte) (bool, error) {
	c := s.peek()
	if c == end {
		s.at++
		return false, nil
	}
	if *started {
		if c != ',' {
			return false, errJSON
		}
		s.at++
		if s.peek() == end {
			return false, errJSON
		}
	}
	*started = true
	return true, nil
}

// object calls member with each key; member must consume the value.
func (s *scanner) object(member func(key string) error) error {
	if s.peek() != '{' {
		return errJSON
	}
	s.at++
	for started := false; ; {
		more, err := s.next(&started, '}')
		if err != nil || !more {
			return err
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		if s.peek() != ':' {
			return errJSON
		}
		s.at++
		if err := member(key); err != nil {
			return err
		}
	}
}

// array calls element for each element, which it must consume. null is empty.
func (s *scanner) array(element func() error) error {
	if s.peek() == 'n' {
		_, err := s.raw()
		return err
	}
	if s.peek() != '[' {
		return errJSON
	}
	s.at++
	for started := false; ; {
		more, err := s.next(&started, ']')
		if err != nil || !more {
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}

// raw takes any value as it stands.
func (s *scanner) raw() (json.RawMessage, error) {
	c := s.peek()
	start := s.at
	switch c {
	case '"':
		if _, err := s.quoted(); err != nil {
			return nil, err
		}
	case '{', '[':
		if err := s.nested(); err != nil {
			return nil, err
		}
	default:
		s.bare()
	}
	if s.at == start {
		return nil, errJSON
	}
	return s.data[start:s.at:s.at], nil
}

// optional is raw with nil for null.
func (s *scanner) optional() (json.RawMessage, error) {
	v, err := s.raw()
	if string(v) == "null" {
		return nil, err
	}
	return v, err
}

// nested skips an object or an array.
func (s *scanner) nested() error {
	depth := 0
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case '"':
			if _, err := s.quoted(); err != nil {
				return err
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.at++
		if depth == 0 {
			return nil
		}
	}
	return errJSON
}

// bare skips a number or a literal.
func (s *scanner) bare() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ',', '}', ']', ':', '"', '{', '[', ' ', '\t', '\n', '\r':
			return
		}
		s.at++
	}
}

// quoted skips a string, quotes included, and reports whether it has escapes.
func (s *scanner) quoted() (escaped bool, err error) {
	for s.at++; s.at < len(s.data); s.at++ {
		switch s.data[s.at] {
		case '"':
			s.at++
			return escaped, nil
		case '\\':
			escaped = true
			s.at++
		}
	}
	return false, errJSON
}

// str takes a string; null is empty.
func (s *scanner) str() (string, error) {
	if s.peek() == 'n' {
		v, err := s.optional()
		if v != nil {
			return "", errJSON
		}
		return "", err
	}
	if s.peek() != '"' {
		return "", errJSON
	}
	start := s.at
	escaped, err := s.quoted()
	if err != nil {
		return "", err
	}
	if !escaped {
		return s.text[start+1 : s.at-1], nil
	}
	var out string
	err = json.Unmarshal(s.data[start:s.at], &out)
	return out, err
}

func (s *scanner) uint() (uint64, error) {
	v, err := s.optional()
	if err != nil || v == nil {
		return 0, err
	}
	return strconv.ParseUint(s.text[s.at-len(v):s.at], 10, 64)
}

func (s *scanner) bool() (bool, error) {
	v, err := s.raw()
	return string(v) == "true", err
}

func (s *scanner) strings() ([]string, error) {
	var out []string
	err := s.array(func() error {
		v, err := s.str()
		out = append(out, v)
		return err
	})
	return out, err
}
