package wsredis

import (
	"bytes"
	"reflect"
	"strconv"
	"testing"

	"github.com/seed-6230208e/tandem/ws"
)

func TestBatchCodec(t *testing.T) {
	messages := []ws.PairMessage{
		{Kind: ws.PairText, Data: []byte("a b")},
		{Kind: ws.PairBinary, Data: bytes.Repeat([]byte{0xff, 0}, 300)},
		{Kind: ws.PairValue, Data: []byte(`{"n":1}`)},
		{Kind: ws.PairText, Data: []byte{}},
	}
	b, err := decodeBatch(append([]byte("12345678901 "), encodeMessages(messages)...))
	if err != nil || b.First != 12345678901 || !reflect.DeepEqual(b.Messages, messages) {
		t.Errorf("%+v, %v", b, err)
	}
}

// FuzzBatch: what cannot be read is an error, what can is written the same way.
func FuzzBatch(f *testing.F) {
	for _, seed := range []string{"", "0 ", "1 t\x01x", "1 b\x00v\x02{}", "x t\x01x", "1 t\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", "1 ?\x01x", "1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBatch(data)
		if err != nil {
			return
		}
		again, err := decodeBatch(append([]byte(strconv.FormatUint(b.First, 10)+" "), encodeMessages(b.Messages)...))
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%+v, %v, not %+v", again, err, b)
		}
	})
}

// What a reply may look like after a change of the scripts, or of the hash by
// somebody else: an error, never a state that is half made up.
func TestReadClaim(t *testing.T) {
	whole := []any{int64(1), "u", "echo", "", "", "", "7", "", "", "", "", ""}
	state, _, err := readClaim(whole)
	if err != nil || state.Unique != "u" || state.Sent != 7 {
		t.Errorf("%+v, %v", state, err)
	}
	for i := range whole {
		if _, _, err := readClaim(whole[:i]); err == nil {
			t.Errorf("%d values: no error", i)
		}
		bad := append([]any{}, whole...)
		bad[i] = int64(-1)
		if _, _, err := readClaim(bad); err == nil {
			t.Errorf("bad value %d: no error", i)
		}
	}
	state, holder, err := readClaim([]any{int64(0), "conn", "replica", "other", "there"})
	if err != nil || holder != (pairHolder{"conn", "replica"}) || state.across != (pairHolder{"other", "there"}) {
		t.Errorf("%+v %+v, %v", holder, state.across, err)
	}
}
