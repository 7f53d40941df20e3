package secret_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"lockstep"
	"lockstep/internal/secret"
)

const place = "sync 0199: credential"

func key(t testing.TB, fill byte) *secret.Key {
	t.Helper()
	k, err := secret.NewKey(bytes.Repeat([]byte{fill}, secret.KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWhatWasSealedIsOpened(t *testing.T) {
	t.Parallel()
	k := key(t, 1)
	for _, plain := range [][]byte{nil, {0}, []byte("sk_test_123456789"), bytes.Repeat([]byte("x"), 100_000)} {
		sealed := k.Seal(plain, place)
		if len(sealed) != len(plain)+secret.Overhead {
			t.Errorf("%d bytes became %d", len(plain), len(sealed))
		}
		if len(plain) > 1 && bytes.Contains(sealed, plain[:2]) && len(plain) < 100 {
			t.Errorf("%q shows in what is sealed", plain)
		}
		// The same key, made anew: as after a restart.
		got, err := key(t, 1).Open(sealed, place)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("opened %d bytes of %d: %v", len(got), len(plain), err)
		}
	}
}

func TestEqualSecretsLookDifferent(t *testing.T) {
	t.Parallel()
	k := key(t, 1)
	seen := map[string]bool{}
	for range 1000 {
		seen[string(k.Seal([]byte("a"), place))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 are different", len(seen))
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	k := key(t, 1)
	whole := k.Seal([]byte("sk_test_123456789"), place)
	for at := range len(whole) * 8 {
		broken := bytes.Clone(whole)
		broken[at/8] ^= 1 << (at % 8)
		plain, err := k.Open(broken, place)
		if plain != nil || !errors.Is(err, lockstep.ErrCorrupt) && !errors.Is(err, secret.ErrOtherKey) {
			t.Fatalf("bit %d: %q, %v", at, plain, err)
		}
	}
	for n := range len(whole) {
		if _, err := k.Open(whole[:n], place); !errors.Is(err, lockstep.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := k.Open(append(bytes.Clone(whole), 0), place); !errors.Is(err, lockstep.ErrCorrupt) {
		t.Fatalf("a byte too many: %v", err)
	}
}

func TestASecretStaysWhereItBelongs(t *testing.T) {
	t.Parallel()
	k := key(t, 1)
	sealed := k.Seal([]byte("sk_test_123456789"), place)
	for _, other := range []string{"", "sync 0200: credential", place + " "} {
		_, err := k.Open(sealed, other)
		if !errors.Is(err, lockstep.ErrCorrupt) {
			t.Errorf("in %q: %v", other, err)
		}
	}
}

func TestAnotherKeyIsToldApart(t *testing.T) {
	t.Parallel()
	sealed := key(t, 1).Seal([]byte("sk_test_123456789"), place)
	_, err := key(t, 2).Open(sealed, place)
	if !errors.Is(err, secret.ErrOtherKey) || !errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrCorrupt) {
		t.Fatal(err)
	}
	for _, part := range []string{place, "sealed with another LOCKSTEP_KEY"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if lockstep.Retryable(err) {
		t.Error("the same again would help?")
	}
}

func TestAKeyHas32Bytes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := secret.NewKey(make([]byte, n)); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestAKeyDoesNotShow(t *testing.T) {
	t.Parallel()
	k := key(t, 'K')
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).InfoContext(t.Context(), "x", "key", k)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %x %d", k, k, k, k, k, k), log.String()} {
		if strings.Trim(strings.ReplaceAll(text, "[hidden]", ""), " ") != "" && !strings.Contains(text, "key=[hidden]") {
			t.Errorf("shown as %q", text)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := key(f, 1)
	f.Add(k.Seal([]byte("a"), place), place)
	f.Add([]byte{}, "")
	f.Add(bytes.Repeat([]byte{1}, secret.Overhead), "x")
	whole := k.Seal([]byte("a secret"), place)
	f.Fuzz(func(t *testing.T, sealed []byte, context string) {
		plain, err := k.Open(sealed, context)
		if err == nil && !bytes.Equal(sealed, whole) && len(plain)+secret.Overhead != len(sealed) {
			t.Errorf("%d bytes out of %d", len(plain), len(sealed))
		}
		again, err := k.Open(k.Seal(sealed, context), context)
		if err != nil || !bytes.Equal(again, sealed) {
			t.Errorf("%x sealed and opened is %x, %v", sealed, again, err)
		}
	})
}
