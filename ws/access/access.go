// Package access decides who may join and write which document: by patterns
// that a session attribute lists, or by asking the application. It implements
// ws.Authorizer.
package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/ws"
)

// Config says by what to decide: exactly one of Attribute and URL is given.
type Config struct {
	// Attribute is the session attribute that holds the patterns of the
	// documents that the session may read and write: one string, or a list
	// of them, "*" standing for any run of characters. A session without it,
	// or with anything else in it, may join none.
	Attribute string

	// WriteAttribute, of the same form, is asked for writing instead. Empty:
	// who may read may write.
	WriteAttribute string

	// URL, of scheme http or https, is asked with a POST; see callback.go.
	URL string

	// Cache is how long an answer from URL holds. Zero means 10 s; negative
	// is an error.
	Cache time.Duration

	// Timeout bounds one question to URL, the wait for its turn included.
	// Zero means 2 s; negative is an error.
	Timeout time.Duration

	Transport http.RoundTripper     // nil: a transport of its own
	Logger    *slog.Logger          // nil: nothing is logged
	Metrics   prometheus.Registerer // nil: none are registered
}

// Rule implements ws.Authorizer. It is safe for concurrent use.
type Rule struct {
	// Fixed after construction; one of callback and attributes is set.
	callback   *callback
	attributes map[ws.Action]string
	log        *slog.Logger
}

var _ ws.Authorizer = (*Rule)(nil)

// New checks cfg and returns its rule. It does no I/O.
func New(cfg Config) (*Rule, error) {
	switch {
	case (cfg.Attribute == "") == (cfg.URL == ""):
		return nil, errors.New("access: exactly one of Attribute and URL is required")
	case cfg.WriteAttribute != "" && cfg.Attribute == "":
		return nil, errors.New("access: WriteAttribute needs Attribute")
	case cfg.Cache < 0 || cfg.Timeout < 0:
		return nil, errors.New("access: Cache and Timeout must not be negative")
	}
	r := &Rule{log: cfg.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Attribute != "" {
		r.attributes = map[ws.Action]string{ws.ActionRead: cfg.Attribute, ws.ActionWrite: cfg.Attribute}
		if cfg.WriteAttribute != "" {
			r.attributes[ws.ActionWrite] = cfg.WriteAttribute
		}
		return r, nil
	}
	var err error
	if r.callback, err = newCallback(cfg, r.log); err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	return r, nil
}

// Authorize implements ws.Authorizer.
func (r *Rule) Authorize(ctx context.Context, a ws.Access) (until time.Time, err error) {
	if r.callback != nil {
		return r.callback.authorize(ctx, a)
	}
	return time.Time{}, r.byAttribute(a)
}

// Close closes idle connections to the application. Nothing is asked
// afterwards.
func (r *Rule) Close() {
	if r.callback != nil {
		r.callback.client.CloseIdleConnections()
	}
}
