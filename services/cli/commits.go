package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"devpilot.io/bitbucket/services/gateway/client/devpilot"
)

func commitRow(c devpilot.BranchCommit) []string {
	subject, _, _ := strings.Cut(text(c.Message), "\n")
	return []string{fmt.Sprintf("%.7s", c.Hash), when(c.Time), text(c.AuthorName), subject}
}

func (a *app) commits() *cobra.Command {
	var limit int32
	c := a.new("commits REPOSITORY [BRANCH]", "List the commits of a branch, newest first, the main branch's where none is said", 1, 2, func(ctx context.Context, s *session, words []string) error {
		if limit < 1 {
			return usage{fmt.Errorf("--limit is at least 1, not %d", limit)}
		}
		id, err := s.repository(ctx, words[0])
		if err != nil {
			return err
		}
		list := []devpilot.BranchCommit{}
		var rows [][]string
		for one, err := range devpilot.Pages(func(token *string) ([]devpilot.BranchCommit, string, error) {
			p, err := s.api.ListCommits(ctx, s.ws, id, &devpilot.ListCommitsParams{Branch: some(strings.Join(words[1:], "")), PageToken: token, PageSize: &limit})
			if err != nil {
				return nil, "", err
			}
			return p.Commits, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, one)
			rows = append(rows, commitRow(one))
			if len(list) == int(limit) {
				break
			}
		}
		return s.show(list, "COMMIT TIME AUTHOR MESSAGE", rows)
	})
	c.Flags().Int32Var(&limit, "limit", 20, "at most so many")
	return c
}

func (a *app) tags() *cobra.Command {
	return a.new("tags REPOSITORY [QUERY]", "List the tags of a repository, the newest commit first", 1, 2, func(ctx context.Context, s *session, words []string) error {
		id, err := s.repository(ctx, words[0])
		if err != nil {
			return err
		}
		list := []devpilot.Tag{}
		var rows [][]string
		for one, err := range devpilot.Pages(func(token *string) ([]devpilot.Tag, string, error) {
			p, err := s.api.ListTags(ctx, s.ws, id, &devpilot.ListTagsParams{Query: some(strings.Join(words[1:], "")), PageToken: token})
			if err != nil {
				return nil, "", err
			}
			return p.Tags, p.NextPageToken, nil
		}) {
			if err != nil {
				return err
			}
			list = append(list, one)
			rows = append(rows, append([]string{one.Name}, commitRow(one.Commit)...))
		}
		return s.show(list, "TAG COMMIT TIME AUTHOR MESSAGE", rows)
	})
}
