package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

// Params are the cost of an argon2id hash.
type Params struct {
	Memory  uint32 // KiB, 8 to 1 GiB
	Time    uint32 // passes, 1 to 64
	Threads uint8  // 1 to 16
}

// DefaultHash is the cost that OWASP's password storage cheat sheet asks for.
var DefaultHash = Params{Memory: 19 * 1024, Time: 2, Threads: 1}

// check bounds the cost: a stored value must not be able to take all memory.
func (p Params) check() error {
	if p.Threads < 1 || p.Threads > 16 || p.Time < 1 || p.Time > 64 ||
		p.Memory < 8*uint32(p.Threads) || p.Memory > 1<<20 {
		return fmt.Errorf("argon2id cost out of range: %+v", p)
	}
	return nil
}

const (
	saltBytes = 16
	keyBytes  = 32
)

// digest is a password hash with all it takes to make it again.
type digest struct {
	Params
	salt, key []byte
}

func newDigest(p Params, password string) digest {
	d := digest{Params: p, salt: make([]byte, saltBytes)}
	rand.Read(d.salt) // never fails
	d.key = d.derive(password)
	return d
}

func (d digest) derive(password string) []byte {
	return argon2.IDKey([]byte(password), d.salt, d.Time, d.Memory, d.Threads, keyBytes)
}

// String is the PHC string, readable by every argon2 library.
func (d digest) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		d.Memory, d.Time, d.Threads, b64.EncodeToString(d.salt), b64.EncodeToString(d.key))
}

func parseDigest(phc string) (digest, error) {
	fields := strings.Split(phc, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return digest{}, errors.New("not an argon2id PHC string")
	}
	var d digest
	if _, err := fmt.Sscanf(fields[3]+"\n", "m=%d,t=%d,p=%d\n", &d.Memory, &d.Time, &d.Threads); err != nil {
		return digest{}, fmt.Errorf("argon2id parameters: %w", err)
	}
	if err := d.check(); err != nil {
		return digest{}, err
	}
	var err error
	if d.salt, err = base64.RawStdEncoding.Strict().DecodeString(fields[4]); err != nil {
		return digest{}, fmt.Errorf("argon2id salt: %w", err)
	}
	if d.key, err = base64.RawStdEncoding.Strict().DecodeString(fields[5]); err != nil {
		return digest{}, fmt.Errorf("argon2id key: %w", err)
	}
	if len(d.salt) < 8 || len(d.key) != keyBytes {
		return digest{}, errors.New("argon2id salt or key of a wrong length")
	}
	return d, nil
}

// hasher hashes a bounded number of passwords at once.
type hasher struct {
	params  Params
	decoy   digest        // what an unknown name is compared with
	turns   chan struct{} // a token for each hash under way
	waiting *atomic.Int32 // callers in do, bounded by maxWaiting
	most    int32
}

func newHasher(p Params, concurrent int) hasher {
	decoy := digest{Params: p, salt: make([]byte, saltBytes), key: make([]byte, keyBytes)}
	rand.Read(decoy.salt)
	rand.Read(decoy.key) // no password that anybody knows has this key
	return hasher{
		params: p, decoy: decoy,
		turns:   make(chan struct{}, concurrent),
		waiting: new(atomic.Int32),
		most:    int32(concurrent) * 65,
	}
}

// do calls fn when it is this caller's turn. Those who come when the queue
// is full are turned away with ErrBusy rather than made to wait for minutes.
func (h hasher) do(ctx context.Context, fn func() error) error {
	if h.waiting.Add(1) > h.most {
		h.waiting.Add(-1)
		return ErrBusy
	}
	defer h.waiting.Add(-1)
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
		return fn()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
}

func (h hasher) hash(password string) string { return newDigest(h.params, password).String() }

// matches compares in constant time. Without a hash (an unknown name) it does
// the same work for nothing.
func (h hasher) matches(phc, password string) bool {
	d, err := parseDigest(phc)
	if err != nil {
		d = h.decoy
	}
	if len(password) > 1024 {
		password = "" // no account has it; do not hash megabytes
	}
	same := subtle.ConstantTimeCompare(d.derive(password), d.key) == 1
	return same && err == nil
}
