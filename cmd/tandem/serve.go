package main

import (
	"context"
	"errors"
	"os"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
)

// serve runs the gateway until ctx ends, then drains.
func serve(context.Context, env, *config.Config, <-chan os.Signal) error {
	return errors.New("serve is not wired yet")
}
