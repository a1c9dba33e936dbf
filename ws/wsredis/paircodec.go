package wsredis

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/seed-6230208e/tandem/ws"
)

var errBatch = errors.New("batch cannot be read")

// encodeMessages writes each message as its kind, its length and its bytes.
func encodeMessages(messages []ws.PairMessage) []byte {
	size := 0
	for _, m := range messages {
		size += 1 + binary.MaxVarintLen32 + len(m.Data)
	}
	b := make([]byte, 0, size)
	for _, m := range messages {
		b = append(b, byte(m.Kind))
		b = binary.AppendUvarint(b, uint64(len(m.Data)))
		b = append(b, m.Data...)
	}
	return b
}

// decodeBatch reads what pair_post.lua stores: the index of the first message,
// a blank, the messages. The result shares data's memory.
func decodeBatch(data []byte) (ws.PairBatch, error) {
	head, rest, found := bytes.Cut(data, []byte{' '})
	first, err := strconv.ParseUint(string(head), 10, 64)
	if !found || err != nil {
		return ws.PairBatch{}, errBatch
	}
	batch := ws.PairBatch{First: first}
	for len(rest) > 0 {
		kind := ws.PairKind(rest[0])
		length, n := binary.Uvarint(rest[1:])
		if n <= 0 || length > uint64(len(rest)-1-n) {
			return ws.PairBatch{}, errBatch
		}
		switch kind {
		case ws.PairText, ws.PairBinary, ws.PairValue:
		default:
			return ws.PairBatch{}, errBatch
		}
		rest = rest[1+n:]
		batch.Messages = append(batch.Messages, ws.PairMessage{Kind: kind, Data: rest[:length:length]})
		rest = rest[length:]
	}
	if len(batch.Messages) == 0 {
		return ws.PairBatch{}, errBatch
	}
	return batch, nil
}
