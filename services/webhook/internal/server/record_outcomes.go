package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// maxOutcomes is how many outcomes one call may bring.
const maxOutcomes = 1000

// RecordOutcomes adds what came of deliveries.
func (s *Server) RecordOutcomes(ctx context.Context, req *webhookv1.RecordOutcomesRequest) (*webhookv1.RecordOutcomesResponse, error) {
	if len(req.GetOutcomes()) > maxOutcomes {
		return nil, apierr.InvalidArgument("outcomes", "at most 1,000")
	}
	if err := s.cfg.Log.Record(ctx, req.GetOutcomes()); err != nil {
		return nil, kv.ToAPI(err)
	}
	return &webhookv1.RecordOutcomesResponse{}, nil
}
