package ws

import (
	"context"
	"errors"
	"net/http"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// seat takes the place of the session that the upgrade's cookie names, where
// it can be found: whoever cannot be seated yet is when they authenticate.
func (h *Hub) seat(ctx context.Context, a *admission) *problem.Problem {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	place := h.placeOf(ctx, a.cookie)
	if place == (Place{}) {
		return nil
	}
	switch err := h.cfg.Places.Take(ctx, place, h.cfg.Limits.places()); {
	case err == nil:
		a.place = place
	case errors.Is(err, ErrCrowded):
		return crowded()
	}
	return nil
}

// placeOf returns what the session with this ID takes; zero when nobody is
// known to have it. What a connection that is open found out is not asked for
// again.
func (h *Hub) placeOf(ctx context.Context, cookie string) Place {
	if cookie == "" || h.cfg.Peek == nil || h.cfg.Limits.places() == (PlaceLimits{}) {
		return Place{}
	}
	h.mu.Lock()
	place := h.usage.cookies[cookie].place // admit has counted it
	h.mu.Unlock()
	if place != (Place{}) {
		return place
	}
	s, err := h.cfg.Peek(ctx, cookie)
	if err != nil {
		return Place{}
	}
	place = Place{Session: s.Handle(), User: s.UserID()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.usage.cookies[cookie].place = place
	return place
}

// reseat exchanges the place that a connection was upgraded with for the one
// of whom it speaks for. On an error it has none.
func (h *Hub) reseat(ctx context.Context, from, to Place) error {
	if from == to {
		return nil
	}
	h.cfg.Places.Release(from)
	return h.cfg.Places.Take(ctx, to, h.cfg.Limits.places())
}

// CountSockets returns how many connections each of these sessions has, over
// all replicas, or on this one where the others cannot be asked.
func (h *Hub) CountSockets(ctx context.Context, handles []string) []int {
	counts, err := h.cfg.Places.Count(ctx, handles)
	if err == nil {
		return counts
	}
	h.log.Warn("sockets are counted on this replica only", "err", err)
	counts = make([]int, len(handles))
	for i, handle := range handles {
		counts[i] = h.CountBySession(handle)
	}
	return counts
}

func (l Limits) places() PlaceLimits {
	return PlaceLimits{l.ConnectionsPerSession, l.ConnectionsPerUser}
}

func crowded() *problem.Problem {
	return &problem.Problem{
		Status: http.StatusTooManyRequests, Code: "too_many_connections", RetryAfter: retryCrowded,
		Detail: "This session or user has too many connections open.",
	}
}
