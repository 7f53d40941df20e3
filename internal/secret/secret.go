// Package secret seals what must not lie readable on a disk or in a database:
// credentials and tokens.
//
// # Guarantees
//
//  1. What was sealed is opened whole and unchanged, or not at all: one flipped bit
//     anywhere is an error.
//  2. A sealed secret opens only in the context that it was sealed for, so that it
//     cannot be moved from one row to another.
//  3. Another key is told apart from damage: [Key.Open] says which of them it is.
//  4. Equal secrets look different when sealed; only their length shows.
//  5. A [Key] does not show in any form of printing or logging, and no error holds
//     a key or a secret.
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"lockstep"
)

// KeyBytes is the length of a key.
const KeyBytes = 32

// The layout of what is sealed: one byte that names the layout, the key's id, and what
// AES-256-GCM makes (nonce, text, tag). Everything in front is bound into the tag, and
// so is the context.
const (
	layout     = 1
	idBytes    = 8
	nonceBytes = 12
	tagBytes   = 16
	headBytes  = 1 + idBytes

	// Overhead is by how much a sealed secret is longer.
	Overhead = headBytes + nonceBytes + tagBytes
)

// ErrOtherKey says that a secret was sealed with another key than the one at hand. It
// wraps [lockstep.ErrInvalid].
var ErrOtherKey = fmt.Errorf("sealed with another LOCKSTEP_KEY: start with the key that it was sealed with, or give the credential again: %w", lockstep.ErrInvalid)

// errDamaged is told to be about what is stored, in the words of this package.
var errDamaged = errors.New("the sealed secret is damaged, or belongs to something else: give the credential again")

// Key seals and opens. It may be used concurrently and is never changed. One key is
// good for 2^32 secrets.
type Key struct {
	id   [idBytes]byte
	aead cipher.AEAD
}

// NewKey makes a key of 32 secret bytes, which are not kept. Any other number of
// bytes gives an error that wraps [lockstep.ErrInvalid].
func NewKey(raw []byte) (*Key, error) {
	if len(raw) != KeyBytes {
		return nil, fmt.Errorf("a key has %d bytes, this one has %d; make one with openssl rand -base64 32: %w", KeyBytes, len(raw), lockstep.ErrInvalid)
	}
	// Two keys of one: the id that stands in the open tells nothing about the other.
	id, err := hkdf.Key(sha256.New, raw, nil, "lockstep sealed secrets: key id", idBytes)
	if err != nil {
		return nil, fmt.Errorf("derive the key's id: %w", err)
	}
	inner, err := hkdf.Key(sha256.New, raw, nil, "lockstep sealed secrets: AES-256-GCM", KeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive the key: %w", err)
	}
	block, err := aes.NewCipher(inner)
	if err != nil {
		return nil, fmt.Errorf("make the cipher: %w", err)
	}
	k := &Key{}
	if k.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("make the cipher: %w", err)
	}
	copy(k.id[:], id)
	return k, nil
}

// Seal encrypts plain for a context, such as "sync 0199…: credential". The context is
// not secret and not kept: Open must be given the same.
func (k *Key) Seal(plain []byte, context string) []byte {
	sealed := make([]byte, headBytes, len(plain)+Overhead)
	sealed[0] = layout
	copy(sealed[1:], k.id[:])
	return k.aead.Seal(sealed, nil, plain, bound(sealed, context))
}

// Open returns what Seal was given. The error wraps [ErrOtherKey] when another key
// sealed it, and [lockstep.ErrCorrupt] when it is damaged or of another context.
func (k *Key) Open(sealed []byte, context string) ([]byte, error) {
	switch {
	case len(sealed) < Overhead:
		return nil, fmt.Errorf("%s: %w: %w", context, errDamaged, lockstep.ErrCorrupt)
	case sealed[0] != layout:
		return nil, fmt.Errorf("%s: sealed in a way that this version does not know, or damaged: %w", context, lockstep.ErrCorrupt)
	case [idBytes]byte(sealed[1:headBytes]) != k.id:
		return nil, fmt.Errorf("%s: %w", context, ErrOtherKey)
	}
	head, body := sealed[:headBytes], sealed[headBytes:]
	plain, err := k.aead.Open(nil, nil, body, bound(head, context))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", context, errDamaged, lockstep.ErrCorrupt)
	}
	return plain, nil
}

// bound is what the tag vouches for besides the secret: the head and the context.
func bound(head []byte, context string) []byte {
	return append(append(make([]byte, 0, headBytes+len(context)), head[:headBytes]...), context...)
}

// String returns a placeholder.
func (k *Key) String() string { return "[hidden]" }

// Format prints the placeholder, whatever the verb is.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue logs the placeholder.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
