package ws

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
	"unicode/utf8"
)

// Types of the frames that clients send.
const (
	typeAuthenticate = "authenticate"
	typeJoin         = "join_document"
	typeLeave        = "leave_document"
	typeOperation    = "operation"
	typePresence     = "presence"
	typeSync         = "sync_request"
	typeSnapshot     = "snapshot"
	typeSessionGet   = "session_get"
	typeSessionSet   = "session_set"
	typePing         = "ping"
)

// ErrorCode is the code of an error frame.
type ErrorCode string

// Every code of an error frame.
const (
	CodeAuthRequired  ErrorCode = "AUTH_REQUIRED"  // authenticate first
	CodeNotJoined     ErrorCode = "NOT_JOINED"     // join_document first
	CodeAlreadyJoined ErrorCode = "ALREADY_JOINED" // joined already
	CodeBadMessage    ErrorCode = "BAD_MESSAGE"    // not one JSON object in a text frame, or a field is missing or of the wrong kind
	CodeUnknownType   ErrorCode = "UNKNOWN_TYPE"   // no such type
	CodeTooLarge      ErrorCode = "TOO_LARGE"      // over a size limit
	CodeRateLimited   ErrorCode = "RATE_LIMITED"   // not processed; send it again later
	CodeForbidden     ErrorCode = "FORBIDDEN"      // this session may not
	CodeUnavailable   ErrorCode = "UNAVAILABLE"    // Redis is away: nothing was done, or it is unknown; send it again later
	CodeConflict      ErrorCode = "CONFLICT"       // does not fit the document's log
)

// Bounds of what a client may put into a frame.
const (
	maxIDBytes    = 64
	maxDepth      = 128     // nested objects and arrays
	maxStateBytes = 4 << 10 // presence state: everybody's goes to everybody
)

// request is one frame of a client: what all have in common, and every field
// of it for the handler of its type.
type request struct {
	Type   string
	ID     string
	fields fields
}

// decodeRequest reads what all frames have in common. Its error is fit to be
// shown to the client. On an error the ID is the one to answer to, if there
// is a usable one.
func decodeRequest(data []byte) (request, error) {
	var req request
	switch {
	case !utf8.Valid(data):
		return req, errors.New("the frame is not UTF-8")
	case tooDeep(data, maxDepth):
		return req, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	var err error
	if req.fields, err = splitFields(data); err != nil {
		return req, errors.New("one JSON object is expected")
	}
	var wrongType, wrongID error
	req.Type, wrongType = req.text("type")
	req.ID, wrongID = req.text("id")
	if len(req.ID) > maxIDBytes {
		return request{fields: req.fields}, fmt.Errorf("id: at most %d bytes are allowed", maxIDBytes)
	}
	if err = cmp.Or(wrongType, wrongID); err == nil && req.Type == "" {
		err = errNoType
	}
	return req, err
}

// text reads a field that is a string; null is none.
func (r request) text(name string) (text string, err error) {
	raw, ok := r.fields.get(name)
	switch {
	case !ok:
		return "", nil
	case raw[0] == '"':
		return unquote(raw), nil
	}
	return "", wrongKind(name, json.Unmarshal(raw, &text))
}

var errNoType = errors.New("type: missing")

// body decodes the fields that belong to the request's type into a struct,
// each named by its json tag; all others are ignored. encoding/json alone
// would take "ID" for "id". On an error the other fields are decoded.
func (r request) body(into any) (err error) {
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		raw, ok := r.fields.get(name)
		switch field := v.Field(i).Addr().Interface().(type) {
		case *json.RawMessage:
			*field = raw
		default:
			if ok {
				err = cmp.Or(err, wrongKind(name, json.Unmarshal(raw, field)))
			}
		}
	}
	return err
}

// wrongKind says what is wrong with a field. All is valid JSON here.
func wrongKind(name string, err error) error {
	var wrongType *json.UnmarshalTypeError
	if !errors.As(err, &wrongType) {
		return err
	}
	if wrongType.Field != "" {
		name += "." + wrongType.Field
	}
	return fmt.Errorf("%s: wrong kind of value: %s", name, wrongType.Value)
}

// firstByte returns the first byte of data that is not white space, or 0.
func firstByte(data []byte) byte {
	for _, b := range data {
		switch b {
		case ' ', '\t', '\r', '\n':
		default:
			return b
		}
	}
	return 0
}

// tooDeep reports whether data nests deeper than limit. It looks at brackets
// outside strings only; whether data is JSON is for the decoder to say.
func tooDeep(data []byte, limit int) bool {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch b := data[i]; {
		case inString:
			if b == '\\' {
				i++
			} else if b == '"' {
				inString = false
			}
		case b == '"':
			inString = true
		case b == '{', b == '[':
			if depth++; depth > limit {
				return true
			}
		case b == '}', b == ']':
			depth--
		}
	}
	return false
}

// Frames that the server sends as text.
type (
	helloFrame struct {
		Type            string `json:"type"`
		ConnectionID    string `json:"connection_id"`
		Replica         string `json:"replica"`
		HeartbeatMS     int64  `json:"heartbeat_ms"`
		MaxMessageBytes int64  `json:"max_message_bytes"`
	}
	authFrame struct {
		Type    string       `json:"type"`
		Re      string       `json:"re,omitempty"`
		OK      bool         `json:"ok"`
		Code    ErrorCode    `json:"code,omitempty"`
		User    *userInfo    `json:"user,omitempty"`
		Session *sessionInfo `json:"session,omitempty"`
		Color   string       `json:"color,omitempty"`
	}
	userInfo struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	sessionInfo struct {
		Handle    string    `json:"handle"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	plainFrame struct {
		Type string `json:"type"`
		Re   string `json:"re,omitempty"`
	}
	ackFrame struct {
		Type      string `json:"type"`
		Re        string `json:"re"`
		Epoch     string `json:"epoch"`
		Seq       uint64 `json:"seq"`
		Duplicate bool   `json:"duplicate"`
	}
	snapshotAckFrame struct {
		Type string `json:"type"`
		Re   string `json:"re,omitempty"`
		Seq  uint64 `json:"seq"`
	}
	valuesFrame struct {
		Type   string                     `json:"type"`
		Re     string                     `json:"re,omitempty"`
		Values map[string]json.RawMessage `json:"values"`
	}
	changedFrame struct {
		Type   string                     `json:"type"`
		Set    map[string]json.RawMessage `json:"set"`
		Delete []string                   `json:"delete"`
	}
	expiringFrame struct {
		Type string `json:"type"`
		InMS int64  `json:"in_ms"`
	}
	laggedFrame struct {
		Type    string `json:"type"`
		Channel string `json:"channel"`
		Dropped uint64 `json:"dropped"`
		Epoch   string `json:"epoch"`
		Seq     uint64 `json:"seq"`
	}
	statusFrame struct {
		Type  string `json:"type"`
		Redis string `json:"redis"`
	}
	reconnectFrame struct {
		Type    string `json:"type"`
		AfterMS int64  `json:"after_ms"`
	}
	errorFrame struct {
		Type         string    `json:"type"`
		Re           string    `json:"re,omitempty"`
		Code         ErrorCode `json:"code"`
		Message      string    `json:"message"`
		RetryAfterMS int64     `json:"retry_after_ms,omitempty"`
	}
)

// encode returns the JSON of one of the frames above.
func encode(f any) []byte {
	data, err := json.Marshal(f)
	if err != nil {
		// Only raw JSON in them can fail, and all of it was decoded before.
		panic("ws: frame: " + err.Error())
	}
	return data
}

// joinedFrame builds the reply to join_document. Frames of operations, the
// snapshot and the list of those present go in as they are: nothing is encoded
// twice.
func joinedFrame(re, document string, h History, present []byte) []byte {
	b := openFrame("joined_document", re)
	b = appendField(b, "document", document)
	b = appendField(b, "epoch", h.Epoch)
	b = appendField(b, "seq", h.Head)
	b = appendHistory(b, h)
	b = append(b, `,"presence":`...)
	b = append(b, present...)
	return append(b, '}')
}

// syncFrame builds the reply to sync_request. present is nil unless the
// client lost presence frames and needs everybody again.
func syncFrame(re string, h History, present []byte) []byte {
	from := h.Head + 1
	if len(h.Entries) > 0 {
		from = h.Entries[0].Seq
	}
	b := openFrame("sync_response", re)
	b = appendField(b, "epoch", h.Epoch)
	b = appendField(b, "from", from)
	b = appendField(b, "to", h.Head)
	b = appendHistory(b, h)
	if present != nil {
		b = append(b, `,"presence":`...)
		b = append(b, present...)
	}
	return append(b, '}')
}

func appendHistory(b []byte, h History) []byte {
	b = appendField(b, "recovered", h.Recovered)
	b = append(b, `,"snapshot":`...)
	if h.Snapshot == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, `{"seq":`...)
		b = append(b, encode(h.SnapshotSeq)...)
		b = append(b, `,"payload":`...)
		b = append(b, h.Snapshot...)
		b = append(b, '}')
	}
	b = append(b, `,"operations":[`...)
	for i, e := range h.Entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.Frame...)
	}
	b = append(b, ']')
	return appendField(b, "more", h.More)
}

func openFrame(kind, re string) []byte {
	b := append([]byte(`{"type":"`), kind...)
	b = append(b, '"')
	if re != "" {
		b = appendField(b, "re", re)
	}
	return b
}

func appendField(b []byte, name string, value any) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return append(b, encode(value)...)
}
