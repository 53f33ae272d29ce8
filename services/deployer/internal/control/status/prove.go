package status

import (
	"context"
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
)

// Prove writes a status of its own to a commit of an app's repository, now or not at all: whoever asks waits. It
// stands beside those of deployments, and another proof overwrites it.
func (s *Sender) Prove(ctx context.Context, k lane.Key, hash string) (fullName string, err error) {
	a, err := s.cfg.Apps.App(ctx, k)
	if err != nil {
		return "", err
	}
	c, err := s.cfg.Connections.Get(ctx, k.Workspace)
	if err != nil {
		return "", err
	}
	if c.GetDisconnected() || c.GetConnectionId() == "" {
		return "", apierr.New(apierr.ReasonNotConnected, "Bitbucket is not connected.")
	}
	idx, err := s.cfg.Apps.Index(ctx, k.Workspace, a.GetRepository())
	if err != nil {
		return "", err
	}
	fullName = idx.GetFullName()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	slug, _, _ := strings.Cut(fullName, "/")
	return fullName, s.account(k.Workspace, fullName).SetBuildStatus(ctx, bitbucket.RefByID(slug, a.GetRepository(), fullName), hash, bitbucket.BuildStatus{
		Key: proofKey(k.Workspace, c.GetConnectionId()), State: bitbucket.BuildSuccessful, Name: "Devpilot: connection",
		URL:         fmt.Sprintf("%s/w/%s/settings/integrations", strings.TrimRight(s.cfg.PublicURL, "/"), k.Workspace),
		Description: "Devpilot can write commit statuses here.",
	})
}

// account is how a workspace's calls are made.
func (s *Sender) account(workspace, fullName string) *bitbucket.Account {
	return s.cfg.Client.As(bitbucket.TokenSourceFunc(func(ctx context.Context, rejected seal.Secret) (seal.Secret, error) {
		return s.cfg.Tokens.Token(ctx, workspace, fullName, rejected)
	})).Of(workspace)
}
