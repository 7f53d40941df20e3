package rest

import (
	"fmt"
	"strconv"
)

// etag is what a first page was when it was read last. It is kept in memory only: a
// restart reads once more.
type etag struct {
	tag string
	// pass is the pass in which it was learnt, when that handed out records: it may
	// be used only by cursors that say that the pass is over, because then what it
	// handed out is stored. 0: nothing was handed out.
	pass int64
}

// maxEtags bounds the memory for them.
const maxEtags = 50_000

// key names the first page of the list that is being read.
func (p *pass) key(i int, parents *parentPage) string {
	key := p.feed.name + " " + strconv.FormatInt(int64(p.settle), 10)
	if parents != nil {
		key += " " + parents.ids[i]
	}
	if p.feed.shifts() || p.feed.asksTime() {
		key += " " + fmt.Sprint(p.cur.Since.Unix())
	}
	return key
}

// asksTime says whether the address has a time in it, so that it is another one later.
func (f *Feed) asksTime() bool {
	for _, t := range f.Query {
		if t.uses("since") || t.uses("until") {
			return true
		}
	}
	return false
}

// etag returns the tag to ask with; empty when all is to be read.
func (p *pass) etag(key string) string {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	e, ok := p.s.etags[key]
	if !ok || e.pass > p.cur.Done {
		return ""
	}
	return e.tag
}

// learn keeps the tag of a first page. It says nothing about the pages behind it
// unless the newest come first, and nothing about what had not settled.
func (p *pass) learn(key string, got loaded, unfinished bool) {
	if got.etag == "" || p.young || got.more && p.feed.Order != "newest_first" {
		return
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if len(p.s.etags) >= maxEtags {
		clear(p.s.etags)
	}
	e := etag{tag: got.etag}
	if unfinished {
		e.pass = p.cur.Start.UnixNano()
	}
	p.s.etags[key] = e
}
