package gateway

import (
	"log/slog"
	"net/http"
	"time"
)

// logAccess writes one line for an exchange: at warn what the gateway itself
// had to answer with a 5xx, everything else at debug. The query is left out,
// it may hold secrets.
func (x *exchange) logAccess(r *http.Request) {
	level := slog.LevelDebug
	if x.reason != "" && x.status >= 500 || x.reason == reasonUpstreamAborted {
		level = slog.LevelWarn
	}
	if !x.g.log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request", x.id[0]), slog.String("conn", x.session.id),
		slog.String("client", x.origin.client), slog.String("listener", x.session.listener),
		slog.String("route", x.route.name), slog.String("kind", x.route.kind),
		slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.URL.Path),
		slog.Int("status", x.status), slog.Int64("bytes", x.sent), slog.Duration("duration", time.Since(x.started)),
	}
	for _, a := range []slog.Attr{
		slog.String("user", x.who.user), slog.String("session", x.who.handle), slog.String("reason", string(x.reason)),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if x.target != nil {
		attrs = append(attrs, slog.String("upstream", x.target.id))
	}
	if x.hijacked {
		attrs = append(attrs, slog.Bool("upgraded", true))
	}
	if x.cause != nil {
		attrs = append(attrs, slog.Any("err", x.cause))
	}
	x.g.log.LogAttrs(r.Context(), level, "request", attrs...)
}
