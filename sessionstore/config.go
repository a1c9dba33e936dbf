package sessionstore

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of a Config.
const (
	defaultKeyPrefix = "session:"
	defaultIdle      = 30 * time.Minute
	defaultAbsolute  = 12 * time.Hour
	defaultTouch     = time.Minute
	defaultGrace     = 10 * time.Second
	defaultMaxBytes  = 64 << 10
)

// Config says how sessions are stored and how long they live. Every
// application that shares the sessions needs the same Serializer and
// KeyPrefix; every replica of Tandem the same of everything.
type Config struct {
	// Serializer turns attributes into the stored value. nil: JSON(). With
	// JSON() attributes that a writer did not touch keep their bytes; with
	// any other the whole value is decoded, merged and encoded again.
	Serializer Serializer

	// KeyPrefix comes before the ID in the key of the value. Empty:
	// "session:", redisstore's default. It must not contain braces, which
	// would move the value to another Cluster slot than its companions, or
	// begin with "tandem:".
	KeyPrefix string

	// IdleTimeout is how long a session lives without activity. Zero: 30
	// minutes; negative is an error.
	IdleTimeout time.Duration

	// AbsoluteTimeout is how long a session lives at all, counted from its
	// creation or its latest login. Zero: 12 hours; negative is an error.
	AbsoluteTimeout time.Duration

	// TouchEvery is the pause between two renewals of the idle timeout of a
	// session. Zero: 1 minute; negative is an error. More than half of
	// IdleTimeout is lowered to that, or the session would expire under an
	// active user.
	TouchEvery time.Duration

	// Grace is how long an ID that was replaced without a login still leads
	// to the session. Zero: 10 seconds; negative: not at all. After a login
	// there is no grace: whoever knew the ID before must not be logged in
	// by it.
	Grace time.Duration

	// HashIDs keeps the SHA-256 of session IDs in Redis instead of the IDs:
	// who reads Redis, or a dump of it, learns no cookie. Applications with
	// redisstore cannot find such sessions. False: the IDs themselves.
	// Changing it ends all sessions, for their clients.
	HashIDs bool

	// Seal encrypts and authenticates the stored values: who reads Redis
	// learns no attribute, but the users' IDs, names, addresses and browsers
	// in the index. Applications with redisstore cannot read them. Values
	// that are plain can be read, and are sealed when they are written next.
	// Nil: values are plain.
	Seal *KeyRing

	// MaxPerUser is how many sessions a user may have. A login that makes
	// more ends the oldest others (revoked). Zero or negative: no limit.
	// Logins of other applications are not held to it.
	MaxPerUser int

	// MaxBytes is the largest serialized session that is written. Zero: 64
	// KiB; negative: no limit. A session that another application made
	// larger can be read and made smaller.
	MaxBytes int

	Logger  *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: none are registered
}

// withDefaults returns c with every zero replaced, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	switch {
	case strings.ContainsAny(c.KeyPrefix, "{}"):
		return c, fmt.Errorf("sessionstore: key prefix %q: braces are not allowed", c.KeyPrefix)
	case strings.HasPrefix(c.KeyPrefix, "tandem:"):
		return c, fmt.Errorf(`sessionstore: key prefix %q: "tandem:" is reserved`, c.KeyPrefix)
	case c.IdleTimeout < 0, c.AbsoluteTimeout < 0, c.TouchEvery < 0:
		return c, errors.New("sessionstore: timeouts must not be negative")
	case c.IdleTimeout > 0 && c.IdleTimeout < time.Millisecond, c.AbsoluteTimeout > 0 && c.AbsoluteTimeout < time.Millisecond:
		return c, errors.New("sessionstore: timeouts must be at least a millisecond")
	}
	if c.Serializer == nil {
		c.Serializer = JSON()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.KeyPrefix = cmp.Or(c.KeyPrefix, defaultKeyPrefix)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdle)
	c.AbsoluteTimeout = cmp.Or(c.AbsoluteTimeout, defaultAbsolute)
	c.TouchEvery = min(cmp.Or(c.TouchEvery, defaultTouch), c.IdleTimeout/2)
	c.Grace = max(cmp.Or(c.Grace, defaultGrace), 0)
	c.MaxBytes = cmp.Or(c.MaxBytes, defaultMaxBytes)
	return c, nil
}
