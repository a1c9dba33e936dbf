// Package userheader is how an application behind Tandem, or behind a proxy
// that asks Tandem, is told who is logged in.
package userheader

import (
	"fmt"
	"net/http"
	"strings"
)

// The headers. Values are percent-encoded where they have bytes that a header
// cannot carry safely, and "%" itself.
const (
	User     = "X-Tandem-User"      // user ID; absent when nobody is logged in
	UserName = "X-Tandem-User-Name" // user name, with the user ID only
	Session  = "X-Tandem-Session"   // the session's handle; absent without a session
)

// Set puts a user and a session's handle into a header; what is empty is left
// as it is.
func Set(h http.Header, user, name, handle string) {
	if user != "" {
		h.Set(User, value(user))
		h.Set(UserName, value(name))
	}
	if handle != "" {
		h.Set(Session, handle)
	}
}

// value makes s safe as a header's value: control characters, bytes
// beyond ASCII, spaces at the ends and "%" become %XX, so that decoding
// percent escapes (decodeURIComponent, url.PathUnescape) always gives s back.
func value(s string) string {
	escape := func(i int) bool {
		c := s[i]
		return c < 0x20 || c > 0x7e || c == '%' || c == ' ' && (i == 0 || i == len(s)-1)
	}
	first := 0
	for first < len(s) && !escape(first) {
		first++
	}
	if first == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:first])
	for i := first; i < len(s); i++ {
		if escape(i) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
