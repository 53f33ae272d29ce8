// Command bitbucket-emulator serves the Bitbucket Cloud emulator as a process of its own. It prints one line with its
// URL when it is ready, and ends cleanly on SIGTERM or SIGINT.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/servicemain"
)

type flags struct {
	Listen   string           `help:"Address to listen on; port 0 takes a free one." default:"127.0.0.1:8081" env:"DEVPILOT_EMULATOR_LISTEN"`
	SiteURL  string           `help:"Origin under which browser, git and API reach it. Default: http:// and the bound address." env:"DEVPILOT_EMULATOR_SITE_URL"`
	DataDir  string           `help:"Where state and git repositories live. Default: a temporary directory." env:"DEVPILOT_EMULATOR_DATA_DIR" type:"path"`
	Scenario string           `help:"What to start with: ${scenarios}." aliases:"emulator-scenario" default:"sample" env:"DEVPILOT_EMULATOR_SCENARIO"`
	LogLevel string           `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error" env:"DEVPILOT_LOG_LEVEL"`
	Version  kong.VersionFlag `help:"Print the version and exit."`

	ClientID         string   `help:"Key of the OAuth consumer." env:"DEVPILOT_BITBUCKET_CLIENT_ID"`
	ClientSecretFile string   `help:"File with the secret of the OAuth consumer. The secret itself may come in DEVPILOT_BITBUCKET_CLIENT_SECRET." env:"DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE" type:"path"`
	CallbackURL      string   `help:"Callback URL of the OAuth consumer." default:"http://127.0.0.1:8080/oauth/bitbucket/callback" env:"DEVPILOT_EMULATOR_CALLBACK_URL"`
	Scopes           []string `help:"Scopes ticked on the OAuth consumer." default:"account,email,repository,webhook"`

	Rotate         bool          `help:"Every refresh answers with a new refresh token." default:"true" negatable:""`
	Grace          time.Duration `help:"How long a used refresh token goes on working." default:"0s"`
	AccessTTL      time.Duration `help:"Life of an access token." default:"2h"`
	IdleExpiry     time.Duration `help:"Life of an unused refresh token." default:"2160h"`
	GrantTTL       time.Duration `help:"Life of a whole grant; 0 is for ever." default:"0s"`
	ScopeField     string        `help:"Name of the field with the scopes." default:"scope" enum:"scope,scopes"`
	TokenLength    int           `help:"Characters of a token." default:"2700"`
	LockOut        bool          `help:"Refuse valid refresh tokens for a while after a dead one was used."`
	LockOutFor     time.Duration `help:"How long such a lock-out lasts." default:"3m"`
	SharedGrants   bool          `help:"A new grant of an account replaces its older ones."`
	DeadTokenError string        `help:"Error for a dead refresh token." default:"unauthorized_client" enum:"unauthorized_client,invalid_request,invalid_grant"`
	Latency        time.Duration `help:"Delay of every answer of the REST API and the token endpoint." default:"0s"`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("bitbucket-emulator"), kong.Description("Bitbucket Cloud as a local server, for trying and testing."),
		kong.Vars{"scenarios": strings.Join(emulator.Scenarios(), ", "), "version": "bitbucket-emulator " + servicemain.Version})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, &f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bitbucket-emulator:", err)
		os.Exit(1)
	}
}

// run serves until the context ends.
func run(ctx context.Context, f *flags) error {
	options, err := f.options()
	if err != nil {
		return err
	}
	server, err := emulator.Start(f.Listen, options)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the address %s is in use; choose another with --listen", f.Listen)
	}
	if err != nil {
		return err
	}
	if err := server.Control().SetLatency(ctx, f.Latency); err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Println("bitbucket-emulator ready at", server.SiteURL())
	select {
	case <-ctx.Done():
		return server.Close()
	case err := <-server.Done():
		return errors.Join(err, server.Close())
	}
}

func (f *flags) options() (emulator.Options, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		return emulator.Options{}, fmt.Errorf("--log-level: %w", err)
	}
	consumer, err := f.consumer()
	if err != nil {
		return emulator.Options{}, err
	}
	return emulator.Options{
		SiteURL: f.SiteURL, DataDir: f.DataDir, Scenario: f.Scenario, Consumer: consumer,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Tokens: emulator.TokenOptions{
			Rotate: f.Rotate, Grace: f.Grace, AccessTTL: f.AccessTTL, IdleExpiry: f.IdleExpiry, GrantTTL: f.GrantTTL,
			ScopeField: f.ScopeField, Length: f.TokenLength, LockOut: f.LockOut, LockOutFor: f.LockOutFor,
			SharedGrants: f.SharedGrants, DeadTokenError: f.DeadTokenError,
		},
	}, nil
}

// consumer takes the secret from a file or the environment, never from an argument.
func (f *flags) consumer() (emulator.Consumer, error) {
	consumer := emulator.DefaultConsumer()
	consumer.CallbackURL, consumer.Scopes = f.CallbackURL, f.Scopes
	secret := os.Getenv("DEVPILOT_BITBUCKET_CLIENT_SECRET")
	if f.ClientSecretFile != "" {
		raw, err := os.ReadFile(f.ClientSecretFile)
		if err != nil {
			return consumer, fmt.Errorf("--client-secret-file: %w", err)
		}
		secret = strings.TrimSpace(string(raw))
	}
	if (f.ClientID == "") != (secret == "") {
		return consumer, errors.New("--client-id and the client secret belong together: give both or neither")
	}
	if f.ClientID != "" {
		consumer.Key, consumer.Secret = f.ClientID, secret
	}
	return consumer, nil
}
