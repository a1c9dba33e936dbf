// Package ws serves this replica's WebSockets: the hub that counts them, the
// life of one connection, documents with their ordered operations, presence,
// and the frames of the tandem.v1 protocol. What it needs from the other
// replicas is the [Backplane].
package ws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Protocol is the WebSocket sub-protocol of documents. A client may offer it
// or not; the frames are the same.
const Protocol = "tandem.v1"

// Config is all that a Hub needs. Backplane, Bind and SessionID are required.
type Config struct {
	// Backplane connects the documents of all replicas.
	Backplane Backplane

	// Bind finds the session with this ID and reports its changes to the
	// listener until the binding is closed. Errors are those of sessionstore.
	Bind func(ctx context.Context, id string, l sessionstore.Listener) (Binding, *sessionstore.Snapshot, error)

	// SessionID reads the well-formed session ID from a request's cookie,
	// without I/O. The ID is kept in memory and shown nowhere.
	SessionID func(*http.Request) (id string, ok bool)

	// Peek returns the session with this ID as it is now, and does nothing
	// else: it is no activity. Any error means that nothing is known of it. Nil:
	// connections are counted for their session and user when they
	// authenticate, not before.
	Peek func(ctx context.Context, id string) (*sessionstore.Snapshot, error)

	// Places counts connections over all replicas. Nil: those of this one are.
	Places Places

	// RedeemTicket turns a one-time ticket into a session ID; unknown tickets
	// are ErrNotFound. Nil: every ticket is refused.
	RedeemTicket func(ctx context.Context, ticket string) (id string, err error)

	// Readable and Writable are the session attributes that clients may read
	// and write. The zero values match nothing.
	Readable, Writable sessionstore.Patterns

	// Authorizer decides who may join and write which document. Nil:
	// everybody who is logged in.
	Authorizer Authorizer

	// Origins lists who may open sockets: "same-origin", full origins such
	// as "https://app.example", or "*". Empty means same-origin. A request
	// without Origin comes from a program and is allowed.
	Origins []string

	// Routes are the path prefixes that Documents is mounted at; the
	// document's ID is all that follows. Empty: the last path segment is it.
	Routes []string

	Documents DocumentsConfig
	Limits    Limits
	Drain     DrainConfig

	// Replica names this process in hello frames and logs.
	Replica string

	// Heartbeat is the pause between pings; a peer silent for 4.5 of them is
	// dead, 2.5 for a side of a pair, which somebody waits to take. Zero means
	// 10 s; negative is an error.
	Heartbeat time.Duration

	Logger  *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: none are registered
}

// DocumentsConfig bounds what a document's connections may send and miss.
// Zero means the default, negative is an error.
type DocumentsConfig struct {
	OperationsBehind int           // operations a receiver may be behind before it loses the oldest; default 1,024
	PresenceBehind   int           // the same for presence frames; default 256
	Replies          int           // direct replies that wait for one connection before reading from it stops; default 32
	MaxMessage       int64         // bytes of one frame from a client; default 64 KiB
	AuthTimeout      time.Duration // from the upgrade to a successful authenticate; default 10 s
	PresenceGrace    time.Duration // a member whose connection was lost has this long to come back before it has left; default 5 s, below 50 ms none
}

// Limits bounds what clients may use. Zero means no limit, negative is an error.
type Limits struct {
	ConnectionsPerSession int // over all that Config.Places counts
	ConnectionsPerUser    int // the same
	UpgradesPerSecond     int // of this replica, documents and pairs, with bursts of twice that; the rest is told when to come back
	FramesPerSecond       int // per connection, with bursts of twice that
	OperationsPerSecond   int // per connection, with bursts of twice that
	FramesPerUser         int // a second, of all connections of a user to this replica, with bursts of twice that
	OperationsPerUser     int // the same
}

// DrainConfig paces the farewell. Negative is an error.
type DrainConfig struct {
	Timeout time.Duration // until the last connection is closed; zero means 30 s
	Spread  time.Duration // over which clients are told to reconnect; zero means 10 s
}

// Binding is a connection's hold on its session, as sessionstore's Binding.
// Its methods are safe for concurrent use.
type Binding interface {
	// Update runs fn on the newest state and saves what it changed.
	Update(ctx context.Context, fn func(*sessionstore.Session) error) (*sessionstore.Snapshot, error)
	// Touch notes activity of the client; it never blocks.
	Touch()
	// Snapshot is the newest known state.
	Snapshot() *sessionstore.Snapshot
	// Close ends the binding; it is idempotent.
	Close()
}

// withDefaults checks c and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if c.Backplane == nil || c.Bind == nil || c.SessionID == nil {
		return c, errors.New("ws: Backplane, Bind and SessionID are required")
	}
	if c.RedeemTicket == nil {
		c.RedeemTicket = func(context.Context, string) (string, error) { return "", sessionstore.ErrNotFound }
	}
	if c.Places == nil {
		c.Places = newPlacesHere()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"Limits.ConnectionsPerSession", c.Limits.ConnectionsPerSession},
		{"Limits.ConnectionsPerUser", c.Limits.ConnectionsPerUser},
		{"Limits.UpgradesPerSecond", c.Limits.UpgradesPerSecond},
		{"Limits.FramesPerSecond", c.Limits.FramesPerSecond},
		{"Limits.OperationsPerSecond", c.Limits.OperationsPerSecond},
		{"Limits.FramesPerUser", c.Limits.FramesPerUser},
		{"Limits.OperationsPerUser", c.Limits.OperationsPerUser},
	} {
		if n.value < 0 {
			return c, fmt.Errorf("ws: %s must not be negative", n.name)
		}
	}
	return c, errors.Join(
		orDefault("Documents.OperationsBehind", &c.Documents.OperationsBehind, 1024),
		orDefault("Documents.PresenceBehind", &c.Documents.PresenceBehind, 256),
		orDefault("Documents.Replies", &c.Documents.Replies, 32),
		orDefault("Documents.MaxMessage", &c.Documents.MaxMessage, 64<<10),
		orDefault("Documents.AuthTimeout", &c.Documents.AuthTimeout, 10*time.Second),
		orDefault("Documents.PresenceGrace", &c.Documents.PresenceGrace, 5*time.Second),
		orDefault("Drain.Timeout", &c.Drain.Timeout, 30*time.Second),
		orDefault("Drain.Spread", &c.Drain.Spread, 10*time.Second),
		orDefault("Heartbeat", &c.Heartbeat, 10*time.Second),
	)
}

func orDefault[T ~int | ~int64](name string, value *T, standard T) error {
	switch {
	case *value < 0:
		return fmt.Errorf("ws: %s must not be negative", name)
	case *value == 0:
		*value = standard
	}
	return nil
}

// patience is how long a document's client may say nothing and read nothing.
// One that stops for three heartbeats, as a page does that is suspended or
// busy, goes on afterwards with what it has missed.
func (c *Config) patience() time.Duration { return c.Heartbeat * 9 / 2 }
