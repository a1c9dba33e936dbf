package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/webapp/accounts"
)

// errEmbedded refuses commands that would work on a Redis of their own.
var errEmbedded = errors.New(`no Redis is configured: the embedded one lives inside the process of "tandem serve" and cannot be reached from here; ` +
	`name the Redis that the replicas use with --redis, TANDEM_REDIS or in the file of --config, or use the web app's pages`)

// store is what administration commands work on: the replicas' Redis,
// whether a replica runs or not.
type store struct {
	accounts *accounts.Accounts
	sessions *sessionstore.Factory
}

// withStore runs do on the Redis that the command line names.
func (a *app) withStore(ctx context.Context, do func(context.Context, store) error) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if cfg.Embedded() {
		return errEmbedded
	}
	log := slog.New(slog.DiscardHandler) // what matters comes back as an error
	conn, err := redisconn.Open(redisConfig(cfg, log, nil))
	if err != nil {
		return redisFault(cfg, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.Ping(ctx); err != nil {
		return fmt.Errorf("redis cannot be reached: %w", err)
	}
	var s store
	if s.accounts, err = accounts.New(conn.Client(), accounts.Config{}); err != nil {
		return err
	}
	if s.sessions, _, err = newFactory(conn, cfg, log, nil); err != nil {
		return err
	}
	return do(ctx, s)
}

// userID returns the ID of the user called name. Users of other applications
// have no account here; they are found by the ID or name in their sessions.
func (s store) userID(ctx context.Context, name string) (string, error) {
	users, err := s.accounts.List(ctx)
	if err != nil {
		return "", err
	}
	for _, u := range users {
		if strings.EqualFold(u.Name, name) || u.ID == name {
			return u.ID, nil
		}
	}
	infos, err := s.sessions.List(ctx, "")
	if err != nil {
		return "", err
	}
	id := ""
	for _, info := range infos {
		switch {
		case info.UserID == name:
			return name, nil
		case info.UserName != name || info.UserID == id:
		case id != "":
			return "", fmt.Errorf("several users are called %q; name one by ID, see `tandem sessions list --json`", name)
		default:
			id = info.UserID
		}
	}
	if id == "" {
		return "", fmt.Errorf("no account and no session belongs to a user %q", name)
	}
	return id, nil
}

// redisFault turns redisconn's complaint about the URL into a fault of the
// configuration.
func redisFault(cfg *config.Config, err error) error {
	return config.Faults{cfg.Fault("redis", err.Error())}
}
