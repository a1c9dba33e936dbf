package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
)

// app is one command line: the process around it, and its flags.
type app struct {
	env
	configFile string
	overrides  []config.Flag // in the order of the command line
}

func rootCommand(e env) *cobra.Command {
	a := &app{env: e}
	root := &cobra.Command{
		Use:           "tandem",
		Short:         "Session-sharing gateway for web pages and WebSockets",
		SilenceUsage:  true, // report says where to find it
		SilenceErrors: true,
		RunE:          needCommand, // without Args, cobra suggests commands for mistyped ones
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&a.configFile, "config", "", "configuration `file` in YAML (default: $TANDEM_CONFIG, or none)")
	flags.Var(a.override("--redis", "redis"), "redis", "Redis `URL`, or embedded:")
	flags.Var(a.override("--log-level", "log.level"), "log-level", "debug, info, warn or error")
	flags.Var(a.override("--log-format", "log.format"), "log-format", "text or json")
	flags.Var(setFlag{a}, "set", "any other setting, as `path=value`, such as session.idle_timeout=1h; can be repeated")
	root.AddCommand(serveCommand(a), checkCommand(a), usersCommand(a), sessionsCommand(a), versionCommand(a))
	return root
}

// group is a command that holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: needCommand}
	c.AddCommand(commands...)
	return c
}

func needCommand(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("a command is missing after %q: %s", c.CommandPath(), strings.Join(names, ", "))
}

// action makes the RunE of a command whose errors are failures of the
// command, not of its command line.
func action(run func(c *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := run(c, args); err != nil {
			return failure{err}
		}
		return nil
	}
}

// load reads the configuration that the command line asks for. With Faults
// the configuration comes too, for its Log section.
func (a *app) load() (*config.Config, error) {
	cfg, err := config.Load(config.Source{File: a.configFile, Getenv: a.getenv, Flags: a.overrides})
	if err != nil {
		return cfg, err
	}
	return cfg, validate(cfg)
}

// override is the value of the flag name, which stands for the setting at path.
func (a *app) override(name, path string) *overrideFlag {
	return &overrideFlag{app: a, name: name, path: path}
}

type overrideFlag struct {
	app        *app
	name, path string
	text       string
}

func (f *overrideFlag) String() string { return f.text }
func (f *overrideFlag) Type() string   { return "text" }

func (f *overrideFlag) Set(text string) error {
	f.text = text
	f.app.overrides = append(f.app.overrides, config.Flag{Name: f.name, Path: f.path, Value: text})
	return nil
}

// setFlag is --set path=value.
type setFlag struct{ app *app }

func (setFlag) String() string { return "" }
func (setFlag) Type() string   { return "text" }

func (f setFlag) Set(text string) error {
	path, value, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("write it as path=value")
	}
	f.app.overrides = append(f.app.overrides, config.Flag{Name: "--set", Path: path, Value: value})
	return nil
}
