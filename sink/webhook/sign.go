package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
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

type signer struct {
	webhook *standardwebhooks.Webhook
	until   time.Time
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
	signing, err := standardwebhooks.NewWebhookRaw(key)
	return signer{webhook: signing, until: s.Until}, err
}

var errNoSecret = errors.New("no secret is valid any more: add one, or take the end off the last")

// signature returns the value of webhook-signature: one for each secret that is valid,
// in their order. Without secrets it is empty.
func (w *Webhook) signature(id string, now time.Time, body []byte) (string, error) {
	if len(w.signers) == 0 {
		return "", nil
	}
	var list []string
	for _, s := range w.signers {
		if !s.until.IsZero() && !now.Before(s.until) {
			continue
		}
		one, err := s.webhook.Sign(id, now, body)
		if err != nil {
			return "", err
		}
		list = append(list, one)
	}
	if len(list) == 0 {
		return "", errNoSecret
	}
	return strings.Join(list, " "), nil
}
