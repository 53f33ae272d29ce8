// Command devpilot speaks with a Devpilot that runs elsewhere. The program that runs all of the product has the
// same commands in it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"devpilot.io/bitbucket/services/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	code := cli.Run(ctx, cli.OSProcess())
	stop()
	os.Exit(code)
}
