package sessionstore

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

const (
	idBytes     = 64 // as redisstore/v9 makes them
	idLength    = 103
	handleBytes = 16
	handleLen   = 26
)

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewID returns a random session ID in the form that redisstore/v9 uses:
// 103 characters of A-Z2-7. It is a secret: never log or show it.
func NewID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return idEncoding.EncodeToString(b[:])
}

// ValidID reports whether id has the form of a session ID. What has not is
// never used as a key and never echoed.
func ValidID(id string) bool {
	if len(id) != idLength {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// NewHandle returns a random handle: 26 characters of a-z2-7. It names a
// session wherever its ID must not be seen.
func NewHandle() string {
	var b [handleBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(idEncoding.EncodeToString(b[:]))
}

// ValidHandle reports whether h has the form of a handle.
func ValidHandle(h string) bool {
	if len(h) != handleLen {
		return false
	}
	for i := range len(h) {
		if c := h[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
