package sessionstore

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// KeyRing holds the keys that stored values are sealed with. The first seals,
// all open; so a new key is put first, and an old one is taken out when the
// sessions that it sealed have ended: after Config.AbsoluteTimeout. All
// replicas need a key before the first of them seals with it: add it last,
// then move it to the front. Safe for concurrent use.
type KeyRing struct {
	keys atomic.Pointer[[]sealKey]
}

// sealKey is a key with its name in sealed values.
type sealKey struct {
	id   [keyIDBytes]byte
	aead cipher.AEAD
}

const (
	keyBytes   = 32
	keyIDBytes = 8

	// sealMark begins every sealed value, followed by the key's ID, a nonce
	// and the ciphertext. No JSON and no gob begins like this.
	sealMark = "\x00tandem sealed 1\x00"
)

// NewKeyRing returns a ring of keys of 32 random bytes each.
func NewKeyRing(keys ...[]byte) (*KeyRing, error) {
	r := &KeyRing{}
	if err := r.Replace(keys...); err != nil {
		return nil, err
	}
	return r, nil
}

// Replace puts other keys in the place of all in the ring. On an error those
// stay.
func (r *KeyRing) Replace(keys ...[]byte) error {
	if len(keys) == 0 {
		return errors.New("sessionstore: a key ring without a key")
	}
	ring := make([]sealKey, len(keys))
	for i, key := range keys {
		if len(key) != keyBytes {
			return fmt.Errorf("sessionstore: seal key %d has %d bytes, %d are needed", i+1, len(key), keyBytes)
		}
		sum := sha256.Sum256(append([]byte("tandem seal key ID\x00"), key...))
		ring[i] = sealKey{id: [keyIDBytes]byte(sum[:]), aead: gcm(key)}
	}
	r.keys.Store(&ring)
	return nil
}

// ParseKeys reads keys from text: 32 bytes in base64 a line, the one that
// seals first. Empty lines and those that begin with # are passed over. Its
// errors name lines, and hold nothing of a key.
func ParseKeys(text []byte) ([][]byte, error) {
	var keys [][]byte
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.AppendDecode(nil, line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d is not %d bytes in base64", number, keyBytes)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key")
	}
	return keys, nil
}

// seal makes of a serialized value what is stored under key.
func (r *KeyRing) seal(raw, key string) string {
	k := &(*r.keys.Load())[0]
	sealed := make([]byte, 0, len(sealMark)+keyIDBytes+k.aead.Overhead()+len(raw))
	sealed = append(append(sealed, sealMark...), k.id[:]...)
	return string(k.aead.Seal(sealed, nil, []byte(raw), sealedFor(sealed, key)))
}

// open is the inverse of seal. It fails for a value that was sealed for
// another key of Redis, or by a key that the ring does not have.
func (r *KeyRing) open(sealed, key string) (string, error) {
	if len(sealed) < len(sealMark)+keyIDBytes {
		return "", errors.New("sealed value is cut short")
	}
	head, rest := sealed[:len(sealMark)+keyIDBytes], sealed[len(sealMark)+keyIDBytes:]
	for _, k := range *r.keys.Load() {
		if string(k.id[:]) == head[len(sealMark):] {
			raw, err := k.aead.Open(nil, nil, []byte(rest), sealedFor([]byte(head), key))
			return string(raw), err
		}
	}
	return "", errors.New("no key of the ring opens it")
}

// isSealed tells sealed values from plain ones.
func isSealed(held string) bool { return strings.HasPrefix(held, sealMark) }

// sealedFor is the additional data that ties a sealed value to its head and
// its place: moved under another session's key it does not open.
func sealedFor(head []byte, key string) []byte {
	return append(bytes.Clone(head), key...)
}

// seal makes of a serialized session what is stored of it at r.
func (f *Factory) seal(raw string, r ref) string {
	if f.cfg.Seal == nil {
		return raw
	}
	return f.cfg.Seal.seal(raw, f.valueKey(r))
}

// open makes of what is stored at r the serialized session. What is not
// sealed is taken as it is, with a key ring too: from before there was one.
// The error wraps ErrUndecodable.
func (f *Factory) open(held string, r ref) (string, error) {
	switch {
	case !isSealed(held):
		return held, nil
	case f.cfg.Seal == nil:
		return "", fmt.Errorf("%w: it is sealed, and there are no keys", ErrUndecodable)
	}
	raw, err := f.cfg.Seal.open(held, f.valueKey(r))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	return raw, nil
}
