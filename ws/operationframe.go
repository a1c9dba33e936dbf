package ws

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// The broadcast frame of an operation has two parts, so that a Backplane can
// number an operation without encoding it again, and the payload's bytes stay
// what the client sent:
//
//	{"type":"operation","epoch":"E","seq":N,        head: OperationHead
//	"id":"…",…,"payload":…,"at":"…"}                tail: Operation.FrameTail
const (
	operationHead = `{"type":"operation","epoch":"`
	operationSeq  = `","seq":`
)

// OperationHead returns the first part of an operation's frame. The epoch is
// taken as it is: Backplanes make them of characters that JSON need not escape.
func OperationHead(at Position) []byte {
	b := make([]byte, 0, len(operationHead)+len(at.Epoch)+len(operationSeq)+21)
	b = append(b, operationHead...)
	b = append(b, at.Epoch...)
	b = append(b, operationSeq...)
	b = strconv.AppendUint(b, at.Seq, 10)
	return append(b, ',')
}

// FrameTail returns the second part of the operation's frame. Payload, which
// must be valid JSON, is copied byte for byte.
func (op Operation) FrameTail() []byte {
	b := make([]byte, 0, 160+len(op.ID)+len(op.ConnectionID)+len(op.UserID)+len(op.Payload))
	b = appendString(append(b, `"id":`...), op.ID)
	b = appendString(append(b, `,"connection_id":`...), op.ConnectionID)
	b = appendString(append(b, `,"user_id":`...), op.UserID)
	b = append(b, `,"payload":`...)
	if len(op.Payload) == 0 {
		b = append(b, "null"...)
	}
	b = append(b, op.Payload...)
	b = append(b, `,"at":"`...)
	b = op.At.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	return append(b, `"}`...)
}

// ParseOperationHead reads the position out of a frame without decoding the
// rest of it. ok is false when frame does not begin like an operation.
func ParseOperationHead(frame []byte) (at Position, ok bool) {
	rest, ok := bytes.CutPrefix(frame, []byte(operationHead))
	if !ok {
		return Position{}, false
	}
	epoch, rest, ok := bytes.Cut(rest, []byte(operationSeq))
	if !ok {
		return Position{}, false
	}
	digits, _, ok := bytes.Cut(rest, []byte{','})
	if !ok {
		return Position{}, false
	}
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return Position{}, false
	}
	return Position{Epoch: string(epoch), Seq: seq}, true
}

func appendString(b []byte, s string) []byte {
	if plain(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // strings always encode
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

// plain reports whether s is the same within quotes as JSON. Most names are.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&': // the last three as encoding/json has it
			return false
		}
	}
	return true
}
