package ws

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/gorilla/websocket"
)

const typeMessage = "message"

// Frames of the tandem.pair.v1 protocol.
type (
	pairedFrame struct {
		Type     string `json:"type"`
		UniqueID string `json:"unique_id"`
		Side     Side   `json:"side"`
	}
	// undeliveredFrame is an error frame with the number of messages that it is
	// about, and the IDs of those that had one.
	undeliveredFrame struct {
		errorFrame
		Count int      `json:"count"`
		IDs   []string `json:"ids,omitempty"`
	}
)

func undelivered(count int, ids []string) undeliveredFrame {
	return undeliveredFrame{errorFrame{
		Type: "error", Code: CodeUnavailable,
		Message: "the counterpart left before it got the last messages; they may be sent again",
	}, count, ids}
}

// messageData reads the data of a client's message frame: any JSON value.
func messageData(req request) (json.RawMessage, error) {
	var body struct {
		Data json.RawMessage `json:"data"`
	}
	if err := req.body(&body); err != nil {
		return nil, err
	}
	if body.Data == nil {
		return nil, errors.New("data: missing")
	}
	return body.Data, nil
}

// pairOut is one thing to write: a frame, or a message with its number.
type pairOut struct {
	frame   []byte // nil: it is a message
	message PairMessage
	index   uint64
	from    Side
	unique  string // empty: relayed
}

// render returns the frame as this client gets it, and its kind. Messages are
// rendered one at a time, when they are written.
func (o pairOut) render(json bool) (kind int, data []byte) {
	switch {
	case o.frame != nil:
		return websocket.TextMessage, o.frame
	case json:
		return websocket.TextMessage, o.messageFrame()
	case o.unique != "":
		return websocket.TextMessage, o.echo()
	case o.message.Kind == PairBinary:
		return websocket.BinaryMessage, o.message.Data
	case o.message.Kind == PairValue:
		return websocket.TextMessage, textOf(o.message.Data)
	default:
		return websocket.TextMessage, o.message.Data
	}
}

func (o pairOut) echo() []byte {
	const blank = " | "
	b := make([]byte, 0, len(o.unique)+len(o.message.Data)+2*len(blank)+20)
	b = append(b, o.unique...)
	b = append(b, blank...)
	b = strconv.AppendUint(b, o.index, 10)
	b = append(b, blank...)
	return append(b, o.message.Data...)
}

// messageFrame is for a client that speaks JSON. What a plain counterpart sent
// is a string; its binary messages are in base64, and marked.
func (o pairOut) messageFrame() []byte {
	b := openFrame(typeMessage, "")
	b = append(b, `,"index":`...)
	b = strconv.AppendUint(b, o.index, 10)
	b = appendField(b, "from", o.from)
	switch o.message.Kind {
	case PairBinary:
		b = append(b, `,"binary":true,"data":"`...)
		b = base64.StdEncoding.AppendEncode(b, o.message.Data)
		b = append(b, '"')
	case PairValue:
		b = append(b, `,"data":`...)
		b = append(b, o.message.Data...)
	default:
		b = appendField(b, "data", string(o.message.Data))
	}
	return append(b, '}')
}

// textOf is a JSON value for a plain client: a string is its text, anything
// else its JSON.
func textOf(value []byte) []byte {
	var s string
	if firstByte(value) == '"' && json.Unmarshal(value, &s) == nil {
		return []byte(s)
	}
	return value
}
