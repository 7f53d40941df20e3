package rest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"testing"
	"time"

	"lockstep/source"
	"lockstep/source/rest"
)

func sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

const hooked = `
credential: {hook: {secret: true, optional: true}}
records: data
page: {kind: none}
feeds: {log: {kind: log, path: /log, id: id, time: at, record: object}}
collections: {thing: {list: {path: /things}, feed: log, object: {type: "thing.*"}}}
webhook: {header: X-Sign, secret: "{credential.hook}", `

// F8: forged, replayed and unsigned calls are refused; a good one is a hint only.
func TestReceiveChecksSignatures(t *testing.T) {
	t.Parallel()
	f := serve(t, func(http.ResponseWriter, *http.Request) {})
	body := `{"id":"e1","type":"thing.changed","object":{"id":"a"},"thing":"b"}`
	now := strconv.FormatInt(time.Now().Unix(), 10)
	old := strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)
	for name, c := range map[string]struct {
		spec, header string
		want         string
	}{
		"timestamped":         {"format: timestamped, feed: log}", "t=" + now + ",v1=" + sign("other", now+"."+body) + ",v1=" + sign("s3cret", now+"."+body), "a"},
		"of another key":      {"format: timestamped, feed: log}", "t=" + now + ",v1=" + sign("other", now+"."+body), ""},
		"replayed":            {"format: timestamped, feed: log}", "t=" + old + ",v1=" + sign("s3cret", old+"."+body), ""},
		"with another time":   {"format: timestamped, feed: log}", "t=" + now + ",v1=" + sign("s3cret", old+"."+body), ""},
		"unsigned":            {"format: timestamped, feed: log}", "", ""},
		"plain":               {`format: plain, prefix: "sha256=", hints: [{collection: thing, when: {type: "thing.*"}, id: thing}]}`, "sha256=" + sign("s3cret", body), "b"},
		"plain, no prefix":    {`format: plain, prefix: "sha256=", hints: [{collection: thing, id: thing}]}`, sign("s3cret", body), ""},
		"plain, other secret": {`format: plain, prefix: "sha256=", hints: [{collection: thing, id: thing}]}`, "sha256=" + sign("x", body), ""},
	} {
		s := openWith(t, f, hooked+c.spec, rest.Options{Credential: map[string]string{"hook": "s3cret"}})
		header := http.Header{}
		header.Set("X-Sign", c.header)
		got, err := s.Receive(t.Context(), header, []byte(body))
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: was taken", name)
				continue
			}
			_ = kind(t, err, source.Unauthorized)
			continue
		}
		if err != nil || len(got) != 1 || got[0].ID != c.want || got[0].Collection != "thing" || got[0].Data != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	s := open(t, f, hooked+"format: timestamped, feed: log}")
	_, err := s.Receive(t.Context(), http.Header{}, []byte(body))
	_ = kind(t, err, source.Unauthorized)
}
