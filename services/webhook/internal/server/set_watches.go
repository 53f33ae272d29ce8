package server

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// SetWatches takes over which branches of a repository apps watch. The webhook is absent from the
// answer where there is none and none is needed.
func (s *Server) SetWatches(ctx context.Context, req *webhookv1.SetWatchesRequest) (*webhookv1.SetWatchesResponse, error) {
	repository, err := repositoryID("repository", req.GetRepository())
	if err != nil {
		return nil, err
	}
	for i, w := range req.GetWatches() {
		if w.GetApp() == "" || w.GetBranch() == "" {
			return nil, apierr.InvalidArgument(fmt.Sprintf("watches[%d]", i), "needs an app and a branch")
		}
	}
	rec, err := s.cfg.Registry.SetWatches(ctx, registry.WatchSet{
		Workspace: req.GetWorkspace(), Repository: repository, FullName: req.GetRepositoryFullName(),
		Place: bitbucket.NormalizeUUID(req.GetBitbucketWorkspaceId()), Watches: req.GetWatches(), Version: req.GetVersion(), Wait: req.GetWait(),
	})
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	if rec == nil {
		return &webhookv1.SetWatchesResponse{}, nil
	}
	w, err := s.show(ctx, rec)
	if err != nil {
		return nil, err
	}
	return &webhookv1.SetWatchesResponse{Webhook: w}, nil
}
