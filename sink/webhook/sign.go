package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Secret signs requests by Standard Webhooks. To rotate one, put the new one first and
// let the old one end some time later: until then requests carry both signatures, and
// the endpoint may change over at any time.
type Secret struct {
	Key   string    // whsec_ and 24 to 64 bytes in base64
	Until time.Time // not used from then on; zero: no end
}

// String hides the key.
func (Secret) String() string { return "[redacted]" }

// GoString hides the key.
func (Secret) GoString() string { return "[redacted]" }

// LogValue hides the key.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText hides the key.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

const secretPrefix = "whsec_"

// signer makes the signatures of one secret: v1 of Standard Webhooks, as its library
// makes them, which copies the body twice for each.
type signer struct {
	macs  *sync.Pool // of hash.Hash
	until time.Time
}

// append appends the signature of a request.
func (s signer) append(dst []byte, id string, now time.Time, body []byte) []byte {
	mac, _ := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	var room [128]byte
	mac.Write(append(strconv.AppendInt(append(append(room[:0], id...), '.'), now.Unix(), 10), '.'))
	mac.Write(body)
	var sum [sha256.Size]byte
	return base64.StdEncoding.AppendEncode(append(dst, "v1,"...), mac.Sum(sum[:0]))
}

func (w *Webhook) configureSecrets() error {
	var wrong []error
	for i, s := range w.config.Secrets {
		signing, err := s.signer()
		if err != nil {
			wrong = append(wrong, fmt.Errorf("secret %d %w", i+1, err))
			continue
		}
		w.signers = append(w.signers, signing)
	}
	return errors.Join(wrong...)
}

// signer reads the key. Errors say nothing of it.
func (s Secret) signer() (signer, error) {
	text, ok := strings.CutPrefix(s.Key, secretPrefix)
	if !ok {
		return signer{}, errors.New("does not begin with whsec_")
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return signer{}, errors.New("is not base64 behind whsec_")
	}
	if len(key) < 24 || len(key) > 64 {
		return signer{}, fmt.Errorf("has %d bytes: 24 to 64 are needed", len(key))
	}
	macs := &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	return signer{macs: macs, until: s.Until}, nil
}

var errNoSecret = errors.New("no secret is valid any more: add one, or take the end off the last")

// signature returns the value of webhook-signature: one for each secret that is valid,
// in their order. Without secrets it is empty.
func (w *Webhook) signature(id string, now time.Time, body []byte) (string, error) {
	if len(w.signers) == 0 {
		return "", nil
	}
	var room [128]byte
	list := room[:0]
	for _, s := range w.signers {
		if !s.until.IsZero() && !now.Before(s.until) {
			continue
		}
		if len(list) > 0 {
			list = append(list, ' ')
		}
		list = s.append(list, id, now, body)
	}
	if len(list) == 0 {
		return "", errNoSecret
	}
	return string(list), nil
}
