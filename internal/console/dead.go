package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// deadPages registers pages of dead letters.
func (s *Console) deadPages() {
	s.page("consumers/{id}/dead", "dead", deadLetters)
	s.mux.HandleFunc("GET "+Prefix+"consumers/{id}/dead/further", s.signedIn(furtherDead))
	s.page("consumers/{id}/dead/{seq}", "dead-letter", deadLetter)
	s.action("consumers/{id}/dead/retry", retrySelected)
	s.action("consumers/{id}/dead/drop", dropSelected)
	s.action("consumers/{id}/dead/all/{verb}", everyDead)
	s.action("consumers/{id}/dead/{seq}/{verb}", oneDead)
}

const (
	deadAPage = 50 // dead letters that a page shows
	// deadLook is how long a page looks for letters before it comes with what was found
	// so far; it then goes on looking by itself, a second at a time.
	deadLook = 40 * time.Millisecond
)

// deadView lists dead letters.
type deadView struct {
	consumerView
	Asked   deadAsked
	Letters []letter
	Older   string // the address of the next page; empty: this is the last, or it goes on looking
	Further string // where it goes on looking; empty: it does not
	ByHand  string // the same for a reader without scripts
	First   bool
}

// deadAsked is which dead letters are asked for, and how far looking for them came.
type deadAsked struct {
	Order  string // newest or oldest
	Reason string // what the reasons hold
	Key    string // what the keys hold
	Cursor string
	Found  int // on this page so far
	Looked int // letters for that
}

func askedDead(q url.Values) deadAsked {
	a := deadAsked{Order: "newest", Reason: strings.TrimSpace(q.Get("reason")), Key: strings.TrimSpace(q.Get("key")), Cursor: q.Get("cursor")}
	if q.Get("order") == "oldest" {
		a.Order = "oldest"
	}
	return a
}

// address is where more of the same are; with found and looked for the page that the
// rows are added to.
func (a deadAsked) address(at, cursor string, adding bool) string {
	q := url.Values{"order": {a.Order}, "reason": {a.Reason}, "key": {a.Key}, "cursor": {cursor}}
	if adding {
		q.Set("found", strconv.Itoa(a.Found))
		q.Set("looked", strconv.Itoa(a.Looked))
	}
	return at + "?" + q.Encode()
}

// Narrowed reports whether not all of them are asked for.
func (a deadAsked) Narrowed() bool { return a.Reason != "" || a.Key != "" }

// find looks for letters behind the cursor, for so long; 0: as long as the API does.
func (v *deadView) find(c *visit, look time.Duration) error {
	page, err := c.api.FindDead(c.ctx, v.Consumer.ID, client.DeadQuery{
		Limit: deadAPage - v.Asked.Found, Cursor: v.Asked.Cursor, Order: v.Asked.Order, Reason: v.Asked.Reason, Key: v.Asked.Key, NoMessage: true, Look: look,
	})
	if err != nil {
		return err
	}
	for _, one := range page.Data {
		v.Letters = append(v.Letters, letter{one})
	}
	v.Asked.Found, v.Asked.Looked = v.Asked.Found+len(v.Letters), v.Asked.Looked+page.Looked
	switch {
	case page.Next == "":
	case page.Stopped:
		v.Further = v.Asked.address(v.At+"/dead/further", page.Next, true)
		v.ByHand = v.Asked.address(v.At+"/dead", page.Next, false) + "&look=long"
	default:
		v.Older = v.Asked.address(v.At+"/dead", page.Next, false)
	}
	return nil
}

// letter is a dead letter as a page shows it.
type letter struct{ client.DeadLetter }

// Row is the row's key in short.
func (l letter) Row() string {
	var keys []string
	if json.Unmarshal(l.PKs, &keys) == nil {
		return short(strings.Join(keys, ", "), 60)
	}
	return compact(l.PKs, 60)
}

// Why is the reason in short.
func (l letter) Why() string { return short(l.Reason, 240) }

func deadLetters(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "dead")
	if err != nil {
		return nil, err
	}
	q := c.r.URL.Query()
	v := &deadView{consumerView: frame, Asked: askedDead(q)}
	v.First = v.Asked.Cursor == ""
	if c.r.Header.Get("HX-Target") == "live" {
		return v, nil // the list stays: who is choosing must not be disturbed
	}
	look := deadLook
	if q.Get("look") == "long" {
		look = 0
	}
	return v, v.find(c, look)
}

// furtherDead answers with the rows that a page of dead letters goes on with.
func furtherDead(c *visit) {
	frame, err := consumerFrame(c, "dead")
	if err != nil {
		c.fail(err)
		return
	}
	q := c.r.URL.Query()
	v := &deadView{consumerView: frame, Asked: askedDead(q)}
	v.Asked.Found, v.Asked.Looked = atLeast(q.Get("found"), 0), atLeast(q.Get("looked"), 0)
	if v.Asked.Found >= deadAPage {
		c.fail(fmt.Errorf("the page is full: %w", lockstep.ErrInvalid))
		return
	}
	if err := v.find(c, 0); err != nil {
		c.fail(err)
		return
	}
	c.write(c.w, http.StatusOK, "dead", "rows", v)
}

// atLeast reads a number of an address; what is none, or lower, counts as least.
func atLeast(text string, least int) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return least
	}
	return max(n, least)
}

// deadLetterView is one dead letter.
type deadLetterView struct {
	consumerView
	Letter   letter
	Original json.RawMessage // the change before the transform; nil: there is none, or it is not kept any more
}

func deadLetter(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "dead")
	if err != nil {
		return nil, err
	}
	seq, err := seqOf(c.r.PathValue("seq"))
	if err != nil {
		return nil, err
	}
	one, err := c.api.DeadLetter(c.ctx, frame.Consumer.ID, seq)
	if err != nil {
		return nil, err
	}
	v := &deadLetterView{consumerView: frame, Letter: letter{one}}
	if frame.Consumer.Transform != "" {
		// What retention has removed cannot be shown, and the letter can.
		if change, err := c.api.ChangeAt(c.ctx, frame.Consumer.Database, seq); err == nil {
			v.Original = change.Record
		}
	}
	return v, nil
}

// oneDead retries or drops one letter, and leads back to the list.
func oneDead(c *visit) (string, error) {
	seq, err := seqOf(c.r.PathValue("seq"))
	if err != nil {
		return "", err
	}
	return settleDead(c, c.r.PathValue("verb"), []string{strconv.FormatUint(seq, 10)})
}

func retrySelected(c *visit) (string, error) { return settleDead(c, "retry", c.r.Form["seq"]) }
func dropSelected(c *visit) (string, error)  { return settleDead(c, "drop", c.r.Form["seq"]) }

// deadWork is one call of the API about many letters.
func deadWork(c *visit, verb string, w client.DeadWork) (client.DeadProgress, error) {
	switch verb {
	case "retry":
		return c.api.RetryDeadMany(c.ctx, c.r.PathValue("id"), w)
	case "drop":
		return c.api.DropDeadMany(c.ctx, c.r.PathValue("id"), w)
	}
	return client.DeadProgress{}, errNoPage
}

// settleDead retries or drops the letters that were chosen.
func settleDead(c *visit, verb string, seqs []string) (string, error) {
	if len(seqs) == 0 {
		return "", fmt.Errorf("nothing was chosen: tick the letters first: %w", lockstep.ErrInvalid)
	}
	var w client.DeadWork
	for _, text := range seqs {
		seq, err := seqOf(text)
		if err != nil {
			return "", err
		}
		w.Seqs = append(w.Seqs, seq)
	}
	p, err := deadWork(c, verb, w)
	if err != nil {
		return "", err
	}
	return deadWords(verb, p, len(w.Seqs)-p.Retried-p.Dropped-p.Skipped-int(min(p.Left, uint64(len(w.Seqs)))))
}

// everyTime is how long a page works on all dead letters before it answers.
const everyTime = 10 * time.Second

// everyDead retries or drops all letters that a filter finds, step by step: those that
// were there when the button was pressed.
func everyDead(c *visit) (string, error) {
	began := c.now()
	w := client.DeadWork{All: true, Reason: c.r.PostFormValue("reason"), Before: began.UTC().Format(time.RFC3339Nano)}
	var sum client.DeadProgress
	for {
		p, err := deadWork(c, c.r.PathValue("verb"), w)
		if err != nil {
			return "", err
		}
		sum.Retried, sum.Dropped, sum.Skipped = sum.Retried+p.Retried, sum.Dropped+p.Dropped, sum.Skipped+p.Skipped
		sum.Left, sum.Stopped, sum.Why = p.Left, p.Stopped, cmp.Or(sum.Why, p.Why)
		if p.Next == "" || p.Left == 0 || p.Stopped != "" || c.now().Sub(began) > everyTime {
			return deadWords(c.r.PathValue("verb"), sum, 0)
		}
		w.Cursor = p.Next
	}
}

// deadWords says how far retrying or dropping came; gone are letters that were chosen and
// were not there any more.
func deadWords(verb string, p client.DeadProgress, gone int) (string, error) {
	text := plural(p.Retried, "dead letter is", "dead letters are") + " delivered again."
	if verb == "drop" {
		text = plural(p.Dropped, "dead letter is", "dead letters are") + " dropped: their changes count as settled."
	}
	if p.Skipped > 0 {
		text += " " + plural(p.Skipped, "was", "were") + " passed over: " + p.Why + "."
	}
	if gone > 0 {
		text += " " + plural(gone, "was", "were") + " not there any more: somebody else has retried or dropped it, or the change is settled."
	}
	if p.Left > 0 {
		text += " " + count(p.Left) + " were not looked at yet: press the button again."
	}
	if p.Stopped != "" {
		return "", fmt.Errorf("%s It stopped: %s", text, p.Stopped)
	}
	return text, nil
}
