package realtime_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"lockstep/internal/realtime"
)

func FuzzText(f *testing.F) {
	for _, seed := range []string{
		`["6","6","realtime:default","phx_join",{"config":{"broadcast":{"self":true}}}]`, `[null,"10","phoenix","heartbeat",{}]`,
		`{"topic":"realtime:a","event":"phx_leave","payload":{},"ref":"3","join_ref":"1"}`, `[1,2,"a","b",null]`, `["a"]`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, version2 bool) {
		out, err := realtime.Decode(data, version2, false)
		if err != nil {
			return
		}
		if !json.Valid(out) {
			t.Fatalf("%q becomes %q", data, out)
		}
		again, err := realtime.Decode(out, version2, false)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q becomes %q, and then %q (%v)", data, out, again, err)
		}
	})
}

func FuzzBinary(f *testing.F) {
	f.Add(binaryPush("7", "realtime:room", "shout", `{"id":"x"}`, 1, `{"n":2}`))
	f.Add(binaryPush("", "t", "", "", 0, "\x00\xff"))
	f.Add([]byte{3, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := realtime.Decode(data, true, true)
		if err != nil {
			return
		}
		// Topic, event, metadata and payload come out as they went in.
		if len(out) < 5 || out[0] != 4 || out[4] != data[6] || out[1] != data[3] || out[2] != data[4] || out[3] != data[5] {
			t.Fatalf("%v becomes %v", data, out)
		}
		skip := 7 + int(data[1]) + int(data[2])
		if !bytes.Equal(out[5:], data[skip:]) {
			t.Fatalf("%v becomes %v", data, out)
		}
	})
}

func FuzzJoin(f *testing.F) {
	for _, seed := range []string{
		`{"config":{"broadcast":{"self":true,"ack":"true"},"presence":{"key":"u1","enabled":true},"postgres_changes":[{"event":"*","schema":"public","table":"orders","filter":"amount=gt.100","since":7}],"private":false},"access_token":"x"}`,
		`{"config":{"postgres_changes":[null,7,{"id":3,"event":"*","schema":"*","select":["a"]}]}}`, `{}`, `null`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if !json.Valid(payload) {
			return // the frame around it was JSON
		}
		response, err := realtime.Join(payload)
		if err != nil {
			return
		}
		var got struct {
			Changes []struct{ ID uint32 } `json:"postgres_changes"`
		}
		if err := json.Unmarshal([]byte(response), &got); err != nil {
			t.Fatalf("%q is answered with %q: %v", payload, response, err)
		}
		seen := map[uint32]bool{}
		for _, c := range got.Changes {
			if c.ID == 0 || seen[c.ID] {
				t.Fatalf("%q is answered with %q", payload, response)
			}
			seen[c.ID] = true
		}
	})
}
