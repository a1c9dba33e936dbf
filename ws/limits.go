package ws

import (
	"math"
	"math/rand/v2"
	"time"
)

// bucket is a token bucket that holds twice its rate. The zero value allows
// everything. It is not safe for concurrent use.
type bucket struct {
	rate   float64 // tokens a second; 0 means no limit
	tokens float64
	last   time.Time
}

func newBucket(perSecond int) bucket {
	return bucket{rate: float64(perSecond), tokens: 2 * float64(perSecond)}
}

// take uses one token, or says how long the next one takes.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	if b.rate == 0 {
		return 0, true
	}
	if !b.last.IsZero() {
		b.tokens = min(2*b.rate, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	}
	b.last = now
	if b.tokens >= 1 {
		b.tokens--
		return 0, true
	}
	return time.Duration(math.Ceil((1-b.tokens)/b.rate*1000)) * time.Millisecond, false
}

// door paces upgrades. Whoever has to wait is told a time of its own, so that
// a crowd that does as told comes back as a queue and not as a crowd. It is
// guarded by Hub.mu.
type door struct {
	bucket
	promised time.Time // the last time that somebody was told
}

// maxPromise bounds the times that are told: who would have to wait for longer
// is told any time up to it, and told again then.
const maxPromise = 30 * time.Second

// enter lets one more in, or says when to come back.
func (d *door) enter(now time.Time) (wait time.Duration, ok bool) {
	if _, ok = d.take(now); ok {
		return 0, true
	}
	if d.promised.Before(now) {
		d.promised = now
	}
	if wait = d.promised.Sub(now); wait < maxPromise {
		d.promised = d.promised.Add(time.Duration(float64(time.Second) / d.rate))
	} else {
		wait = rand.N(maxPromise)
	}
	return wait + rand.N(time.Second), false // Retry-After has whole seconds: jitter fills them
}

// How long a client may keep being refused before it is closed with 4429,
// and how long it must behave for that to be forgotten.
const (
	patience = 10 * time.Second
	forgive  = time.Second
)

// strain follows how long a client has kept up being over its limits.
type strain struct{ since, last time.Time }

// refused notes a refusal and reports whether patience has run out.
func (s *strain) refused(now time.Time) (exhausted bool) {
	if now.Sub(s.last) > forgive {
		s.since = now
	}
	s.last = now
	return now.Sub(s.since) >= patience
}

// usage counts the live connections that share a limit. It is guarded by
// Hub.mu. Keys of cookies are session IDs: they stay in this map.
type usage struct {
	cookies  map[string]*cookieUse // by session ID of the upgrade's cookie
	sessions map[string]int        // by handle, authenticated
}

type cookieUse struct {
	connections int
	place       Place // what the session that the cookie names takes; zero: not known
}

func newUsage() usage {
	return usage{make(map[string]*cookieUse), make(map[string]int)}
}

// admit counts an upgrade that shows a cookie, unless what is known without
// I/O says that it is one too many.
func (u *usage) admit(cookie string, l Limits) bool {
	if cookie == "" {
		return true
	}
	c := u.cookies[cookie]
	if c == nil {
		c = &cookieUse{}
	}
	if over(c.connections, l.ConnectionsPerSession) {
		return false
	}
	c.connections++
	u.cookies[cookie] = c
	return true
}

// leave takes back admit, and what was counted in sessions where handle is
// not empty.
func (u *usage) leave(cookie, handle string) {
	if c := u.cookies[cookie]; c != nil {
		if c.connections--; c.connections == 0 {
			delete(u.cookies, cookie)
		}
	}
	if handle == "" {
		return
	}
	if u.sessions[handle]--; u.sessions[handle] <= 0 {
		delete(u.sessions, handle)
	}
}

func over(count, limit int) bool { return limit > 0 && count >= limit }
