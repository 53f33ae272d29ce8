package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

// defaultURL is where a Devpilot on this machine listens.
const defaultURL = "http://127.0.0.1:8080"

// app is one run of the program.
type app struct {
	p                      Process
	url, workspace, output string
	plainHTTP              bool
}

// Run runs a command and returns the exit code.
func Run(ctx context.Context, p Process) int {
	root := command(&app{p: p})
	root.SetArgs(p.Args)
	ran, err := root.ExecuteContextC(ctx)
	return report(ctx, p, ran, err)
}

// Takes says whether the words are for this command line: a program that has commands of its own too asks.
func Takes(words []string) bool {
	if len(words) == 0 {
		return false
	}
	root := command(&app{})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	first, _, _ := strings.Cut(words[0], "=")
	if name, isFlag := strings.CutPrefix(first, "--"); isFlag {
		return root.PersistentFlags().Lookup(name) != nil
	}
	if name, isFlag := strings.CutPrefix(first, "-"); isFlag {
		return len(name) == 1 && root.PersistentFlags().ShorthandLookup(name) != nil
	}
	return first == cobra.ShellCompRequestCmd || first == cobra.ShellCompNoDescRequestCmd ||
		slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == first || c.HasAlias(first) })
}

func command(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "devpilot", Version: a.p.Version, Short: "Deploys code from Bitbucket", SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2, DisableAutoGenTag: true,
		Long: "Speaks with a Devpilot from the command line. Begin with devpilot login.\n\nDEVPILOT_URL, DEVPILOT_KEY and DEVPILOT_WORKSPACE say where it is, with which API key and in which\nworkspace, where nothing is to be kept, as in CI.\n\n" + codesHelp,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		Args: noOther,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch a.output {
			case outputTable, outputJSON, outputYAML:
				return nil
			}
			return usage{fmt.Errorf("--output is table, json or yaml, not %q", a.output)}
		},
	}
	root.SetIn(a.p.Stdin)
	root.SetOut(a.p.Stdout)
	root.SetErr(a.p.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&a.url, "url", "", "address of Devpilot (DEVPILOT_URL); that of the last login when absent")
	flags.StringVarP(&a.workspace, "workspace", "w", "", "workspace (DEVPILOT_WORKSPACE); that of the login when absent")
	flags.StringVarP(&a.output, "output", "o", outputTable, "table, json or yaml")
	flags.BoolVar(&a.plainHTTP, "plain-http", false, "send the key unencrypted over http, also to another machine")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON, outputYAML}, cobra.ShellCompDirectiveNoFileComp)) // only fails for a flag that is not there
	root.AddCommand(
		a.login(), a.logout(), a.whoami(), a.workspaces(), a.members(), a.keys(), a.integration(), a.repos(), a.branches(), a.commits(), a.tags(), a.apps(),
		a.deploy(), a.deployments(), a.log(), a.cancel(), a.redeploy(), a.rollback(), a.deliveries(), a.replay(), a.why(), a.webhooks(), a.open(),
		a.reference(),
	)
	return root
}

// usage is an error of how the program was called.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// args checks how many words follow a command.
func args(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, words []string) error {
		if len(words) >= least && len(words) <= most {
			return nil
		}
		return usage{fmt.Errorf("%s is called as: %s", c.CommandPath(), c.UseLine())}
	}
}

// noOther refuses a word behind a command that only has others, and says what may have been meant.
func noOther(c *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	if near := c.SuggestionsFor(words[0]); len(near) > 0 {
		return usage{fmt.Errorf("%s has no command %q: did you mean %s?", c.CommandPath(), words[0], strings.Join(near, " or "))}
	}
	return usage{fmt.Errorf("%s has no command %q", c.CommandPath(), words[0])}
}

// new makes a command that calls the API.
func (a *app) new(use, short string, least, most int, run func(ctx context.Context, s *session, words []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args(least, most), RunE: func(c *cobra.Command, words []string) error {
		s, err := a.session()
		if err != nil {
			return err
		}
		return run(c.Context(), s, words)
	}}
}

// group makes a command that only has others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, SuggestionsMinimumDistance: 2, Args: noOther, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	g.AddCommand(commands...)
	return g
}

// session is a command's way to the API.
type session struct {
	*app
	api *devpilot.Client
	ws  string
}

var errNoLogin = errors.New("you are not signed in: run devpilot login")

// session says where to call and as whom: flags, then variables, then what the last login kept.
func (a *app) session() (*session, error) {
	kept, err := a.readCredentials()
	if err != nil {
		return nil, err
	}
	address := a.address(kept)
	known := kept.Servers[address]
	key := cmp.Or(strings.TrimSpace(a.p.Getenv("DEVPILOT_KEY")), known.Key)
	if key == "" {
		return nil, errNoLogin
	}
	api, err := a.client(address, key)
	if err != nil {
		return nil, err
	}
	return &session{app: a, api: api, ws: cmp.Or(a.workspace, a.p.Getenv("DEVPILOT_WORKSPACE"), known.Workspace, "default")}, nil
}

func (a *app) address(kept credentials) string {
	return strings.TrimRight(cmp.Or(a.url, a.p.Getenv("DEVPILOT_URL"), kept.Current, defaultURL), "/")
}

// mayCarryKey refuses to send a key where others can read it: over http to another machine. A name that is not this
// machine's by definition (RFC 6761) may be anybody's.
func (a *app) mayCarryKey(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || a.plainHTTP {
		return nil //nolint:nilerr // the client says what is wrong with an address
	}
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil
	}
	return usage{fmt.Errorf("%s is not encrypted: whoever is on the way could read the key. Use https, or say --plain-http where the network is trusted", address)}
}

func (a *app) client(address, key string) (*devpilot.Client, error) {
	if err := a.mayCarryKey(address); err != nil {
		return nil, err
	}
	api, err := devpilot.New(address, devpilot.WithKey(key), devpilot.WithUserAgent("devpilot-cli/"+a.p.Version))
	if err != nil {
		return nil, usage{err}
	}
	return api, nil
}
