package server

import (
	"context"
	"crypto/sha256"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/token"
)

// IssueToken hands out an access token.
func (s *Server) IssueToken(ctx context.Context, req *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
	if err := needWorkspace(req.GetWorkspace()); err != nil {
		return nil, err
	}
	life := token.DefaultMinLife
	if d := req.GetMinLife(); d != nil {
		if err := d.CheckValid(); err != nil || d.AsDuration() < 0 || d.AsDuration() > token.MaxMinLife {
			return nil, apierr.InvalidArgument("minLife", fmt.Sprintf("give a duration from 0s to %.0fs", token.MaxMinLife.Seconds()))
		}
		life = d.AsDuration()
	}
	if n := len(req.GetRejectedTokenSha256()); n != 0 && n != sha256.Size {
		return nil, apierr.InvalidArgument("rejectedTokenSha256", "give the 32 bytes of a SHA-256")
	}
	allowed, err := s.within(ctx, req.GetWorkspace(), req.GetBitbucketWorkspaceId())
	if err != nil {
		return nil, err
	}
	tok, err := s.cfg.Tokens.Issue(ctx, req.GetWorkspace(), life, req.GetRejectedTokenSha256())
	if err != nil {
		return nil, fmt.Errorf("issue a token: %w", kv.ToAPI(err))
	}
	return &authv1.IssueTokenResponse{
		AccessToken: tok.Access.Reveal(), ExpireTime: stampOrNil(tok.ExpireTime), ConnectionId: tok.ConnectionID,
		SiteUrl: tok.SiteURL, ApiUrl: tok.APIURL, AccountUuid: tok.AccountUUID, NarrowedTo: allowed,
	}, nil
}
