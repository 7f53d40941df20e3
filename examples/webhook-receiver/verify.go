package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// verify checks a signature of Standard Webhooks: whether body was sent by somebody who
// knows one of the secrets, less than five minutes ago. body is what arrived, byte for
// byte, after unpacking gzip.
func verify(header http.Header, body []byte, secrets ...string) error {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil {
		return errors.New("there is no webhook-id, or no webhook-timestamp")
	}
	if age := time.Since(time.Unix(seconds, 0)); age.Abs() > 5*time.Minute {
		return errors.New("the request is too old, or a clock is wrong")
	}
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) == 0 {
			return errors.New("a secret is not base64 behind whsec_")
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		for one := range strings.FieldsSeq(header.Get("webhook-signature")) {
			if hmac.Equal([]byte(one), []byte(want)) {
				return nil
			}
		}
	}
	return errors.New("no signature matches")
}
