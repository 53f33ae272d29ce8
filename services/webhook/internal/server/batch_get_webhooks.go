package server

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// BatchGetWebhooks gets the webhooks of some repositories: of as many as a page may have.
func (s *Server) BatchGetWebhooks(ctx context.Context, req *webhookv1.BatchGetWebhooksRequest) (*webhookv1.BatchGetWebhooksResponse, error) {
	if len(req.GetRepositories()) > pagetoken.MaxPage {
		return nil, apierr.InvalidArgument("repositories", fmt.Sprintf("at most %d", pagetoken.MaxPage))
	}
	ids := make([]string, 0, len(req.GetRepositories()))
	for i, id := range req.GetRepositories() {
		id, err := repositoryID(fmt.Sprintf("repositories[%d]", i), id)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	recs, err := s.cfg.Registry.Batch(ctx, req.GetWorkspace(), ids)
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	webhooks, err := s.showAll(ctx, recs)
	if err != nil {
		return nil, err
	}
	return &webhookv1.BatchGetWebhooksResponse{Webhooks: webhooks}, nil
}
