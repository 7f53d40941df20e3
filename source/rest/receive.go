package rest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lockstep/internal/suggest"
	"lockstep/source"
)

// Webhook says how the API's calls are signed and what they are about.
type Webhook struct {
	At     place
	Header string   `y:"header,required"` // that holds the signature
	Secret Template `y:"secret,required"`
	// Format timestamped: t=…,v1=… over "t.body". plain: the signature of the body,
	// behind Prefix.
	Format    string        `y:"format,required" oneof:"timestamped plain"`
	Prefix    string        `y:"prefix"`
	Encoding  string        `y:"encoding" oneof:"hex base64"`
	Tolerance time.Duration `y:"tolerance"` // of a timestamp; default 5m
	// Feed: the body is an entry of that log. Otherwise Hints say what it is about.
	Feed  string `y:"feed"`
	Hints []Hint `y:"hints"`
}

// Hint says what a call is about.
type Hint struct {
	At         place
	Collection string     `y:"collection,required"`
	Header     HeaderRule `y:"header"`
	When       Match      `y:"when"`
	ID         Path       `y:"id,required"`
	// Known are members that a get needs to know of the record, and where the body has them.
	Known map[string]Path `y:"known"`
}

// maxHook is the largest body that a webhook may have.
const maxHook = 8 << 20

func (c *checker) webhook() {
	w := c.spec.Webhook
	if w == nil {
		return
	}
	if (w.Feed == "") == (len(w.Hints) == 0) {
		c.r.wrong(w.At, "say either feed or hints", "feed for bodies that are entries of a log")
	}
	if w.Feed != "" && c.spec.Feeds[w.Feed] == nil {
		c.r.wrong(w.At, "there is no feed "+w.Feed, suggest.Remedy(w.Feed, sortedKeys(c.spec.Feeds)))
	}
	for _, h := range w.Hints {
		if c.spec.Collections[h.Collection] == nil {
			c.r.wrong(h.At, "there is no collection "+h.Collection, suggest.Remedy(h.Collection, sortedKeys(c.spec.Collections)))
		}
	}
}

// Receive implements [source.Receiver]. Forged, too old and unsigned calls give an
// error of kind Unauthorized.
func (s *Source) Receive(_ context.Context, header http.Header, body []byte) ([]source.Record, error) {
	w := s.spec.Webhook
	if w == nil {
		return nil, &source.Error{Kind: source.Failed, Message: s.name() + " has no webhooks in its spec"}
	}
	secret := w.Secret.fill(s.scope)
	if secret == "" {
		return nil, &source.Error{Kind: source.Unauthorized, Message: "webhook of " + s.name() + ": the signing secret is not in the credential; add it"}
	}
	if len(body) > maxHook {
		return nil, &source.Error{Kind: source.Invalid, Message: fmt.Sprintf("webhook of %s: larger than %d bytes", s.name(), maxHook)}
	}
	if err := w.verify([]byte(secret), header.Get(w.Header), body, time.Now()); err != nil {
		return nil, &source.Error{Kind: source.Unauthorized, Message: fmt.Sprintf("webhook of %s: %v", s.name(), err)}
	}
	if !json.Valid(body) {
		return nil, &source.Error{Kind: source.Invalid, Message: "webhook of " + s.name() + ": the body is not JSON"}
	}
	if w.Feed != "" {
		return s.hintsOf(s.spec.Feeds[w.Feed], body), nil
	}
	var out []source.Record
	for _, h := range w.Hints {
		if (len(h.When) > 0 && !h.When.of(body)) || !h.headers(header) || s.only != nil && !s.only[h.Collection] {
			continue
		}
		if id := h.ID.text(body); id != "" {
			s.learn(s.spec.Collections[h.Collection], id, func(name string) json.RawMessage {
				if at := h.Known[name]; at != nil {
					return at.in(body)
				}
				return nil
			})
			out = append(out, source.Record{Collection: h.Collection, ID: id})
		}
	}
	return out, nil
}

func (h Hint) headers(header http.Header) bool {
	for name, words := range h.Header {
		if !words.match(header.Get(name)) {
			return false
		}
	}
	return true
}

func (s *Source) hintsOf(f *Feed, body json.RawMessage) []source.Record {
	var out []source.Record
	for _, e := range s.entries(f, nil, body, nil) {
		out = append(out, source.Record{Collection: e.collection.name, ID: e.id})
	}
	return out
}

func (w *Webhook) verify(secret []byte, given string, body []byte, now time.Time) error {
	if w.Format == "plain" {
		text, ok := strings.CutPrefix(given, w.Prefix)
		if !ok || !w.equal(secret, text, body) {
			return fmt.Errorf("the signature in %s is not right", w.Header)
		}
		return nil
	}
	var stamp string
	var signatures []string
	for part := range strings.SplitSeq(given, ",") {
		switch name, v, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			stamp = v
		case "v1":
			signatures = append(signatures, v)
		}
	}
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("%s has no time", w.Header)
	}
	signed := append([]byte(stamp+"."), body...)
	right := false
	for _, text := range signatures {
		right = right || w.equal(secret, text, signed)
	}
	if !right {
		return fmt.Errorf("the signature in %s is not right", w.Header)
	}
	tolerance := w.Tolerance
	if tolerance == 0 {
		tolerance = 5 * time.Minute
	}
	if age := now.Sub(time.Unix(n, 0)); age > tolerance || age < -tolerance {
		return fmt.Errorf("the call is %s old; is the clock right?", age.Round(time.Second))
	}
	return nil
}

func (w *Webhook) equal(secret []byte, text string, signed []byte) bool {
	decode := hex.DecodeString
	if w.Encoding == "base64" {
		decode = base64.StdEncoding.DecodeString
	}
	given, err := decode(text)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write(signed) // never fails
	return hmac.Equal(given, mac.Sum(nil))
}
