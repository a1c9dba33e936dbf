package sessionstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// ref names a session in Redis: in keys, records and tombstones. It is the
// ID itself, or with [Config].HashIDs the ID's SHA-256 in hex, of which
// nobody can make a cookie. A client never names a session by its ref.
type ref string

// isRef reports whether s has the form of a ref, of either kind: replicas
// with and without HashIDs may have written it.
func isRef(s string) bool {
	if len(s) != hex.EncodedLen(sha256.Size) {
		return ValidID(s)
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

// place is where a session is: by its ref in Redis, and by its ID for the
// client. The ID is empty where only the ref is known.
type place struct {
	id  string
	ref ref
}

// placeOf is the place of an ID, which has the form of one.
func (f *Factory) placeOf(id string) place {
	if !f.cfg.HashIDs {
		return place{id, ref(id)}
	}
	sum := sha256.Sum256([]byte(id))
	return place{id, ref(hex.EncodeToString(sum[:]))}
}

// placeAt is the place that a ref in Redis names.
func (f *Factory) placeAt(r ref) place {
	if !f.cfg.HashIDs && ValidID(string(r)) {
		return place{string(r), r}
	}
	return place{ref: r}
}

// errNoID refuses what needs the session's ID where only its ref is known.
var errNoID = errors.New("sessionstore: IDs are hashed, and this session was not loaded by its ID")

// handover is what the next key of an old place holds for its client: the new
// ID. With hashed IDs it is veiled by the old one, so that it is of use to
// those alone who have that.
func (f *Factory) handover(old place, newID string) string {
	if !f.cfg.HashIDs {
		return newID
	}
	return veil(old.id, "next", newID)
}

// takeOver is the inverse of handover.
func (f *Factory) takeOver(old place, next string) (newID string, ok bool) {
	if f.cfg.HashIDs {
		var err error
		if next, err = unveil(old.id, "next", next); err != nil {
			return "", false
		}
	}
	return next, ValidID(next)
}

// veil encrypts text so that who knows the secret, a random one of at least
// 128 bits, can read it, and Redis cannot.
func veil(secret, purpose, text string) string {
	return string(veilCipher(secret, purpose).Seal(nil, nil, []byte(text), nil))
}

func unveil(secret, purpose, veiled string) (string, error) {
	text, err := veilCipher(secret, purpose).Open(nil, nil, []byte(veiled), nil)
	if err != nil {
		return "", fmt.Errorf("sessionstore: %s: %w", purpose, err)
	}
	return string(text), nil
}

func veilCipher(secret, purpose string) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "tandem "+purpose, 32)
	if err != nil {
		panic(err) // only for keys of many kilobytes
	}
	return gcm(key)
}

// gcm is AES-256-GCM, which puts a random nonce before what it seals. The
// key has 32 bytes.
func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the length is wrong
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // not with AES
	}
	return aead
}
