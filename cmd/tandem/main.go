// Command tandem is a session-sharing gateway: web pages and WebSockets read
// and write the same cookie session in Redis, on any number of replicas.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command was understood and failed
	exitUsage  = 2 // the command line was not understood
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		cancel() // serve drains, everything else stops
		<-signals
		os.Exit(exitFailed)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// env is what a command sees of the process, so that tests can be one.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// run runs one command line, without the program's name, and returns the exit
// code. Ending ctx ends the command; serve drains first.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	root := rootCommand(env{stdin, stdout, stderr, getenv})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.CommandPath(), root.ExecuteContext(ctx))
}

// errReported fails a command that has said why already.
var errReported = errors.New("reported")

// failure marks an error of a command that was understood. Every other error
// comes from the command line's parser.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// report says what went wrong and returns the exit code for it.
func report(stderr io.Writer, name string, err error) int {
	var faults config.Faults
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &faults):
		fmt.Fprintln(stderr, faults)
		for _, fault := range faults {
			if fault.Flag() {
				return exitUsage
			}
		}
		return exitFailed
	case errors.As(err, new(failure)):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return exitFailed
	default:
		fmt.Fprintf(stderr, "%s: %v\nRun `%s --help` for usage.\n", name, strings.TrimSpace(err.Error()), name)
		return exitUsage
	}
}
