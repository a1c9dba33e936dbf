package sessionstore

import (
	"strings"
	"testing"
)

func TestDecodeNews(t *testing.T) {
	handle := strings.Repeat("a", 26)
	for payload, want := range map[string]news{
		`{"t":"ended","sid":"` + handle + `","reason":"logout"}`:   {newsEnded, handle, ReasonLogout},
		`{"t":"ended","sid":"` + handle + `","reason":"<b>"}`:      {newsEnded, handle, ReasonRevoked},
		`{"t":"changed","sid":"` + handle + `","reason":"logout"}`: {newsChanged, handle, ""},
		`{"t":"rotated","sid":"` + handle + `","more":1}`:          {newsRotated, handle, ""},
	} {
		if got, err := decodeNews(payload); err != nil || got != want {
			t.Errorf("%s: %v, %v", payload, got, err)
		}
	}
	for _, payload := range []string{
		``, `[]`, `{}`, `{"t":"ended"}`, `{"t":"ended","sid":"` + strings.ToUpper(handle) + `"}`, `{"t":"new","sid":"` + handle + `"}`,
	} {
		if got, err := decodeNews(payload); err == nil {
			t.Errorf("%s: %v", payload, got)
		}
	}
}

func FuzzDecodeNews(f *testing.F) {
	f.Add(`{"t":"ended","sid":"aaaaaaaaaaaaaaaaaaaaaaaaaa","reason":"logout"}`)
	f.Add(`{"t":"changed","sid":"aaaaaaaaaaaaaaaaaaaaaaaaaa"}`)
	f.Add(`{"sid":{}}`)
	f.Fuzz(func(t *testing.T, payload string) {
		n, err := decodeNews(payload)
		if err != nil {
			return
		}
		if !ValidHandle(n.Handle) || (n.What == newsEnded) == (n.Reason == "") {
			t.Errorf("%q became %v", payload, n)
		}
	})
}
