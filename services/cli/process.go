package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/term"
)

// Process is what the command line sees of the machine.
type Process struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(name string) string
	// Directory is where credentials are kept.
	Directory func() (string, error)
	// Hostname is what this machine calls itself; nil where it has no name.
	Hostname func() (string, error)
	// Browser shows an address.
	Browser func(ctx context.Context, address string) error
	// Terminal says whether answers are read by a person; Secret, where standard input is a terminal, asks for a
	// line without showing it, and is nil elsewhere.
	Terminal bool
	Secret   func() (string, error)
	Version  string
}

// version is set by the linker.
var version = "dev"

// OSProcess is the process that this is.
func OSProcess() Process {
	p := Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
		Directory: os.UserConfigDir, Hostname: os.Hostname, Browser: openBrowser, Terminal: term.IsTerminal(int(os.Stdout.Fd())), //nolint:gosec // a descriptor
	}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) { //nolint:gosec // a descriptor
		p.Secret = func() (string, error) {
			raw, err := term.ReadPassword(in)
			fmt.Fprintln(os.Stderr)
			return string(raw), err
		}
	}
	return p
}

func openBrowser(ctx context.Context, address string) error {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	if _, err := exec.LookPath(name); err != nil {
		return errors.New("no browser is known on this machine")
	}
	return exec.CommandContext(context.WithoutCancel(ctx), name, args...).Start() //nolint:gosec // the browser, with an address of ours; it may stay
}
