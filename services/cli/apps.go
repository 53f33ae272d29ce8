package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

// maxFile bounds a file of hooks or rules.
const maxFile = 1 << 20

func (a *app) apps() *cobra.Command {
	var query, order, view string
	var states []string
	var auto bool
	var list *cobra.Command
	list = a.watchable("list", "List the apps", 0, 0, "app deployment", func(ctx context.Context, s *session, _ []string) error {
		p := devpilot.ListAppsParams{Query: some(query), OrderBy: some(order), View: some(devpilot.ListAppsRequestView(strings.ToUpper(view)))}
		if list.Flags().Changed("auto-deploy") {
			p.AutoDeploy = &auto
		}
		if len(states) > 0 {
			p.LatestStates = &[]devpilot.DeploymentState{}
		}
		for _, state := range states {
			*p.LatestStates = append(*p.LatestStates, devpilot.DeploymentState(strings.ToUpper(state)))
		}
		list, err := s.listApps(ctx, p)
		if err != nil {
			return err
		}
		rows := make([][]string, 0, len(list))
		for _, one := range list {
			rows = append(rows, appRow(one))
		}
		return s.show(list, "APP REPOSITORY BRANCH AUTO-DEPLOY LIVE LATEST SYNC", rows)
	})
	list.Flags().StringVar(&query, "query", "", "only those whose id, repository or branch has this in it")
	list.Flags().StringVar(&order, "order-by", "", "id, updateTime, deployTime, need or match")
	list.Flags().StringSliceVar(&states, "state", nil, "only those whose newest deployment is in one of these states, such as FAILED,PROCESSING")
	list.Flags().BoolVar(&auto, "auto-deploy", false, "only those that deploy by themselves; =false: only the others")
	list.Flags().StringVar(&view, "view", "", "basic: without hooks and variables")
	get := a.watchable("get APP", "Show an app", 1, 1, "app deployment webhook", func(ctx context.Context, s *session, words []string) error {
		one, err := s.api.GetApp(ctx, s.ws, words[0], nil)
		if err != nil {
			return err
		}
		return s.showApp(one)
	})
	return group("apps", "Apps: list, get, create, set, variables, hooks, rules, delete",
		list, get, a.createApp(), a.setApp(), a.variables(), a.hooks(), a.rules(), a.deleteApp())
}

func (s *session) listApps(ctx context.Context, params devpilot.ListAppsParams) ([]devpilot.App, error) {
	params.PageSize = ptr(int32(200))
	list := []devpilot.App{}
	for one, err := range devpilot.Pages(func(token *string) ([]devpilot.App, string, error) {
		params.PageToken = token
		p, err := s.api.ListApps(ctx, s.ws, &params)
		if err != nil {
			return nil, "", err
		}
		return p.Apps, p.NextPageToken, nil
	}) {
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

func summary(d *devpilot.DeploymentSummary) string {
	if d == nil {
		return "-"
	}
	return fmt.Sprintf("#%d %s %s", d.Number, d.State, short(d.Commit))
}

func appRow(one devpilot.App) []string {
	sync := "-"
	if one.Sync != nil {
		sync = string(one.Sync.State)
	}
	return []string{one.ID, one.RepositoryFullName, one.Branch, yes(one.AutoDeploy), summary(one.Live), summary(one.Latest), sync}
}

func (s *session) showApp(one *devpilot.App) error {
	rows := [][]string{
		{"App", one.ID}, {"Repository", one.RepositoryFullName}, {"Branch", one.Branch}, {"Auto-deploy", yes(one.AutoDeploy)},
		{"Live", summary(one.Live)}, {"Latest", summary(one.Latest)}, {"Server", one.Server},
	}
	if one.LiveURL != nil {
		rows = append(rows, []string{"Served at", *one.LiveURL})
	}
	if one.Sync != nil {
		rows = append(rows, []string{"Sync", string(one.Sync.State) + ": " + one.Sync.Message})
	}
	for _, w := range one.Warnings {
		rows = append(rows, []string{"Warning", w.Message})
	}
	return s.show(one, "", rows)
}

// repository is the id of a repository that is named as on Bitbucket, such as acme/web, or by its id.
func (s *session) repository(ctx context.Context, name string) (string, error) {
	if !strings.Contains(name, "/") {
		return name, nil
	}
	list, err := s.listRepositories(ctx, name)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(list, func(r devpilot.Repository) bool { return strings.EqualFold(r.FullName, name) })
	if i < 0 {
		return "", fmt.Errorf("the connected account reaches no repository %s: devpilot repos lists them", name)
	}
	return list[i].ID, nil
}

func (a *app) createApp() *cobra.Command {
	var repository, branch string
	var auto, now bool
	c := a.new("create APP", "Make an app of a repository and a branch", 1, 1, func(ctx context.Context, s *session, words []string) error {
		id, err := s.repository(ctx, repository)
		if err != nil {
			return err
		}
		one, err := s.api.CreateApp(ctx, s.ws, devpilot.CreateAppJSONRequestBody{
			AppID: words[0], DeployNow: some(now), App: devpilot.AppInput{Repository: id, Branch: branch, AutoDeploy: &auto},
		})
		if err != nil {
			return err
		}
		return s.showApp(one)
	})
	c.Flags().StringVar(&repository, "repository", "", "the repository, such as acme/web, or its id")
	c.Flags().StringVar(&branch, "branch", "main", "the branch, or a pattern such as release/*")
	c.Flags().BoolVar(&auto, "auto-deploy", false, "deploy each push")
	c.Flags().BoolVar(&now, "deploy-now", false, "deploy the newest commit at once")
	_ = c.MarkFlagRequired("repository") // only fails for a flag that is not there
	return c
}

func (a *app) setApp() *cobra.Command {
	var branch, server, repository string
	var retention int32
	var auto, cancelRunning, status, badge, asCode bool
	var shared []string
	var c *cobra.Command
	c = a.new("set APP", "Change what the flags say, and nothing else", 1, 1, func(ctx context.Context, s *session, words []string) error {
		patch := devpilot.AppPatch{}
		given := 0
		set := func(name string, do func()) {
			if c.Flags().Changed(name) {
				do()
				given++
			}
		}
		set("branch", func() { patch.Branch = &branch })
		set("server", func() { patch.Server = &server })
		set("retention", func() { patch.Retention = &retention })
		set("auto-deploy", func() { patch.AutoDeploy = &auto })
		set("cancel-running", func() { patch.CancelRunning = &cancelRunning })
		set("commit-status", func() { patch.CommitStatus = &status })
		set("badge", func() { patch.Badge = &badge })
		set("config-as-code", func() { patch.ConfigAsCode = &asCode })
		set("shared-path", func() { patch.SharedPaths = &shared })
		if repository != "" {
			id, err := s.repository(ctx, repository)
			if err != nil {
				return err
			}
			patch.Repository = &id
			given++
		}
		if given == 0 {
			return usage{fmt.Errorf("nothing to change was said: %s --help lists what there is", c.CommandPath())}
		}
		return s.patched(ctx, words[0], patch)
	})
	f := c.Flags()
	f.StringVar(&repository, "repository", "", "the repository, such as acme/web, or its id")
	f.StringVar(&branch, "branch", "", "the branch, or a pattern such as release/*")
	f.StringVar(&server, "server", "", "the server that runs the deployments")
	f.Int32Var(&retention, "retention", 0, "how many releases are kept beside the live one")
	f.BoolVar(&auto, "auto-deploy", false, "deploy each push; --auto-deploy=false switches it off")
	f.BoolVar(&cancelRunning, "cancel-running", false, "a newer push cancels the running deployment")
	f.BoolVar(&status, "commit-status", false, "tell Bitbucket the state of deployments")
	f.BoolVar(&badge, "badge", false, "have a status badge that everybody sees")
	f.BoolVar(&asCode, "config-as-code", false, "let .devpilot.yaml in the repository count")
	f.StringSliceVar(&shared, "shared-path", nil, "a path that outlives releases; all of them, several with commas")
	return c
}

func (s *session) patched(ctx context.Context, name string, patch devpilot.AppPatch) error {
	one, err := s.api.UpdateApp(ctx, s.ws, name, nil, patch)
	if err != nil {
		return err
	}
	return s.showApp(one)
}

func (a *app) deleteApp() *cobra.Command {
	var sure bool
	c := a.new("delete APP", "Delete an app, with its deployments and releases", 1, 1, func(ctx context.Context, s *session, words []string) error {
		if err := s.confirm(sure, "Delete the app "+words[0]+" with its deployments and releases"); err != nil {
			return err
		}
		done, err := s.api.DeleteApp(ctx, s.ws, words[0], nil)
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(done, "", nil)
		}
		s.say("The app %s is deleted.", words[0])
		return nil
	})
	c.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return c
}

// fromFile makes a value of JSON or YAML in a file, or on standard input for -. A field that there is not is an
// error.
func (a *app) fromFile(path string, into any) error {
	in := a.p.Stdin
	if path != "-" {
		f, err := os.Open(path) //nolint:gosec // the caller's own file
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxFile))
	if err != nil {
		return err
	}
	if raw, err = yaml.YAMLToJSON(raw); err != nil { // JSON is YAML
		return usage{fmt.Errorf("%s is neither YAML nor JSON: %w", path, err)}
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return usage{fmt.Errorf("%s: %w", path, err)}
	}
	return nil
}

func (a *app) hooks() *cobra.Command {
	var file string
	c := a.new("hooks APP", "Show the deployment hooks, or set them from a file", 1, 1, func(ctx context.Context, s *session, words []string) error {
		if file != "" {
			var list []devpilot.DeploymentHookInput
			if err := s.fromFile(file, &list); err != nil {
				return err
			}
			if _, err := s.api.UpdateApp(ctx, s.ws, words[0], nil, devpilot.AppPatch{Hooks: &list}); err != nil {
				return err
			}
		}
		one, err := s.api.GetApp(ctx, s.ws, words[0], nil)
		if err != nil {
			return err
		}
		rows := make([][]string, 0, len(one.Hooks))
		for _, h := range one.Hooks {
			rows = append(rows, []string{string(h.Stage), h.Name, fmt.Sprint(h.Priority), yes(h.Active == nil || *h.Active), h.Command})
		}
		return s.show(one.Hooks, "STAGE NAME PRIORITY ACTIVE COMMAND", rows)
	})
	c.Flags().StringVarP(&file, "file", "f", "", "all hooks, as YAML or JSON; - for standard input")
	return c
}

func (a *app) rules() *cobra.Command {
	var file string
	c := a.new("rules APP", "Show which pushes deploy, or set it from a file", 1, 1, func(ctx context.Context, s *session, words []string) error {
		if file != "" {
			var rules devpilot.AppRulesInput
			if err := s.fromFile(file, &rules); err != nil {
				return err
			}
			if _, err := s.api.UpdateApp(ctx, s.ws, words[0], &devpilot.UpdateAppParams{UpdateMask: ptr("rules")}, devpilot.AppPatch{Rules: &rules}); err != nil {
				return err
			}
		}
		one, err := s.api.GetApp(ctx, s.ws, words[0], nil)
		if err != nil {
			return err
		}
		rules := devpilot.AppRules{}
		if one.Rules != nil {
			rules = *one.Rules
		}
		raw, err := json.Marshal(rules)
		if err != nil {
			return err
		}
		asYAML, err := yaml.JSONToYAML(raw)
		if err != nil {
			return err
		}
		if s.output == outputTable {
			_, err = fmt.Fprintf(s.p.Stdout, "branch: %s\n%s", clean(one.Branch), asYAML)
			return err
		}
		return s.show(rules, "", nil)
	})
	c.Flags().StringVarP(&file, "file", "f", "", "the rules, as YAML or JSON; - for standard input")
	return c
}
