package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
)

func serveCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway.

Without a configuration file it uses an embedded Redis, serves the web app on
127.0.0.1:8080 and lets the first user register.

SIGTERM and SIGINT drain, a second one ends at once. SIGHUP reloads the routes
and the keys for session values.`,
		Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return a.logged(cfg, err)
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			return a.logged(cfg, serve(c.Context(), a.env, cfg, reload))
		}),
	}
	c.Flags().Var(a.override("--listen", "listeners[0].address"), "listen", "`address` of the first listener, host:port")
	c.Flags().Var(a.override("--admin", "admin.address"), "admin", "`address` of the admin listener, host:port")
	return c
}

// logged writes err to the log where that is read by machines: then nothing
// else may appear on standard error.
func (a *app) logged(cfg *config.Config, err error) error {
	if err == nil || cfg.Log.Format != "json" {
		return err
	}
	log := newLogger(a.stderr, cfg.Log)
	var faults config.Faults
	if !errors.As(err, &faults) {
		log.Error("tandem stopped", "err", err)
		return errReported
	}
	for _, fault := range faults {
		log.Error("configuration fault", "at", fault.At(), "err", fault.Message)
	}
	return errReported
}
