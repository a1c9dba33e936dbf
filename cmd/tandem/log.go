package main

import (
	"io"
	"log/slog"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
)

// newLogger returns the logger that cfg asks for. A level that cannot be
// read, of a configuration with faults, is info.
func newLogger(w io.Writer, cfg config.Log) *slog.Logger {
	options := &slog.HandlerOptions{}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err == nil {
		options.Level = level
	}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
