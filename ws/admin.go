package ws

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// Admin serves GET documents/{id} and POST documents/{id}/operations,
// whatever stands before "documents/" in the path. It is for backends:
// whoever mounts it checks who asks.
func (h *Hub) Admin() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, action, ok := adminPath(r.URL)
		switch {
		case !ok:
			problem.JSON(w, problem.Problem{
				Status: http.StatusNotFound, Code: "not_found",
				Detail: "There are documents/{id} and documents/{id}/operations; an ID has 1 to 128 characters of A-Za-z0-9._~:-.",
			})
		case action == "" && allow(w, r, http.MethodGet):
			h.describe(w, r, id)
		case action == "operations" && allow(w, r, http.MethodPost):
			h.publish(w, r, id)
		}
	})
}

// adminPath splits …documents/{id}[/operations].
func adminPath(u *url.URL) (id, action string, ok bool) {
	_, rest, found := strings.Cut(u.EscapedPath(), "documents/")
	escaped, action, _ := strings.Cut(rest, "/")
	id, err := url.PathUnescape(escaped)
	ok = found && err == nil && documentID.MatchString(id) && (action == "" || action == "operations")
	return id, action, ok
}

func allow(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header().Set("Allow", method)
	problem.JSON(w, problem.Problem{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: method + " is allowed here.",
	})
	return false
}

func (h *Hub) describe(w http.ResponseWriter, r *http.Request, id string) {
	history, err := h.cfg.Backplane.History(r.Context(), id, nil, 1)
	if err != nil {
		h.adminError(w, err)
		return
	}
	members, err := h.cfg.Backplane.Members(r.Context(), id)
	if err != nil {
		h.adminError(w, err)
		return
	}
	writeJSON(w, struct {
		Epoch       string  `json:"epoch"`
		Seq         uint64  `json:"seq"`
		SnapshotSeq uint64  `json:"snapshot_seq"`
		Members     []entry `json:"members"`
	}{history.Epoch, history.Head, history.SnapshotSeq, entries(members)})
}

// publish appends an operation for a backend. Sent again with the same ID it
// is not appended again.
func (h *Hub) publish(w http.ResponseWriter, r *http.Request, id string) {
	limit := h.cfg.Documents.MaxMessage
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		problem.JSON(w, problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Detail: "At most " + string(encode(limit)) + " bytes are allowed."})
		return
	case err != nil:
		return // the client has gone
	}
	op, err := decodeOperation(data)
	if err != nil {
		problem.JSON(w, problem.Problem{Status: http.StatusBadRequest, Code: "bad_operation", Detail: err.Error()})
		return
	}
	ack, err := h.append(r.Context(), id, op, h.documentIfOpen(id))
	if err != nil {
		h.adminError(w, err)
		return
	}
	writeJSON(w, struct {
		Epoch     string `json:"epoch"`
		Seq       uint64 `json:"seq"`
		Duplicate bool   `json:"duplicate"`
	}{ack.Epoch, ack.Seq, ack.Duplicate})
}

// decodeOperation reads what a backend publishes; its error is fit to be
// shown.
func decodeOperation(data []byte) (Operation, error) {
	req, err := decodeRequest(data)
	if err != nil && !errors.Is(err, errNoType) {
		return Operation{}, err
	}
	var body struct {
		Payload json.RawMessage `json:"payload"`
	}
	switch err := req.body(&body); {
	case err != nil:
		return Operation{}, err
	case req.ID == "":
		return Operation{}, errors.New("id: an operation needs one of 1 to 64 bytes")
	case body.Payload == nil:
		return Operation{}, errors.New("payload: missing")
	}
	return Operation{ID: req.ID, Payload: body.Payload, At: time.Now()}, nil
}

func (h *Hub) adminError(w http.ResponseWriter, err error) {
	if errors.Is(err, ErrUnavailable) {
		problem.JSON(w, problem.Unavailable("Redis is away."))
		return
	}
	h.log.Error("admin request failed", "err", err)
	problem.JSON(w, problem.Problem{Status: http.StatusInternalServerError, Code: "internal"})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(encode(v), '\n')) // an error means that the client has gone
}
