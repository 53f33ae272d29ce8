// Command devpilot is the whole product in one process, for a laptop or one small machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mattn/go-isatty"

	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone"
)

type cli struct {
	Run struct {
		allinone.Settings `embed:""`
	} `cmd:"" default:"withargs" help:"Start Devpilot (the default)."`
	SignIn struct {
		servicemain.DataFlags `embed:""`
		URL                   string `name:"url" default:"http://${listen}" help:"Address of the running Devpilot."`
	} `cmd:"" name:"sign-in" help:"Print a link that signs you in at a running Devpilot, once, within five minutes."`
	Keys struct {
		Directory string `arg:"" help:"Directory to make them in; nothing in it is overwritten."`
	} `cmd:"" help:"Make the keys and the admin token that services in processes of their own need."`
	AcceptLoss struct {
		servicemain.DataFlags `embed:""`
		NATSURL               seal.Secret `name:"nats-url" env:"DEVPILOT_NATS_URL" help:"URL of NATS, where it is not the embedded one of the data directory."`
		Bucket                string      `arg:"" help:"The bucket, as the error says it."`
	} `cmd:"" name:"accept-loss" help:"Carry on without the records that a damaged store has lost. Stop Devpilot first, and restore a backup instead if there is one."`
	Version struct{} `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := lifecycle.Signals(context.Background())
	context.AfterFunc(ctx, stop) // a second signal kills
	code := run(ctx, servicemain.OSProcess())
	stop()
	os.Exit(code)
}

func run(ctx context.Context, process servicemain.Process) int {
	var c cli
	parsed, err := servicemain.Parse(process, servicemain.Settings{
		Name: "devpilot", Description: "Deploys code from Bitbucket. Starts all of the product in one process.", Grammar: &c,
		Vars: map[string]string{"listen": allinone.DefaultListen, "ops_listen": allinone.DefaultOpsListen, "drain_delay": "0s"},
	})
	if errors.Is(err, servicemain.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(process.Stderr, "devpilot: %v\n", err)
		return 2
	}
	switch command, _, _ := strings.Cut(parsed.Command(), " "); command {
	case "version":
		fmt.Fprintln(process.Stdout, "devpilot", servicemain.Version)
	case "keys":
		err = allinone.MakeKeys(process.Stdout, c.Keys.Directory)
	case "sign-in":
		err = allinone.PrintSignInURL(ctx, process.Stdout, c.SignIn.URL, c.SignIn.DataDir)
	case "accept-loss":
		err = allinone.AcceptLoss(ctx, process.Stdout, c.AcceptLoss.NATSURL, c.AcceptLoss.DataDir, c.AcceptLoss.Bucket)
	default:
		err = serve(ctx, process, c.Run.Settings)
	}
	if err != nil {
		fmt.Fprintf(process.Stderr, "devpilot: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, process servicemain.Process, settings allinone.Settings) error {
	logger, err := logs.New(process.Stderr, settings.Format(process.Stderr), settings.LogLevel)
	if err != nil {
		return err
	}
	if settings.Emulator && settings.EmulatorScenario == "" {
		settings.EmulatorScenario = allinone.DefaultScenario
	}
	product, err := allinone.New(ctx, settings, logger)
	if err != nil {
		return err
	}
	out, isFile := process.Stdout.(*os.File)
	product.Started = func(ctx context.Context, p *allinone.Product) {
		p.Greeting(ctx, process.Stdout, os.Args[0], isFile && isatty.IsTerminal(out.Fd()))
	}
	return product.Run(ctx)
}
