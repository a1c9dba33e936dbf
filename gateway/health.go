package gateway

import (
	"context"
	"io"
	"net/http"
	"time"
)

// watch checks one target until ctx ends, at once and then once an interval.
func (g *Gateway) watch(ctx context.Context, t *target, interval time.Duration, check func(context.Context) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := check(ctx)
		if ctx.Err() != nil {
			return
		}
		if was := t.sick.Swap(err != nil); was != (err != nil) {
			g.log.Warn("upstream health changed", "upstream", t.id, "healthy", err == nil, "err", err)
		}
		if err == nil {
			t.answered()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// check asks a target for its health once.
func (p *pool) check(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Health.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.Scheme+"://"+t.url.Host+p.cfg.Health.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "tandem-health")
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// Reading a little to the end lets the connection be used again.
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return &unhealthyError{res.Status}
	}
	return nil
}

// unhealthyError is a health check that was answered, but not with health.
type unhealthyError struct{ status string }

func (e *unhealthyError) Error() string { return "health check answered " + e.status }
