package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// newPassword asks for a password twice on the terminal, or reads one line
// of standard input for programs.
func (a *app) newPassword(ctx context.Context, fromStdin bool) (string, error) {
	if fromStdin {
		return readLine(a.stdin)
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", errors.New("standard input is no terminal to ask for the password; pass it with --password-stdin")
	}
	first, err := a.prompt(ctx, terminal, "Password: ")
	if err != nil {
		return "", err
	}
	second, err := a.prompt(ctx, terminal, "Again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the passwords differ")
	}
	return first, nil
}

// maxLine is more than any password may have.
const maxLine = 64 << 10

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if line == "" {
		return "", errors.New("standard input is empty; it must hold the password")
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// prompt reads a line that is not shown. When ctx ends (Ctrl-C) it returns at
// once and makes the terminal show what is typed again; the read that is
// left behind ends with the process.
func (a *app) prompt(ctx context.Context, terminal *os.File, text string) (string, error) {
	fd := int(terminal.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	fmt.Fprint(a.stderr, text)
	defer fmt.Fprintln(a.stderr)
	type result struct {
		line []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		done <- result{line, err}
	}()
	select {
	case r := <-done:
		return string(r.line), r.err
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}
