package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// handler serves one type of frame.
type handler struct {
	serve   func(*conn, request)
	joined  bool // only while joined, else NOT_JOINED
	passive bool // does not count as activity of the session
}

// handlers has every type of frame there is. All but authenticate need an
// authenticated connection.
var handlers map[string]handler

func init() {
	handlers = map[string]handler{
		typeAuthenticate: {serve: (*conn).authenticate, passive: true},
		typeJoin:         {serve: (*conn).join},
		typeLeave:        {serve: (*conn).leave, joined: true},
		typeOperation:    {serve: (*conn).operation, joined: true},
		typePresence:     {serve: (*conn).presence, joined: true},
		typeSync:         {serve: (*conn).sync, joined: true},
		typeSnapshot:     {serve: (*conn).snapshot, joined: true},
		typeSessionGet:   {serve: (*conn).sessionGet},
		typeSessionSet:   {serve: (*conn).sessionSet},
		typePing:         {serve: (*conn).pong, passive: true},
	}
}

// maxBadFrames is how many bad frames in a row are answered before the
// connection is closed for protocol abuse.
const maxBadFrames = 100

// handle serves one frame. It runs on the worker and may wait for Redis.
func (c *conn) handle(in inbound) {
	if in.err != nil {
		c.badFrame(in.ID, CodeBadMessage, in.err.Error())
		return
	}
	if c.binding == nil && in.Type != typeAuthenticate {
		c.fail(in.ID, CodeAuthRequired, "authenticate first")
		return
	}
	h, known := handlers[in.Type]
	if !known {
		c.badFrame(in.ID, CodeUnknownType, "unknown type "+string(encode(shorten(in.Type))))
		return
	}
	c.bad = 0
	if !h.passive {
		c.binding.Touch()
	}
	if h.joined && c.doc == nil {
		c.fail(in.ID, CodeNotJoined, "join_document first")
		return
	}
	h.serve(c, in.request)
}

// badFrame answers a frame that no client should send, and loses patience
// after too many.
func (c *conn) badFrame(re string, code ErrorCode, message string) {
	c.fail(re, code, message)
	if c.bad++; c.bad >= maxBadFrames {
		c.close(closeAbuse)
	}
}

// unavailable answers that Redis is away.
func (c *conn) unavailable(re string, err error) {
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, sessionstore.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		c.logger().Error("a socket's request failed", "err", err)
	}
	c.fail(re, CodeUnavailable, "Redis is away; send it again later")
}

func (c *conn) pong(req request) { c.reply(plainFrame{Type: "pong", Re: req.ID}) }

func (c *conn) operation(req request) {
	payload, ok := req.fields.get("payload")
	switch {
	case req.ID == "":
		c.badFrame("", CodeBadMessage, "id: an operation needs one of 1 to 64 bytes")
		return
	case !ok:
		c.badFrame(req.ID, CodeBadMessage, "payload: missing")
		return
	case !c.hub.available.Load():
		c.hub.metrics.appends.WithLabelValues("unavailable").Inc()
		c.unavailable(req.ID, ErrUnavailable)
		return
	}
	if err := c.may(ActionWrite); err != nil {
		c.refuseAccess(req.ID, ActionWrite, err)
		return
	}
	ack, err := c.hub.append(c.hub.ctx, c.document, Operation{
		ID: req.ID, UserID: c.who.user, ConnectionID: c.id, Payload: payload, At: time.Now(),
	}, c.doc)
	if err != nil {
		c.unavailable(req.ID, err)
		return
	}
	c.reply(ackFrame{"ack", req.ID, ack.Epoch, ack.Seq, ack.Duplicate})
}

// append hands an operation to the backplane. It is not interrupted when its
// connection goes: then nobody would know whether it took effect. d is the
// document where it is open here, or nil.
func (h *Hub) append(ctx context.Context, document string, op Operation, d *document) (Ack, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var known Position
	if d != nil {
		known = d.newest()
	}
	began := time.Now()
	ack, err := h.cfg.Backplane.Append(ctx, document, op, known)
	result := "appended"
	switch {
	case errors.Is(err, ErrUnavailable):
		result = "unavailable"
	case err != nil:
		result = "failed"
	case ack.Duplicate:
		result = "duplicate"
	}
	h.metrics.appended(result, time.Since(began))
	if err == nil && d != nil && !ack.Duplicate {
		d.appended(ack.Position)
	}
	return ack, err
}

func (c *conn) presence(req request) {
	var body struct {
		State json.RawMessage `json:"state"`
	}
	switch err := req.body(&body); {
	case err != nil:
		c.badFrame(req.ID, CodeBadMessage, err.Error())
	case body.State == nil:
		c.badFrame(req.ID, CodeBadMessage, "state: missing")
	case len(body.State) > maxStateBytes:
		c.fail(req.ID, CodeTooLarge, "state: at most 4096 bytes are allowed")
	default:
		// The frame's buffer is not kept alive for its state.
		c.doc.setState(c, bytes.Clone(body.State))
	}
}

func (c *conn) sync(req request) {
	var body struct {
		Since *Position `json:"since"`
	}
	if err := req.body(&body); err != nil {
		c.badFrame(req.ID, CodeBadMessage, err.Error())
		return
	}
	ctx, cancel := c.call()
	defer cancel()
	h, err := c.hub.cfg.Backplane.History(ctx, c.document, body.Since, maxReplyBytes)
	if err != nil {
		c.unavailable(req.ID, err)
		return
	}
	c.mu.Lock()
	lost := c.out.lostPresence
	c.mu.Unlock()
	var present []byte
	if lost {
		present = c.doc.present(c)
	}
	c.replyRaw(syncFrame(req.ID, h, present))
}

func (c *conn) snapshot(req request) {
	var body struct {
		Epoch   string          `json:"epoch"` // absent: the document's present one
		Seq     *uint64         `json:"seq"`
		Payload json.RawMessage `json:"payload"`
	}
	switch err := req.body(&body); {
	case err != nil:
		c.badFrame(req.ID, CodeBadMessage, err.Error())
		return
	case body.Seq == nil || body.Payload == nil:
		c.badFrame(req.ID, CodeBadMessage, "a snapshot needs seq and payload")
		return
	}
	if err := c.may(ActionWrite); err != nil {
		c.refuseAccess(req.ID, ActionWrite, err)
		return
	}
	at := Position{body.Epoch, *body.Seq}
	if at.Epoch == "" {
		at.Epoch = c.doc.newest().Epoch
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.hub.ctx), callTimeout)
	defer cancel()
	switch err := c.hub.cfg.Backplane.KeepSnapshot(ctx, c.document, at, body.Payload); {
	case errors.Is(err, ErrConflict):
		c.fail(req.ID, CodeConflict, "seq: past the head, or before the snapshot that is kept")
	case err != nil:
		c.unavailable(req.ID, err)
	default:
		c.reply(snapshotAckFrame{"ack", req.ID, at.Seq})
	}
}

func shorten(s string) string {
	if len(s) > maxIDBytes {
		return s[:maxIDBytes] + "…"
	}
	return s
}
