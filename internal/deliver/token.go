package deliver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"lockstep"
)

// token is the right to settle one delivery of one change.
type token struct {
	epoch    uint32 // of the consumer when it was made
	slot     int32  // where the window keeps the change, in that epoch
	seq      uint64
	delivery uint64
	key      uint64 // the hash of the change's key
	table    uint32 // and the low half of its table's
}

// A token is 53 bytes in base64url: version 1, epoch, slot, seq, delivery, key, table,
// and the first 16 bytes of an HMAC-SHA256 over these and the consumer's id. The
// consumer is not named: a token of another one has a MAC that does not fit.
const (
	tokenVersion = 1
	tokenFields  = 1 + 4 + 4 + 8 + 8 + 8 + 4
	tokenMAC     = 16
	tokenBytes   = tokenFields + tokenMAC
	tokenText    = (tokenBytes*8 + 5) / 6
)

// signer makes and checks a consumer's tokens. It is safe for concurrent use.
type signer struct {
	id   []byte
	macs sync.Pool
}

func newSigner(secret []byte, consumer string) *signer {
	s := &signer{id: []byte(consumer)}
	s.macs.New = func() any { return hmac.New(sha256.New, secret) }
	return s
}

// append appends the token's text.
func (s *signer) append(dst []byte, t token) []byte {
	var b [tokenBytes + sha256.Size]byte
	b[0] = tokenVersion
	le := binary.LittleEndian
	le.PutUint32(b[1:], t.epoch)
	le.PutUint32(b[5:], uint32(t.slot))
	le.PutUint64(b[9:], t.seq)
	le.PutUint64(b[17:], t.delivery)
	le.PutUint64(b[25:], t.key)
	le.PutUint32(b[33:], t.table)
	s.sum(b[:tokenFields], b[tokenFields:tokenFields])
	return base64.RawURLEncoding.AppendEncode(dst, b[:tokenBytes])
}

func (s *signer) sum(fields, dst []byte) []byte {
	mac, _ := s.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(s.id)
	mac.Write(fields)
	dst = mac.Sum(dst)
	s.macs.Put(mac)
	return dst
}

// parse reads a token's text. ours says whether this consumer made it; an error
// that wraps lockstep.ErrInvalid says that the text is no token at all.
func (s *signer) parse(text string) (t token, ours bool, err error) {
	var b [tokenBytes + 2]byte
	var src [tokenText]byte
	if len(text) != tokenText {
		return t, false, errToken(text)
	}
	copy(src[:], text)
	n, err := base64.RawURLEncoding.Strict().Decode(b[:], src[:])
	if err != nil || n != tokenBytes || b[0] != tokenVersion {
		return t, false, errToken(text)
	}
	le := binary.LittleEndian
	t = token{
		epoch: le.Uint32(b[1:]), slot: int32(le.Uint32(b[5:])), seq: le.Uint64(b[9:]), delivery: le.Uint64(b[17:]), key: le.Uint64(b[25:]), table: le.Uint32(b[33:]),
	}
	var sum [sha256.Size]byte
	return t, hmac.Equal(s.sum(b[:tokenFields], sum[:0])[:tokenMAC], b[tokenFields:tokenBytes]), nil
}

func errToken(text string) error {
	const shown = 16
	if len(text) > shown {
		text = text[:shown] + "…"
	}
	return fmt.Errorf("%q is not an ack token: send ack_token as it came: %w", text, lockstep.ErrInvalid)
}
