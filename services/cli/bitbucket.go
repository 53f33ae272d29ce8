package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

func (a *app) repos() *cobra.Command {
	refresh := false
	c := a.new("repos [QUERY]", "List the repositories that the connected account reaches", 0, 1, func(ctx context.Context, s *session, words []string) error {
		list, err := s.listRepositoriesAnew(ctx, strings.Join(words, ""), refresh)
		if err != nil {
			return err
		}
		rows := make([][]string, 0, len(list))
		for _, r := range list {
			rows = append(rows, []string{r.FullName, text(r.MainBranch), text(r.Permission), when(r.UpdateTime)})
		}
		return s.show(list, "REPOSITORY MAIN-BRANCH PERMISSION UPDATED", rows)
	})
	c.Flags().BoolVar(&refresh, "refresh", false, "ask Bitbucket anew")
	return c
}

func (s *session) listRepositories(ctx context.Context, query string) ([]devpilot.Repository, error) {
	return s.listRepositoriesAnew(ctx, query, false)
}

func (s *session) listRepositoriesAnew(ctx context.Context, query string, refresh bool) ([]devpilot.Repository, error) {
	list := []devpilot.Repository{}
	for r, err := range devpilot.Pages(func(token *string) ([]devpilot.Repository, string, error) {
		p, err := s.api.ListRepositories(ctx, s.ws, &devpilot.ListRepositoriesParams{Query: some(query), Refresh: some(refresh && token == nil), PageToken: token, PageSize: ptr(int32(200))})
		if err != nil {
			return nil, "", err
		}
		return p.Repositories, p.NextPageToken, nil
	}) {
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

func (a *app) branches() *cobra.Command {
	return a.new("branches REPOSITORY [QUERY]", "List the branches of a repository", 1, 2, func(ctx context.Context, s *session, words []string) error {
		id, err := s.repository(ctx, words[0])
		if err != nil {
			return err
		}
		list := []devpilot.Branch{}
		var rows [][]string
		for b, err := range devpilot.Pages(func(token *string) ([]devpilot.Branch, string, error) {
			p, err := s.api.ListBranches(ctx, s.ws, id, &devpilot.ListBranchesParams{Query: some(strings.Join(words[1:], "")), PageToken: token})
			if err != nil {
				return nil, "", err
			}
			return p.Branches, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, b)
			rows = append(rows, []string{b.Name, yes(b.Default), fmt.Sprintf("%.7s", b.Commit.Hash)})
		}
		return s.show(list, "BRANCH DEFAULT COMMIT", rows)
	})
}

func (a *app) integration() *cobra.Command {
	var sure bool
	refresh := a.new("refresh", "Refresh the token now", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		i, err := s.api.RefreshIntegration(ctx, s.ws, devpilot.RefreshIntegrationJSONRequestBody{})
		if err != nil {
			return err
		}
		return s.showIntegration(i)
	})
	remove := a.new("remove", "Disconnect Bitbucket from the workspace", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		if err := s.confirm(sure, "Disconnect Bitbucket from workspace "+s.ws); err != nil {
			return err
		}
		done, err := s.api.DisconnectIntegration(ctx, s.ws, nil)
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(done, "", nil)
		}
		s.say("Bitbucket is disconnected from workspace %s.", s.ws)
		return nil
	})
	remove.Flags().BoolVar(&sure, "yes", false, "do not ask")
	status := a.watchable("status", "Show the connection to Bitbucket", 0, 0, "integration", func(ctx context.Context, s *session, _ []string) error {
		i, err := s.api.GetIntegration(ctx, s.ws, nil)
		if err != nil {
			return err
		}
		return s.showIntegration(i)
	})
	connect := a.new("connect", "Open the console, where a person connects Bitbucket, and wait until it is", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		return s.connect(ctx)
	})
	return group("integration", "The connection to Bitbucket: status, connect, refresh, remove", status, connect, refresh, remove)
}

func (s *session) showIntegration(i *devpilot.Integration) error {
	rows := [][]string{{"Workspace", i.Workspace}, {"State", string(i.State)}}
	if i.Account != nil {
		rows = append(rows, []string{"Account", i.Account.Label})
	}
	if i.ConnectTime != nil {
		rows = append(rows, []string{"Connected", when(i.ConnectTime) + " by " + text(i.ConnectedBy)})
	}
	if i.Warning != nil {
		rows = append(rows, []string{"To do", text(i.Warning)})
	}
	if i.TokenExpireTime != nil {
		rows = append(rows, []string{"Token until", when(i.TokenExpireTime)})
	}
	if i.LastError != nil {
		rows = append(rows, []string{"Last error", i.LastError.Message})
	}
	return s.show(i, "", rows)
}

// connect has a person connect: Bitbucket asks one in a browser, and only who began may finish, so that it is
// begun there too. It waits until the workspace is connected.
func (s *session) connect(ctx context.Context) error {
	opened := false
	for e, err := range s.api.FollowEvents(ctx, s.ws, "") {
		switch {
		case err != nil:
			return err
		case e.Kind == "end":
			return errNoLogin
		case e.Kind == "change" && e.Change.Kind != "integration":
			continue
		}
		i, err := s.api.GetIntegration(ctx, s.ws, nil)
		if err != nil {
			return err
		}
		if i.State == devpilot.IntegrationStateCONNECTED {
			return s.showIntegration(i)
		}
		if !opened {
			opened = true
			s.showPage(ctx, s.page("/settings/integrations"))
			s.note("Press Connect there, as an owner or admin of workspace %s. Waiting …", s.ws)
		}
	}
	return nil
}

func (a *app) webhooks() *cobra.Command {
	list := a.watchable("list", "List the webhooks", 0, 0, "webhook", func(ctx context.Context, s *session, _ []string) error {
		list := []devpilot.Webhook{}
		for w, err := range devpilot.Pages(func(token *string) ([]devpilot.Webhook, string, error) {
			p, err := s.api.ListWebhooks(ctx, s.ws, &devpilot.ListWebhooksParams{PageToken: token})
			if err != nil {
				return nil, "", err
			}
			return p.Webhooks, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, w)
		}
		return s.showWebhooks(list, list)
	})
	register := a.new("register WEBHOOK", "Register it at Bitbucket again", 1, 1, func(ctx context.Context, s *session, words []string) error {
		w, err := s.api.RegisterWebhook(ctx, s.ws, words[0], nil, devpilot.RegisterWebhookJSONRequestBody{})
		if err != nil {
			return err
		}
		return s.showWebhooks(w, []devpilot.Webhook{*w})
	})
	repair := a.new("repair WEBHOOK", "Put it right at Bitbucket", 1, 1, func(ctx context.Context, s *session, words []string) error {
		w, err := s.api.RepairWebhook(ctx, s.ws, words[0], nil, devpilot.RepairWebhookJSONRequestBody{})
		if err != nil {
			return err
		}
		return s.showWebhooks(w, []devpilot.Webhook{*w})
	})
	return group("webhooks", "Webhooks at Bitbucket: list, register, repair", list, register, repair)
}

func (s *session) showWebhooks(v any, list []devpilot.Webhook) error {
	rows := make([][]string, 0, len(list))
	for _, w := range list {
		rows = append(rows, []string{w.ID, w.RepositoryFullName, string(w.State), text(w.Health), text(w.Message)})
	}
	return s.show(v, "WEBHOOK REPOSITORY STATE HEALTH MESSAGE", rows)
}

func (a *app) deliveries() *cobra.Command {
	var limit int32
	c := a.watchable("deliveries APP", "List what Bitbucket sent about an app, and what came of it", 1, 1, "delivery deployment", func(ctx context.Context, s *session, words []string) error {
		p, err := s.api.ListAppDeliveries(ctx, s.ws, words[0], &devpilot.ListAppDeliveriesParams{PageSize: &limit})
		if err != nil {
			return err
		}
		return s.showDeliveries(p.Deliveries, p.Deliveries)
	})
	c.Flags().Int32Var(&limit, "limit", 20, "at most so many, 200 at most")
	return c
}

func (s *session) showDeliveries(v any, list []devpilot.Delivery) error {
	rows := make([][]string, 0, len(list))
	for _, d := range list {
		var said []string
		for _, o := range d.Outcomes {
			said = append(said, text(o.Message))
		}
		if len(said) == 0 {
			said = append(said, d.AnswerMessage)
		}
		rows = append(rows, []string{d.Webhook, strconv.Itoa(int(d.Number)), when(&d.ReceiveTime), strconv.Itoa(int(d.AnswerStatus)), strings.Join(said, " ")})
	}
	return s.show(v, "WEBHOOK NUMBER RECEIVED ANSWER OUTCOME", rows)
}

func (a *app) replay() *cobra.Command {
	return a.new("replay WEBHOOK NUMBER", "Decide about a delivery again", 2, 2, func(ctx context.Context, s *session, words []string) error {
		n, err := number(words[1])
		if err != nil {
			return err
		}
		d, err := s.api.ReplayDelivery(ctx, s.ws, words[0], n, devpilot.ReplayDeliveryJSONRequestBody{})
		if err != nil {
			return err
		}
		return s.showDeliveries(d, []devpilot.Delivery{*d})
	})
}

func (a *app) why() *cobra.Command {
	var p devpilot.ExplainParams
	var commit, delivery, branch, repository string
	var deployment int32
	c := a.new("why [APP]", "Say why a push did or did not deploy", 0, 1, func(ctx context.Context, s *session, words []string) error {
		p = devpilot.ExplainParams{Commit: some(commit), Delivery: some(delivery), Branch: some(branch), Deployment: some(deployment), App: some(strings.Join(words, ""))}
		if repository != "" {
			id, err := s.repository(ctx, repository)
			if err != nil {
				return err
			}
			p.Repository = &id
		}
		e, err := s.api.Explain(ctx, s.ws, &p)
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(e, "", nil)
		}
		s.say("%s", clean(e.Message))
		rows := make([][]string, 0, len(e.Steps))
		for _, step := range e.Steps {
			rows = append(rows, []string{when(step.Time), string(step.Link), string(step.State), step.Message})
		}
		if err := s.show(e, "TIME STEP STATE WHAT", rows); err != nil {
			return err
		}
		if next := remedy(e.Remedy); next != "" {
			s.say("Next: %s", next)
			if why := text(e.Remedy.Obstacle); why != "" {
				s.say("%s", clean(why))
			}
		}
		return nil
	})
	c.Flags().StringVar(&commit, "commit", "", "of this commit, or its beginning")
	c.Flags().StringVar(&delivery, "delivery", "", "of this delivery: its X-Request-UUID, or webhook/number")
	c.Flags().StringVar(&branch, "branch", "", "of the newest push to this branch")
	c.Flags().Int32Var(&deployment, "deployment", 0, "of this deployment of APP")
	c.Flags().StringVar(&repository, "repository", "", "in this repository, such as acme/web")
	return c
}

// remedy is the command that mends it.
func remedy(r *devpilot.Remedy) string {
	if r == nil {
		return ""
	}
	app, webhook := text(r.App), text(r.Webhook)
	at := func(n *int32) string {
		if n == nil {
			return ""
		}
		return " " + strconv.Itoa(int(*n))
	}
	switch r.Kind {
	case devpilot.RemedyKindRECONNECT:
		return "devpilot integration connect"
	case devpilot.RemedyKindOPENINTEGRATION:
		return "devpilot integration status"
	case devpilot.RemedyKindREGISTERWEBHOOK:
		return "devpilot webhooks register " + webhook
	case devpilot.RemedyKindREPAIRWEBHOOK:
		return "devpilot webhooks repair " + webhook
	case devpilot.RemedyKindSWITCHAUTODEPLOYON:
		return "devpilot apps set " + app + " --auto-deploy"
	case devpilot.RemedyKindDEPLOY:
		return "devpilot deploy " + app
	case devpilot.RemedyKindREDEPLOY:
		return "devpilot redeploy " + app + at(r.Deployment)
	case devpilot.RemedyKindREPLAYDELIVERY:
		return "devpilot replay " + webhook + at(r.Delivery)
	case devpilot.RemedyKindEDITRULES:
		return "devpilot apps rules " + app
	case devpilot.RemedyKindOPENDEPLOYMENT:
		return "devpilot log " + app + at(r.Deployment)
	case devpilot.RemedyKindADDWEBHOOKBYHAND:
		return "devpilot open " + app
	case devpilot.RemedyKindCREATEAPP:
		return "devpilot apps create NAME --repository REPOSITORY"
	}
	return ""
}
