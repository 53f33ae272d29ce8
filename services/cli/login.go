package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

// maxKey bounds what is read from standard input.
const maxKey = 4096

const loginHelp = `Signs in at the Devpilot at URL, in one of two ways. The key is kept in a file that only you can read.

In a browser, which is what happens at a terminal: the command shows a code and the address of a page of Devpilot,
and opens it where it can. There you compare the code and choose a workspace, what the command line may do, and for
how long. It works on machines without a browser too: open the address in any other one.

  devpilot login https://devpilot.example.com

With an API key, or the admin token, which is read from standard input, never from the command line; at a terminal
--with-key asks for it:

  devpilot login https://devpilot.example.com < key
  devpilot login https://devpilot.example.com --with-key`

func (a *app) login() *cobra.Command {
	browser, withKey := false, false
	c := &cobra.Command{
		Use: "login [URL]", Short: "Sign in through a browser, or with an API key", Args: args(0, 1),
		Long: loginHelp,
		RunE: func(c *cobra.Command, words []string) error {
			if len(words) == 1 {
				a.url = words[0]
			}
			return a.signIn(c.Context(), browser || a.p.Secret != nil && !withKey)
		},
	}
	c.Flags().BoolVar(&browser, "browser", false, "sign in through a browser, also where standard input is no terminal")
	c.Flags().BoolVar(&withKey, "with-key", false, "sign in with an API key")
	c.MarkFlagsMutuallyExclusive("browser", "with-key")
	return c
}

func (a *app) signIn(ctx context.Context, browser bool) error {
	kept, err := a.readCredentials()
	if err != nil {
		return err
	}
	address := a.address(kept)
	if err := a.mayCarryKey(address); err != nil { // before the key is asked for
		return err
	}
	if browser {
		return a.browserLogin(ctx, address)
	}
	key, err := a.askSecret("API key for " + address + ": ")
	if err != nil {
		return err
	}
	return a.keep(ctx, kept, address, key, cmp.Or(a.workspace, a.p.Getenv("DEVPILOT_WORKSPACE")))
}

// keep keeps a key that works, for the workspace; empty for one of those that it is for.
func (a *app) keep(ctx context.Context, kept credentials, address, key, workspace string) error {
	api, err := a.client(address, key)
	if err != nil {
		return err
	}
	me, err := api.GetMe(ctx, nil)
	if devpilot.Is(err, devpilot.ReasonUnauthenticated) {
		return fmt.Errorf("%s does not know this key: %w", address, err)
	}
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(me.Workspaces))
	for _, w := range me.Workspaces {
		ids = append(ids, w.ID)
	}
	switch {
	case len(ids) == 0:
		return errors.New("the key is good, but not for any workspace: make one on the page of API keys of a workspace")
	case workspace == "":
		workspace = ids[0]
		if slices.Contains(ids, "default") {
			workspace = "default"
		}
	case !slices.Contains(ids, workspace):
		return fmt.Errorf("the key is not for workspace %q but for: %s", workspace, strings.Join(ids, ", "))
	}
	kept.Current, kept.Servers[address] = address, account{Key: key, Workspace: workspace}
	if err := a.writeCredentials(kept); err != nil {
		return err
	}
	a.say("Signed in at %s as %s, in workspace %s.", address, clean(me.Label), workspace)
	return nil
}

// askSecret asks for a line that is not shown, or reads it from standard input where no terminal is.
func (a *app) askSecret(prompt string) (string, error) {
	var line string
	var err error
	if a.p.Secret != nil {
		fmt.Fprint(a.p.Stderr, prompt)
		line, err = a.p.Secret()
	} else {
		line, err = bufio.NewReader(io.LimitReader(a.p.Stdin, maxKey)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if line = strings.TrimSpace(line); err == nil && line == "" {
		err = usage{errors.New("nothing came: type it at the prompt, or give it on standard input")}
	}
	return line, err
}

func (a *app) logout() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Sign out of this Devpilot", Args: args(0, 0),
		Long: "Forgets the key. One that a login through a browser made is ended too. Another one goes on working for whoever has it: devpilot keys revoke ends it.",
		RunE: func(c *cobra.Command, _ []string) error {
			kept, err := a.readCredentials()
			if err != nil {
				return err
			}
			address := a.address(kept)
			gone, ok := kept.Servers[address]
			if !ok {
				return fmt.Errorf("no key is kept for %s", address)
			}
			delete(kept.Servers, address)
			if kept.Current == address {
				kept.Current = ""
			}
			if err := a.writeCredentials(kept); err != nil {
				return err
			}
			return a.end(c.Context(), address, gone)
		},
	}
}

// end ends the key of an account that is forgotten here, where a login made it for this machine alone.
func (a *app) end(ctx context.Context, address string, gone account) error {
	if gone.KeyID == "" {
		a.say("The key for %s is forgotten here. It goes on working for whoever has it: devpilot keys revoke ends it.", address)
		return nil
	}
	api, err := a.client(address, gone.Key)
	if err == nil {
		_, err = api.DeleteAPIKey(ctx, gone.Workspace, gone.KeyID)
	}
	if err != nil && !devpilot.Is(err, devpilot.ReasonUnauthenticated) && !devpilot.Is(err, devpilot.ReasonAPIKeyNotFound) { // it had ended
		return fmt.Errorf("the key for %s is forgotten here, but still works: end it on the page of API keys (%w)", address, err)
	}
	a.say("Signed out of %s: its key is ended and forgotten.", address)
	return nil
}

func (a *app) whoami() *cobra.Command {
	return a.new("whoami", "Say who you are, and what you may do where", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		me, err := s.api.GetMe(ctx, nil)
		if err != nil {
			return err
		}
		rows := [][]string{{"Address", s.api.Address()}, {"You are", me.Label}, {"By", string(me.Kind)}}
		if k := me.APIKey; k != nil {
			rows = append(rows, []string{"Scope", string(k.Scope)})
			if k.Apps != nil {
				rows = append(rows, []string{"Apps", strings.Join(*k.Apps, ", ")})
			}
			if k.ExpireTime != nil {
				rows = append(rows, []string{"Expires", when(k.ExpireTime)})
			}
		}
		for _, w := range me.Workspaces {
			mark := "Workspace"
			if w.ID == s.ws {
				mark = "Workspace in use"
			}
			rows = append(rows, []string{mark, w.ID + " (" + string(w.Role) + ")"})
		}
		return s.show(me, "", rows)
	})
}

// showPage opens a page, or says where it is.
func (a *app) showPage(ctx context.Context, address string) {
	if err := a.p.Browser(ctx, address); err != nil {
		a.note("Open this page in a browser: %s", address)
		return
	}
	a.note("Opening %s in a browser. If nothing opens, open it yourself.", address)
}

func (a *app) open() *cobra.Command {
	return a.new("open [APP [NUMBER]]", "Open the console in a browser: the apps, an app, or a deployment", 0, 2, func(ctx context.Context, s *session, words []string) error {
		page := s.page("/apps")
		if len(words) > 0 {
			page += "/" + words[0]
		}
		if len(words) > 1 {
			n, err := number(words[1])
			if err != nil {
				return err
			}
			page += fmt.Sprintf("/deployments/%d", n)
		}
		s.showPage(ctx, page)
		return nil
	})
}

// page is one of the console's in the workspace.
func (s *session) page(path string) string { return s.api.Address() + "/w/" + s.ws + path }
