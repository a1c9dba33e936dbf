// Package problem writes errors as RFC 9457 problem documents, or as a plain
// page for browsers, and holds the one table from errors to statuses.
package problem

import (
	"encoding/json"
	"errors"
	"html/template"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Problem is an RFC 9457 problem document. The type member is always
// "about:blank", so Title follows Status.
type Problem struct {
	Status     int
	Code       string        // stable, machine-readable: "not_found"; extension member "code"
	Detail     string        // what was wrong with this request and what is allowed
	RetryAfter time.Duration // > 0: Retry-After header, rounded up to seconds
	RequestID  string        // extension member "request_id", empty: left out
	Faults     []string      // extension member "faults": each thing that is wrong, none: left out
}

type document struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Code      string `json:"code,omitempty"`
	RequestID string `json:"request_id,omitempty"`

	Faults []string `json:"faults,omitempty"`
}

// From turns an error of the session store into a problem. What is not known
// to it is 500 without detail; the caller logs the error.
func From(err error) Problem {
	switch {
	case errors.Is(err, sessionstore.ErrUnavailable):
		return Unavailable("The session store cannot be reached.")
	case errors.Is(err, sessionstore.ErrEnded):
		return Problem{Status: http.StatusUnauthorized, Code: "session_ended", Detail: "The session has ended; log in again."}
	case errors.Is(err, sessionstore.ErrNotFound):
		return Problem{Status: http.StatusUnauthorized, Code: "login_required", Detail: "There is no session; log in."}
	case errors.Is(err, sessionstore.ErrUndecodable):
		return Problem{Status: http.StatusInternalServerError, Code: "session_undecodable", Detail: "The stored session cannot be read."}
	case errors.Is(err, sessionstore.ErrReserved):
		return Problem{Status: http.StatusForbidden, Code: "reserved", Detail: `Attribute names under "tandem." are reserved.`}
	case errors.Is(err, sessionstore.ErrValue):
		return Problem{Status: http.StatusUnprocessableEntity, Code: "bad_value", Detail: err.Error()}
	case errors.Is(err, sessionstore.ErrTooLarge):
		return Problem{Status: http.StatusRequestEntityTooLarge, Code: "session_too_large", Detail: err.Error()}
	default:
		return Problem{Status: http.StatusInternalServerError, Code: "internal"}
	}
}

// Unavailable is the 503 of a replica that lacks Redis or is draining.
func Unavailable(detail string) Problem {
	return Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Detail: detail, RetryAfter: 2 * time.Second}
}

// JSON writes p as application/problem+json.
func JSON(w http.ResponseWriter, p Problem) {
	header(w, p, "application/problem+json")
	// The status is out; an error now means that the client has gone.
	_ = json.NewEncoder(w).Encode(document{
		Type: "about:blank", Title: http.StatusText(p.Status), Status: p.Status,
		Detail: p.Detail, Code: p.Code, RequestID: p.RequestID, Faults: p.Faults,
	})
}

// Respond writes p as a page when the request prefers HTML, else as JSON.
func Respond(w http.ResponseWriter, r *http.Request, p Problem) {
	if !PrefersHTML(r) {
		JSON(w, p)
		return
	}
	header(w, p, "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_ = page.Execute(w, struct {
		Title string
		Problem
	}{http.StatusText(p.Status), p})
}

// PrefersHTML reports whether the request comes from a browser's address bar
// rather than from a program: its Accept header names text/html.
func PrefersHTML(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

func header(w http.ResponseWriter, p Problem, contentType string) {
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	w.WriteHeader(p.Status)
}

var page = template.Must(template.New("problem").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Status}} {{.Title}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}
small{color:#777}</style>
<h1>{{.Status}} {{.Title}}</h1>
{{with .Detail}}<p>{{.}}</p>{{end}}{{with .RequestID}}<p><small>Request {{.}}</small></p>{{end}}
</html>
`))
