package userheader

import (
	"net/url"
	"strings"
	"testing"
)

func FuzzHeaderValue(f *testing.F) {
	for _, s := range []string{"", "ada", "Ada Lovelace", " a ", "Zoë", "100%", "a\r\nX-Tandem-User: b", "\x00\xff", "日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v := value(s)
		if back, err := url.PathUnescape(v); err != nil || back != s {
			t.Errorf("%q became %q, which is %q, %v", s, v, back, err)
		}
		for i := range len(v) {
			if v[i] < 0x20 || v[i] > 0x7e {
				t.Errorf("%q holds %#x", v, v[i])
			}
		}
		if strings.TrimSpace(v) != v {
			t.Errorf("%q would be trimmed", v)
		}
	})
}
