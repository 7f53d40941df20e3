package rest

import (
	"encoding/json"
	"hash/fnv"
	"strconv"

	"lockstep/source"
)

// spot is a place in a list, as it is stored in cursors. The zero spot is the beginning.
type spot struct {
	Pass int    `json:"pass,omitempty"`
	URL  string `json:"url,omitempty"`  // of the next page, without the host
	At   string `json:"at,omitempty"`   // id, token, offset or number of the next page
	Back string `json:"back,omitempty"` // an id before At, for when that one has been deleted
}

// extra are the parameters that a page of a list needs.
func (l *List) extra(at spot, sc *scope) map[string]string {
	out := map[string]string{}
	p := l.Page
	if p.Size != nil {
		out[p.Size.Param] = strconv.Itoa(p.Size.Count)
	}
	if at.Pass < len(l.Passes) {
		for name, t := range l.Passes[at.Pass] {
			if v := t.fill(sc); v != "" {
				out[name] = v
			}
		}
	}
	if at.At != "" && p.Param != "" {
		out[p.Param] = at.At
	}
	if p.Kind == "page" && at.At == "" && p.Param != "" {
		out[p.Param] = strconv.Itoa(p.first())
	}
	return out
}

func (p *Pager) first() int {
	if p.First == 0 {
		return 1
	}
	return p.First
}

// next returns where a list goes on behind an answer; false at its end.
func (l *List) next(at spot, a *answer, records []json.RawMessage, idOf func(json.RawMessage) string) (spot, bool) {
	p, out := l.Page, spot{Pass: at.Pass}
	full := p.Size == nil || len(records) >= p.Size.Count
	switch p.Kind {
	case "next_url":
		out.URL = p.Path.text(a.body)
	case "link_header":
		out.URL = nextLink(a.header.Values("Link"))
	case "token":
		out.At = p.Path.text(a.body)
	case "graphql":
		info := p.Path.in(a.body)
		if string(Path{"hasNextPage"}.in(info)) == "true" {
			out.At = Path{"endCursor"}.text(info)
		}
	case "last_id":
		if len(records) > 0 {
			out.At, out.Back = idOf(records[len(records)-1]), idOf(records[0])
		} else {
			out.At, out.Back = at.At, at.Back // an empty page that is not the last: the same again
		}
	case "offset":
		n, _ := strconv.Atoi(at.At)
		out.At = strconv.Itoa(n + len(records))
	case "page":
		n, err := strconv.Atoi(at.At)
		if err != nil {
			n = p.first()
		}
		out.At = strconv.Itoa(n + 1)
	}
	if counted := p.Kind == "last_id" || p.Kind == "offset" || p.Kind == "page"; p.More != nil {
		full = string(p.More.in(a.body)) == "true"
	} else if !counted {
		full = true
	}
	if p.Kind == "none" || !full || out.URL == "" && out.At == "" {
		return l.nextPass(at)
	}
	return out, true
}

func (l *List) nextPass(at spot) (spot, bool) {
	if at.Pass+1 < len(l.Passes) {
		return spot{Pass: at.Pass + 1}, true
	}
	return spot{}, false
}

// circle finds lists whose cursors repeat, with Brent's algorithm: one cursor is
// remembered, at distances that double.
type circle struct {
	asked, hash  uint64
	steps, limit int
}

// seen reports whether a list comes back to where it was. It begins anew after that.
// The same page asked for again, after an error, does not count.
func (s *Source) seen(list string, at, next source.Cursor) bool {
	asked, h := hashOf(at), hashOf(next)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.circles[list]
	if c == nil || len(at) == 0 {
		c = &circle{limit: 1, hash: h}
		s.circles[list] = c
		c.asked = asked
		return asked == h
	}
	if c.asked == asked && asked != h {
		return false
	}
	c.asked = asked
	if c.hash == h || asked == h {
		delete(s.circles, list)
		return true
	}
	if c.steps++; c.steps >= c.limit {
		c.hash, c.steps, c.limit = h, 0, c.limit*2
	}
	return false
}

func hashOf(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	return h.Sum64()
}
