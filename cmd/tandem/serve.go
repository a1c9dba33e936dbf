package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
	"github.com/seed-6230208e/tandem/gateway"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/webapp"
	"github.com/seed-6230208e/tandem/webapp/accounts"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/access"
	"github.com/seed-6230208e/tandem/ws/wsredis"
)

// serve runs one replica until ctx ends, then drains it. reload re-reads the
// configuration and puts its routes in force.
func serve(ctx context.Context, e env, cfg *config.Config, reload <-chan os.Signal) error {
	log := newLogger(e.stderr, cfg.Log)
	slog.SetDefault(log) // for what speaks through the process's logger alone: net/http's Transport
	r, err := newReplica(cfg, log)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.gateway.Listen(); err != nil {
		return err
	}
	r.announce(e.stdout)
	return r.run(ctx, reload)
}

// replica is everything that one process runs, wired top to bottom: what
// stands further down in newReplica uses what stands further up.
type replica struct {
	cfg *config.Config
	log *slog.Logger

	redis     *redisconn.Conn
	sealKeys  *sessionstore.KeyRing // nil: session values are plain
	watcher   *sessionstore.Watcher
	backplane *wsredis.Backplane
	places    *wsredis.Places
	pairs     *wsredis.Pairs
	access    *access.Rule // nil: everybody may use every document
	hub       *ws.Hub
	signer    *gateway.Signer // nil: nothing is signed
	gateway   *gateway.Gateway
	lifecycle
}

func newReplica(cfg *config.Config, log *slog.Logger) (_ *replica, err error) {
	r := &replica{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	name := replicaName()
	token, err := adminToken(cfg)
	if err != nil {
		return nil, err
	}

	if r.redis, err = redisconn.Open(redisConfig(cfg, log, metrics)); err != nil {
		return nil, redisFault(cfg, err)
	}
	factory, keys, err := newFactory(r.redis, cfg, log, metrics)
	if err != nil {
		return nil, err
	}
	r.sealKeys = keys
	store, err := sessionstore.NewStore(factory, storeConfig(cfg))
	if err != nil {
		return nil, err
	}
	readable, writable, err := clientPatterns(cfg)
	if err != nil {
		return nil, err
	}
	watched, err := watchedPatterns(cfg)
	if err != nil {
		return nil, err
	}
	r.watcher, err = sessionstore.NewWatcher(factory, sessionstore.WatchConfig{
		VerifyEvery: cfg.Session.VerifyEvery, MaxUnverified: cfg.Session.MaxUnverified,
		Readable: watched, Logger: log, Metrics: metrics,
	})
	if err != nil {
		return nil, err
	}

	r.backplane, err = wsredis.New(wsredis.Config{
		Client: r.redis.Client(), Replica: name, KeepOperations: cfg.Documents.KeepOperations, Logger: log, Metrics: metrics,
	})
	if err != nil {
		return nil, err
	}
	if r.places, err = wsredis.NewPlaces(wsredis.PlacesConfig{Backplane: r.backplane, Metrics: metrics}); err != nil {
		return nil, err
	}
	sockets := hubConfig(cfg)
	sockets.Backplane, sockets.Replica = r.backplane, name
	sockets.SessionID, sockets.RedeemTicket = store.IDFromRequest, factory.RedeemTicket
	sockets.Places, sockets.Peek = r.places, factory.Peek
	sockets.Bind = func(ctx context.Context, id string, l sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
		return r.watcher.Bind(ctx, id, l)
	}
	sockets.Readable, sockets.Writable, sockets.Logger, sockets.Metrics = readable, writable, log, metrics
	if r.access, err = newAccess(cfg, log, metrics); err != nil {
		return nil, err
	}
	if r.access != nil {
		sockets.Authorizer = r.access
	}
	if r.hub, err = ws.NewHub(sockets); err != nil {
		return nil, err
	}
	if r.pairs, err = wsredis.NewPairs(wsredis.PairsConfig{Backplane: r.backplane, Metrics: metrics}); err != nil {
		return nil, err
	}
	pairs, err := r.hub.Pairs(pairsConfig(cfg, r.pairs))
	if err != nil {
		return nil, err
	}

	users, err := accounts.New(r.redis.Client(), accounts.Config{})
	if err != nil {
		return nil, err
	}
	pages, err := webapp.New(webapp.Config{
		Store: store, Factory: factory, Accounts: users, Registration: cfg.Webapp.Registration,
		Available: r.redis.Up, Readable: readable, Writable: writable, Logger: log, Metrics: metrics,
	})
	if err != nil {
		return nil, err
	}

	proxies, err := gateway.ParseNetworks(cfg.TrustedProxies)
	if err != nil {
		return nil, err
	}
	if r.signer, err = newSigner(cfg); err != nil {
		return nil, err
	}
	r.gateway, err = gateway.New(gateway.Config{
		Listeners: gatewayListeners(cfg),
		Handlers:  map[string]http.Handler{"documents": r.hub.Documents(), "pairs": pairs, "webapp": pages},
		Bind: func(ctx context.Context, id string, l sessionstore.Listener) (gateway.Binding, *sessionstore.Snapshot, error) {
			return r.watcher.Bind(ctx, id, l)
		},
		Signer: r.signer,
		Store:  store, Available: r.redis.Up, Cookie: cfg.Session.Cookie, TrustedProxies: proxies,
		Admin: gateway.AdminConfig{
			Address: cfg.Admin.Address, Token: token, Gatherer: metrics,
			Checks: r.checks(), Draining: r.draining.Load, Sessions: factory,
			ExtraConnections: r.sockets, SocketCounts: r.hub.CountSockets,
			Reload: r.reload,
			Mux:    map[string]http.Handler{"documents/": r.hub.Admin()},
		},
		Drain:  gateway.Drain{Spread: cfg.Drain.Spread},
		Logger: log, Metrics: metrics,
	})
	return r, err
}

// checks are what /readyz depends on. Each answers from what is known.
func (r *replica) checks() []gateway.Check {
	return []gateway.Check{
		{Name: "redis", Probe: func() error {
			if !r.redis.Up() {
				return errors.New("redis does not answer")
			}
			return nil
		}},
		{Name: "session_news", Probe: r.watcher.Healthy},
		{Name: "document_news", Probe: r.backplane.Healthy},
		{Name: "pair_news", Probe: r.pairs.Healthy},
		{Name: "sockets", Probe: func() error {
			if !r.informed.Load() {
				return errors.New("sockets are refused until Redis answers and the subscriptions deliver")
			}
			return nil
		}},
	}
}

// sockets lists the hub's connections the way the gateway lists its own.
func (r *replica) sockets() []gateway.ConnectionInfo {
	open := r.hub.Connections()
	list := make([]gateway.ConnectionInfo, len(open))
	for i, c := range open {
		list[i] = gateway.ConnectionInfo(c)
	}
	return list
}

// close frees what newReplica opened; run has ended, or never began.
func (r *replica) close() {
	var err error
	if r.hub != nil {
		err = r.hub.Close()
	}
	if r.access != nil {
		r.access.Close()
	}
	if r.redis != nil {
		err = errors.Join(err, r.redis.Close())
	}
	if err != nil {
		r.log.Warn("closing", "err", err)
	}
}

// replicaName is how this process is called in logs and frames: its host's
// name, which a container engine makes unique, and a few random characters,
// since one host may run several.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "tandem"
	}
	return host + "-" + sessionstore.NewHandle()[:6]
}

// url is what a person types to reach an address.
func url(l config.Listener, bound net.Addr) string {
	scheme := "http"
	if l.TLS != nil {
		scheme = "https"
	}
	if l.TCP != nil {
		scheme = "tcp"
	}
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return fmt.Sprintf("%s://%s", scheme, bound)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
