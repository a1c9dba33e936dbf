package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// dialer makes connections: TCP, TLS, or a pipe to the embedded Redis.
type dialer struct {
	life     context.Context // ends with the Conn, and with it dials under way
	timeout  time.Duration
	tls      *tls.Config          // nil: plain TCP
	embedded *miniredis.Miniredis // nil: the network
	metrics  *metrics
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.embedded != nil {
		return dialEmbedded(d.embedded)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	conn, err := d.connect(ctx, network, addr)
	d.metrics.dialed(err)
	return conn, err
}

func (d *dialer) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil || d.tls == nil {
		return raw, err
	}
	cfg := d.tls
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			_ = raw.Close()
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", addr, err)
	}
	return conn, nil
}

// options make clients of one target.
type options struct {
	target      target
	dial        func(ctx context.Context, network, addr string) (net.Conn, error)
	timeout     time.Duration
	dialTimeout time.Duration
	probe       bool // for a prober: no retries
}

func (o options) probing() options {
	o.probe = true
	return o
}

// minPoolSize is how many connections there may be to a node even on a small
// machine: how many are needed depends on how far away Redis is.
const minPoolSize = 64

// client makes a go-redis client; it dials when it is used.
func (o options) client() redis.UniversalClient {
	u := &redis.UniversalOptions{
		Addrs: o.target.addrs, MasterName: o.target.master, DB: o.target.db,
		Username: o.target.username, Password: o.target.password,
		SentinelUsername: o.target.sentinelUsername, SentinelPassword: o.target.sentinelPassword,
		ClientName:      "tandem",
		DisableIdentity: true, // a round trip that Redis 7.0 refuses
		Protocol:        2,    // no push frames between the idle check's PING and its PONG

		Dialer: o.dial, DialTimeout: o.dialTimeout,
		DialerRetries: 1, // whether to try again is the command's and the monitor's business
		ReadTimeout:   o.timeout, WriteTimeout: o.timeout, PoolTimeout: o.timeout,
		ContextTimeoutEnabled: true,

		// One repeat, for a connection that broke in mid-command. Scripts that
		// change something carry a token, so that a repeat is harmless.
		MaxRetries: 1, MinRetryBackoff: 5 * time.Millisecond, MaxRetryBackoff: 50 * time.Millisecond,

		// The pool is LIFO: idle connections stay idle until the load needs
		// them. Pipelines share it.
		PoolSize: cmp.Or(o.target.poolSize, max(minPoolSize, 10*runtime.GOMAXPROCS(0))), PipelinePoolSize: -1,

		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if o.probe {
		// One connection is used. A pool of one would be another matter: after as
		// many failed dials go-redis stops dialling for a second.
		u.ClientName, u.PoolSize, u.MaxRetries = "tandem-probe", 10, -1
	}
	switch o.target.kind {
	case kindSentinel:
		return redis.NewFailoverClient(u.Failover())
	case kindCluster:
		return redis.NewClusterClient(u.Cluster())
	case kindEmbedded:
		u.Addrs = []string{"embedded:0"} // never dialled; go-redis wants one
	}
	return redis.NewClient(u.Simple())
}
