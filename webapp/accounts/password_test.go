package accounts

import (
	"strings"
	"testing"
)

// What the reference implementation writes is read: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32.
func TestReferenceDigest(t *testing.T) {
	const phc = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	h := newHasher(cheap, 1)
	if !h.matches(phc, "password") {
		t.Error("the right password does not match")
	}
	if h.matches(phc, "Password") {
		t.Error("a wrong password matches")
	}
}

func TestDigestsDiffer(t *testing.T) {
	h := newHasher(cheap, 1)
	a, b := h.hash("password"), h.hash("password")
	if a == b {
		t.Error("two hashes of one password share a salt")
	}
	if !strings.HasPrefix(a, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("not a PHC string with its parameters: %s", a)
	}
	if !h.matches(a, "password") || h.matches("", "password") || h.matches(a[:len(a)-1], "password") {
		t.Error("matches is wrong")
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(newDigest(cheap, "password").String())
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2i$v=19$m=8,t=1,p=1$$")
	f.Add("")
	f.Fuzz(func(t *testing.T, phc string) {
		d, err := parseDigest(phc)
		if err != nil {
			return
		}
		if err := d.check(); err != nil {
			t.Error(err)
		}
		if again, err := parseDigest(d.String()); err != nil || again.String() != d.String() {
			t.Errorf("%q does not survive a round trip: %v", phc, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	h := newHasher(DefaultHash, 1)
	phc := h.hash("password")
	for b.Loop() {
		h.matches(phc, "password")
	}
}
