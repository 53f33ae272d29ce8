package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

func (a *app) workspaces() *cobra.Command {
	list := a.new("list", "List the workspaces that you are in", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		list := []devpilot.Workspace{}
		var rows [][]string
		for w, err := range devpilot.Pages(func(token *string) ([]devpilot.Workspace, string, error) {
			p, err := s.api.ListWorkspaces(ctx, &devpilot.ListWorkspacesParams{PageToken: token})
			if err != nil {
				return nil, "", err
			}
			return p.Workspaces, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, w)
			rows = append(rows, []string{w.ID, w.DisplayName, string(w.Role), yes(w.ID == s.ws)})
		}
		return s.show(list, "WORKSPACE NAME ROLE IN-USE", rows)
	})
	var name string
	create := a.new("create ID", "Make a workspace; you become its owner", 1, 1, func(ctx context.Context, s *session, words []string) error {
		w, err := s.api.CreateWorkspace(ctx, devpilot.CreateWorkspaceJSONRequestBody{WorkspaceID: words[0], DisplayName: some(name)})
		if err != nil {
			return err
		}
		return s.show(w, "WORKSPACE NAME ROLE", [][]string{{w.ID, w.DisplayName, string(w.Role)}})
	})
	create.Flags().StringVar(&name, "name", "", "the name for people")
	use := a.new("use ID", "Mean this workspace where none is named", 1, 1, func(ctx context.Context, s *session, words []string) error {
		if _, err := s.api.GetWorkspace(ctx, words[0], nil); err != nil {
			return err
		}
		kept, err := s.readCredentials()
		if err != nil {
			return err
		}
		one, ok := kept.Servers[s.api.Address()]
		if !ok {
			return errNoLogin
		}
		one.Workspace = words[0]
		kept.Servers[s.api.Address()] = one
		if err := s.writeCredentials(kept); err != nil {
			return err
		}
		s.say("Workspace %s is meant from now on.", words[0])
		return nil
	})
	return group("workspaces", "Workspaces: list, create, rename, delete, use", list, create, a.renameWorkspace(), a.deleteWorkspace(), use)
}

func (a *app) renameWorkspace() *cobra.Command {
	return a.new("rename ID NAME", "Give a workspace another name for people; its id stays", 2, 2, func(ctx context.Context, s *session, words []string) error {
		w, err := s.api.UpdateWorkspace(ctx, words[0], nil, devpilot.UpdateWorkspaceJSONRequestBody{DisplayName: &words[1]})
		if err != nil {
			return err
		}
		return s.show(w, "WORKSPACE NAME ROLE", [][]string{{w.ID, w.DisplayName, string(w.Role)}})
	})
}

// deleteWorkspace says first what goes, and deletes just what it said.
func (a *app) deleteWorkspace() *cobra.Command {
	var sure bool
	c := a.new("delete ID", "Delete a workspace with all that is in it", 1, 1, func(ctx context.Context, s *session, words []string) error {
		p, err := s.api.PreviewDeletion(ctx, words[0], nil)
		if err != nil {
			return err
		}
		s.note("With workspace %s go %d apps with their releases, %d running deployments, %d webhooks, %d API keys and %d members.", words[0], p.AppsCount, p.DeploymentsRunning, len(p.Webhooks), p.APIKeys, p.Members)
		for _, h := range p.Webhooks {
			if h.Stays != nil {
				s.note("The webhook of %s will stay at Bitbucket. %s", clean(h.RepositoryFullName), clean(*h.Stays))
			}
		}
		if err := s.confirm(sure, "Delete workspace "+words[0]+" for good"); err != nil {
			return err
		}
		w, err := s.api.DeleteWorkspace(ctx, words[0], &devpilot.DeleteWorkspaceParams{Etag: &p.Etag})
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(w, "", nil)
		}
		s.say("Workspace %s is being deleted.", words[0])
		return nil
	})
	c.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return c
}

func (a *app) members() *cobra.Command {
	list := a.new("list", "List the members of the workspace", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		list := []devpilot.Member{}
		for m, err := range devpilot.Pages(func(token *string) ([]devpilot.Member, string, error) {
			p, err := s.api.ListMembers(ctx, s.ws, &devpilot.ListMembersParams{PageToken: token})
			if err != nil {
				return nil, "", err
			}
			return p.Members, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, m)
		}
		return s.showMembers(list, list)
	})
	var role string
	invite := a.new("invite EMAIL", "Invite somebody by a link", 1, 1, func(ctx context.Context, s *session, words []string) error {
		done, err := s.api.CreateInvitation(ctx, s.ws, devpilot.CreateInvitationJSONRequestBody{Email: words[0], Role: some(devpilot.RoleName(strings.ToUpper(role)))})
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(done, "", nil)
		}
		s.say("Send this link to %s; it works once:\n%s", words[0], done.URL)
		return nil
	})
	invite.Flags().StringVar(&role, "role", "member", "member, admin or owner")
	setRole := a.new("set-role MEMBER ROLE", "Make a member a member, admin or owner", 2, 2, func(ctx context.Context, s *session, words []string) error {
		m, err := s.api.SetMemberRole(ctx, s.ws, words[0], devpilot.SetMemberRoleJSONRequestBody{Role: devpilot.RoleName(strings.ToUpper(words[1]))})
		if err != nil {
			return err
		}
		return s.showMembers(m, []devpilot.Member{*m})
	})
	var sure bool
	remove := a.new("remove MEMBER", "Remove a member, whose sessions and keys end at once", 1, 1, func(ctx context.Context, s *session, words []string) error {
		if err := s.confirm(sure, "Remove "+words[0]+" from workspace "+s.ws); err != nil {
			return err
		}
		done, err := s.api.RemoveMember(ctx, s.ws, words[0])
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(done, "", nil)
		}
		s.say("%s is no member of workspace %s any more.", words[0], s.ws)
		return nil
	})
	remove.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return group("members", "Members of the workspace: list, invite, set-role, remove", list, invite, setRole, remove)
}

func (s *session) showMembers(v any, list []devpilot.Member) error {
	rows := make([][]string, 0, len(list))
	for _, m := range list {
		rows = append(rows, []string{m.ID, m.Label, text(m.Email), string(m.Role)})
	}
	return s.show(v, "MEMBER NAME EMAIL ROLE", rows)
}

func (a *app) keys() *cobra.Command {
	list := a.new("list", "List the API keys of the workspace", 0, 0, func(ctx context.Context, s *session, _ []string) error {
		list := []devpilot.APIKey{}
		for k, err := range devpilot.Pages(func(token *string) ([]devpilot.APIKey, string, error) {
			p, err := s.api.ListAPIKeys(ctx, s.ws, &devpilot.ListAPIKeysParams{PageToken: token})
			if err != nil {
				return nil, "", err
			}
			return p.APIKeys, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, k)
		}
		rows := make([][]string, 0, len(list))
		for _, k := range list {
			apps := "all"
			if k.Apps != nil {
				apps = strings.Join(*k.Apps, ",")
			}
			rows = append(rows, []string{k.ID, k.Label, string(k.Scope), apps, k.CreatedBy, when(k.LastUsedTime), when(k.ExpireTime)})
		}
		return s.show(list, "KEY LABEL SCOPE APPS BY LAST-USED EXPIRES", rows)
	})
	revoke := a.new("revoke KEY", "End a key, at once", 1, 1, func(ctx context.Context, s *session, words []string) error {
		done, err := s.api.DeleteAPIKey(ctx, s.ws, words[0])
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(done, "", nil)
		}
		s.say("The key %s does not work any more.", words[0])
		return nil
	})
	return group("keys", "API keys of the workspace: list, create, revoke", list, a.createKey(), revoke)
}

func (a *app) createKey() *cobra.Command {
	var scope string
	var apps []string
	var life time.Duration
	c := a.new("create LABEL", "Make a key; it is printed once, alone on standard output", 1, 1, func(ctx context.Context, s *session, words []string) error {
		body := devpilot.CreateAPIKeyJSONRequestBody{Label: words[0], Scope: some(devpilot.APIKeyScope(strings.ToUpper(scope)))}
		if len(apps) > 0 {
			body.Apps = &apps
		}
		if life > 0 {
			body.ExpireTime = ptr(time.Now().Add(life))
		}
		made, err := s.api.CreateAPIKey(ctx, s.ws, body)
		if err != nil {
			return err
		}
		if s.output != outputTable {
			return s.show(made, "", nil)
		}
		s.note("The key is shown this once. Keep it as a secret:")
		_, err = fmt.Fprintln(s.p.Stdout, made.Secret)
		return err
	})
	c.Flags().StringVar(&scope, "scope", "", "read, deploy or admin")
	c.Flags().StringSliceVar(&apps, "app", nil, "only for these apps, several with commas")
	c.Flags().DurationVar(&life, "expires-in", 0, "how long it works, such as 720h; for ever when absent")
	return c
}
