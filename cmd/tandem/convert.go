package main

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/sessions"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
	"github.com/seed-6230208e/tandem/gateway"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/access"
)

// The functions of this file translate the configuration into those of the
// rooms. Load has checked every value; where a room reads zero as "the
// default" and the configuration means zero, orNone makes the difference.

// orNone is d, or for zero the smallest duration there is.
func orNone(d time.Duration) time.Duration { return max(d, time.Nanosecond) }

func redisConfig(cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) redisconn.Config {
	c := redisconn.Config{URL: cfg.Redis, CheckEvery: cfg.RedisCheckEvery, Logger: log, Metrics: metrics}
	if cfg.RedisCheckEvery == 0 {
		c.CheckEvery = -1 // never
	}
	return c
}

// sessionConfig lacks what is read from files: see sealKeys.
func sessionConfig(cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) sessionstore.Config {
	serializer := sessionstore.JSON()
	if cfg.Session.Serializer == "gob" {
		serializer = sessionstore.Gob()
	}
	return sessionstore.Config{
		Serializer:      serializer,
		KeyPrefix:       cfg.Session.KeyPrefix,
		IdleTimeout:     cfg.Session.IdleTimeout,
		AbsoluteTimeout: cfg.Session.AbsoluteTimeout,
		TouchEvery:      orNone(cfg.Session.TouchEvery),
		HashIDs:         cfg.Session.HashIDs,
		MaxPerUser:      cfg.Session.MaxPerUser,
		Logger:          log,
		Metrics:         metrics,
	}
}

// newFactory returns the sessions that cfg describes, and the ring of the
// keys that seal them: nil for none.
func newFactory(conn *redisconn.Conn, cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*sessionstore.Factory, *sessionstore.KeyRing, error) {
	c := sessionConfig(cfg, log, metrics)
	keys, err := sealKeys(cfg)
	if err != nil {
		return nil, nil, err
	}
	if keys != nil {
		if c.Seal, err = sessionstore.NewKeyRing(keys...); err != nil {
			return nil, nil, err
		}
	}
	f, err := sessionstore.New(conn.Client(), c)
	return f, c.Seal, err
}

// sealKeys reads the keys that session values are sealed with, nil for none.
func sealKeys(cfg *config.Config) ([][]byte, error) {
	if cfg.Session.SealKeysFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(cfg.Session.SealKeysFile)
	if err != nil {
		return nil, fmt.Errorf("session.seal_keys_file: %w", err)
	}
	keys, err := sessionstore.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("session.seal_keys_file: %w", err)
	}
	return keys, nil
}

// signingKeys reads the keys that assertions are signed with, nil for none.
func signingKeys(cfg *config.Config) ([]ed25519.PrivateKey, error) {
	var keys []ed25519.PrivateKey
	for _, name := range cfg.Assertion.KeyFiles {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("assertion.key_files: %w", err)
		}
		key, err := gateway.ParseSigningKey(text)
		if err != nil {
			return nil, fmt.Errorf("assertion.key_files: %s: %w", name, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// newSigner returns what signs assertions, nil for nothing.
func newSigner(cfg *config.Config) (*gateway.Signer, error) {
	keys, err := signingKeys(cfg)
	if err != nil || keys == nil {
		return nil, err
	}
	return gateway.NewSigner(cfg.Assertion.Issuer, keys...)
}

func storeConfig(cfg *config.Config) sessionstore.StoreConfig {
	return sessionstore.StoreConfig{
		Cookie:  cfg.Session.Cookie,
		Options: sessions.Options{Secure: cfg.CookieSecure()},
	}
}

// clientPatterns are the attributes that page scripts may read and write.
func clientPatterns(cfg *config.Config) (readable, writable sessionstore.Patterns, err error) {
	if readable, err = sessionstore.ParsePatterns(cfg.Session.ClientReadable); err != nil {
		return readable, writable, err
	}
	writable, err = sessionstore.ParsePatterns(cfg.Session.ClientWritable)
	return readable, writable, err
}

// watchedPatterns are the attributes whose change sockets have to know of:
// what clients may read, and what says which documents are theirs.
func watchedPatterns(cfg *config.Config) (sessionstore.Patterns, error) {
	names := slices.Clone(cfg.Session.ClientReadable)
	for _, name := range []string{cfg.Documents.Authorize.Attribute, cfg.Documents.Authorize.WriteAttribute} {
		if name != "" {
			names = append(names, name)
		}
	}
	return sessionstore.ParsePatterns(names)
}

// newAccess returns the rule of who may use documents, nil for everybody.
func newAccess(cfg *config.Config, log *slog.Logger, metrics prometheus.Registerer) (*access.Rule, error) {
	a := cfg.Documents.Authorize
	if a.Attribute == "" && a.URL == "" {
		return nil, nil
	}
	return access.New(access.Config{
		Attribute: a.Attribute, WriteAttribute: a.WriteAttribute,
		URL: a.URL, Cache: a.Cache, Timeout: a.Timeout, Logger: log, Metrics: metrics,
	})
}

// hubConfig lacks what is no setting: backplane, sessions and patterns.
func hubConfig(cfg *config.Config) ws.Config {
	return ws.Config{
		Origins: cfg.Origins,
		Routes:  routesTo(cfg, "documents"),
		Documents: ws.DocumentsConfig{
			OperationsBehind: cfg.Documents.OperationsBehind,
			PresenceBehind:   cfg.Documents.PresenceBehind,
			Replies:          cfg.Documents.Replies,
			MaxMessage:       int64(cfg.Documents.MaxMessage),
			AuthTimeout:      cfg.Documents.AuthTimeout,
			PresenceGrace:    orNone(cfg.Documents.PresenceGrace),
		},
		Limits: ws.Limits(cfg.Limits),
		Drain:  ws.DrainConfig{Timeout: orNone(cfg.Drain.Timeout), Spread: orNone(cfg.Drain.Spread)},
	}
}

func pairsConfig(cfg *config.Config, plane ws.PairPlane) ws.PairsConfig {
	return ws.PairsConfig{Plane: plane, Mode: ws.PairMode(cfg.Pairs.Mode), LoginRequired: cfg.Pairs.Login == "required"}
}

// routesTo returns the path prefixes under which a part of Tandem is served,
// each once.
func routesTo(cfg *config.Config, use string) []string {
	var prefixes []string
	seen := map[string]bool{}
	for _, l := range cfg.Listeners {
		for _, r := range l.Routes {
			if r.Use == use && !seen[r.Path] {
				seen[r.Path] = true
				prefixes = append(prefixes, r.Path)
			}
		}
	}
	return prefixes
}

// uses are the names that a route may use.
var uses = []string{"documents", "pairs", "webapp"}

// validate asks the gateway about the listeners, so that check never calls
// good what serve refuses.
func validate(cfg *config.Config) error {
	var faults config.Faults
	for _, f := range gateway.Validate(gatewayListeners(cfg), uses) {
		faults = append(faults, cfg.Fault(f.Path, f.Problem))
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func gatewayListeners(cfg *config.Config) []gateway.Listener {
	list := make([]gateway.Listener, len(cfg.Listeners))
	for i, l := range cfg.Listeners {
		list[i] = gateway.Listener{
			Address:  l.Address,
			TLS:      (*gateway.TLSFiles)(l.TLS),
			Upstream: gatewayUpstream(l.Upstream),
			Files:    gatewayFiles(l.Files),
			TCP:      gatewayTCP(l.TCP),
			Redirect: l.Redirect,
			Limits:   gatewayLimits(l.Limits),
		}
		for _, r := range l.Routes {
			list[i].Routes = append(list[i].Routes, gateway.Route{
				Host: r.Host, Path: r.Path, Methods: r.Methods, Use: r.Use,
				Files:    gatewayFiles(r.Files),
				Upstream: gatewayUpstream(r.Upstream),
				MaxBody:  int64(r.MaxBody),
				Rate:     (*gateway.Rate)(r.Rate),
			})
		}
	}
	return list
}

func gatewayTCP(t *config.TCP) *gateway.TCP {
	if t == nil {
		return nil
	}
	made := &gateway.TCP{Target: t.Target, Targets: t.Targets, Idle: t.Idle}
	if t.Health != nil {
		made.Health = &gateway.Health{Interval: t.Health.Interval, Timeout: t.Health.Timeout}
	}
	return made
}

func gatewayLimits(l config.ListenerLimits) gateway.Limits {
	limits := gateway.Limits{
		Header: int(l.Header), HeaderTimeout: l.HeaderTimeout, Body: int64(l.Body), BodyTimeout: l.BodyTimeout,
		ConnectionsPerAddress: l.ConnectionsPerAddress,
	}
	if l.BodyTimeout == 0 {
		limits.BodyTimeout = -1 // no limit
	}
	return limits
}

func gatewayFiles(f *config.Files) *gateway.Files {
	if f == nil {
		return nil
	}
	made := &gateway.Files{Root: f.Root, SPA: f.SPA}
	for _, rule := range f.Cache {
		made.Cache = append(made.Cache, gateway.CacheRule(rule))
	}
	return made
}

func gatewayUpstream(u *config.Upstream) *gateway.Upstream {
	if u == nil {
		return nil
	}
	return &gateway.Upstream{
		Targets:       u.Targets,
		Login:         u.Login,
		Balance:       u.Balance,
		Health:        (*gateway.Health)(u.Health),
		Timeouts:      gateway.Timeouts(u.Timeouts),
		Concurrency:   (*gateway.Concurrency)(u.Concurrency),
		Retries:       u.Retries,
		ForwardCookie: u.ForwardCookie,
		SessionWrite:  u.SessionWrite,
		Assertion:     u.Assertion,
		StripPrefix:   u.StripPrefix,
	}
}

// adminToken reads the bearer token of the admin API; empty: the API is off.
func adminToken(cfg *config.Config) (string, error) {
	if cfg.Admin.TokenFile == "" {
		return "", nil
	}
	token, err := os.ReadFile(cfg.Admin.TokenFile)
	if err != nil {
		return "", fmt.Errorf("admin.token_file: %w", err)
	}
	return strings.TrimSpace(string(token)), nil
}
