package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

func number(word string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(word, "#"), 10, 32)
	if err != nil || n < 1 {
		return 0, usage{fmt.Errorf("%q is not the number of one", word)}
	}
	return int32(n), nil
}

func (a *app) deploy() *cobra.Command {
	var branch, commit, tag string
	var detach, pause bool
	c := a.new("deploy APP", "Deploy the newest commit, or one that is named, and show the log until it has ended", 1, 1, func(ctx context.Context, s *session, words []string) error {
		d, err := s.api.CreateDeployment(ctx, s.ws, words[0], devpilot.CreateDeploymentJSONRequestBody{
			Branch: some(branch), Commit: some(commit), Tag: some(tag), PauseAutoDeploy: some(pause),
		})
		if err != nil {
			return err
		}
		return s.followed(ctx, d, detach)
	})
	c.Flags().StringVar(&branch, "branch", "", "another branch than the app's")
	c.Flags().StringVar(&commit, "commit", "", "this commit of the branch's history, or the first 7 digits of its hash; the next push takes over")
	c.Flags().StringVar(&tag, "tag", "", "what this tag points to; the next push takes over")
	c.Flags().BoolVar(&pause, "pause-auto-deploy", false, "switch auto-deploy off, so that no push replaces the commit or tag")
	detached(c, &detach)
	return c
}

func detached(c *cobra.Command, detach *bool) {
	c.Flags().BoolVar(detach, "detach", false, "do not wait for its end")
}

// followed shows a deployment's log until it has ended, and is an error unless it is COMPLETED.
func (s *session) followed(ctx context.Context, d *devpilot.Deployment, detach bool) error {
	if detach {
		s.note("Deployment %d of %s has begun: devpilot log %s %d --follow", d.Number, d.App, d.App, d.Number)
		return s.show(d, deploymentHeading, deploymentRows(*d))
	}
	s.note("Deployment %d of %s", d.Number, d.App)
	if err := s.printLog(ctx, devpilot.LogOf{Workspace: s.ws, App: d.App, Number: d.Number}); err != nil {
		if ctx.Err() != nil {
			s.note("The deployment goes on: devpilot cancel %s %d", d.App, d.Number)
		}
		return err
	}
	return s.result(ctx, d.App, d.Number)
}

// result says how a deployment ended.
func (s *session) result(ctx context.Context, app string, n int32) error {
	d, err := s.api.GetDeployment(ctx, s.ws, app, n, nil)
	if err != nil {
		return err
	}
	if s.output != outputTable {
		if err := s.show(d, "", nil); err != nil {
			return err
		}
	}
	if d.State != devpilot.DeploymentStateCOMPLETED {
		e := ended{app: app, number: n, state: d.State}
		if d.Error != nil {
			e.said = clean(d.Error.Message)
		}
		return e
	}
	s.say("Deployment %d of %s is %s.%s", n, app, d.State, atAddress(d.ReleaseURL))
	return nil
}

func atAddress(u *string) string {
	if u == nil {
		return ""
	}
	return " " + *u
}

// printLog prints lines as they come: to people and in JSON on standard output; beside YAML, and where the answer
// is a deployment, there would be two documents.
func (s *session) printLog(ctx context.Context, of devpilot.LogOf) error {
	out := s.p.Stdout
	if s.output != outputTable {
		out = s.p.Stderr
	}
	for r, err := range s.api.FollowLog(ctx, of) {
		if err != nil {
			return err
		}
		stage := ""
		if r.Stage != nil {
			stage = strings.ToLower(string(*r.Stage))
		}
		fmt.Fprintf(out, "%s  %-10s  %s\n", r.Time.Local().Format("15:04:05"), stage, clean(r.Text))
	}
	return nil
}

func (a *app) log() *cobra.Command {
	var follow bool
	var tail int32
	c := a.new("log APP [NUMBER]", "Show the log of a deployment, the newest where no number is said", 1, 2, func(ctx context.Context, s *session, words []string) error {
		n, err := s.numberOrNewest(ctx, words)
		if err != nil {
			return err
		}
		if err := s.printLog(ctx, devpilot.LogOf{Workspace: s.ws, App: words[0], Number: n, Tail: tail, Once: !follow}); err != nil || !follow {
			return err
		}
		return s.result(ctx, words[0], n)
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "stay until the deployment has ended, and tell it by the exit code")
	c.Flags().Int32Var(&tail, "tail", 0, "only the last so many lines")
	return c
}

// numberOrNewest is the number that was said, or that of the newest deployment.
func (s *session) numberOrNewest(ctx context.Context, words []string) (int32, error) {
	if len(words) > 1 {
		return number(words[1])
	}
	app, err := s.api.GetApp(ctx, s.ws, words[0], nil)
	if err != nil {
		return 0, err
	}
	if app.Latest == nil {
		return 0, fmt.Errorf("%s has no deployment yet: devpilot deploy %s", words[0], words[0])
	}
	return app.Latest.Number, nil
}

const deploymentHeading = "APP NUMBER STATE LIVE TRIGGER COMMIT BRANCH SERVER CREATED"

func deploymentRows(list ...devpilot.Deployment) [][]string {
	rows := make([][]string, 0, len(list))
	for _, d := range list {
		ref := text(d.Branch)
		if d.Tag != nil {
			ref = "tag " + *d.Tag
		}
		rows = append(rows, []string{d.App, strconv.Itoa(int(d.Number)), string(d.State), yes(d.Live), string(d.Trigger), short(d.Commit), ref, d.Server, when(&d.CreateTime)})
	}
	return rows
}

func (a *app) deployments() *cobra.Command {
	var states []string
	var limit int32
	c := a.watchable("deployments [APP]", "List deployments, newest first", 0, 1, "deployment", func(ctx context.Context, s *session, words []string) error {
		list, err := s.listDeployments(ctx, words, states, limit)
		if err != nil {
			return err
		}
		return s.show(list, deploymentHeading, deploymentRows(list...))
	})
	c.Flags().StringSliceVar(&states, "state", nil, "only those in these states, such as FAILED,PROCESSING")
	c.Flags().Int32Var(&limit, "limit", 20, "at most so many, 200 at most")
	return c
}

func (s *session) listDeployments(ctx context.Context, words, states []string, limit int32) ([]devpilot.Deployment, error) {
	if len(words) == 1 && len(states) < 2 {
		p := &devpilot.ListDeploymentsParams{PageSize: &limit}
		if len(states) == 1 {
			p.State = ptr(devpilot.DeploymentState(strings.ToUpper(states[0])))
		}
		page, err := s.api.ListDeployments(ctx, s.ws, words[0], p)
		if err != nil {
			return nil, err
		}
		return page.Deployments, nil
	}
	if len(words) == 1 {
		return nil, usage{errors.New("of one app, deployments of one state are listed, or of all")}
	}
	p := &devpilot.ListWorkspaceDeploymentsParams{PageSize: &limit}
	for _, state := range states {
		if p.States == nil {
			p.States = &[]devpilot.DeploymentState{}
		}
		*p.States = append(*p.States, devpilot.DeploymentState(strings.ToUpper(state)))
	}
	page, err := s.api.ListWorkspaceDeployments(ctx, s.ws, p)
	if err != nil {
		return nil, err
	}
	return page.Deployments, nil
}

func (a *app) cancel() *cobra.Command {
	return a.new("cancel APP [NUMBER]", "Cancel a deployment, the newest where no number is said", 1, 2, func(ctx context.Context, s *session, words []string) error {
		n, err := s.numberOrNewest(ctx, words)
		if err != nil {
			return err
		}
		d, err := s.api.CancelDeployment(ctx, s.ws, words[0], n, nil, devpilot.CancelDeploymentJSONRequestBody{})
		if err != nil {
			return err
		}
		return s.show(d, deploymentHeading, deploymentRows(*d))
	})
}

func (a *app) redeploy() *cobra.Command {
	var detach bool
	c := a.new("redeploy APP NUMBER", "Deploy the commit of an earlier deployment again", 2, 2, func(ctx context.Context, s *session, words []string) error {
		n, err := number(words[1])
		if err != nil {
			return err
		}
		d, err := s.api.RedeployDeployment(ctx, s.ws, words[0], n, devpilot.RedeployDeploymentJSONRequestBody{})
		if err != nil {
			return err
		}
		return s.followed(ctx, d, detach)
	})
	detached(c, &detach)
	return c
}

func (a *app) rollback() *cobra.Command {
	var detach, pause bool
	c := a.new("rollback APP [NUMBER]", "Put an earlier release live again, the one before where no number is said", 1, 2, func(ctx context.Context, s *session, words []string) error {
		body := devpilot.RollBackAppJSONRequestBody{PauseAutoDeploy: some(pause)}
		if len(words) > 1 {
			n, err := number(words[1])
			if err != nil {
				return err
			}
			body.Deployment = &n
		}
		d, err := s.api.RollBackApp(ctx, s.ws, words[0], body)
		if err != nil {
			return err
		}
		return s.followed(ctx, d, detach)
	})
	detached(c, &detach)
	c.Flags().BoolVar(&pause, "pause-auto-deploy", false, "switch auto-deploy off, so that no push replaces it")
	return c
}
