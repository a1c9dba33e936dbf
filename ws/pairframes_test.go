package ws

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// FuzzPairMessage: whatever a client sends as data comes out as valid JSON for
// one counterpart, and as a text frame for the other.
func FuzzPairMessage(f *testing.F) {
	for _, seed := range []string{`{"type":"message","data":1}`, `{"type":"message","data":"\ud800"}`, `{"data":null}`, `{"data":[{"a":"é"}]}`, `x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := decodeRequest(data)
		if err != nil {
			return
		}
		value, err := messageData(req)
		if err != nil {
			return
		}
		o := pairOut{message: PairMessage{PairValue, value}, index: 7, from: Left}
		if _, frame := o.render(true); !json.Valid(frame) {
			t.Errorf("%s", frame)
		}
		if _, text := o.render(false); !utf8.Valid(text) {
			t.Errorf("%q", text)
		}
		o.message = PairMessage{PairText, data}
		if _, frame := o.render(true); !json.Valid(frame) {
			t.Errorf("%s", frame)
		}
	})
}
