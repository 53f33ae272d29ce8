package server

import (
	"context"
	"encoding/binary"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// ListWebhooks lists the workspace's webhooks, the newest first.
func (s *Server) ListWebhooks(ctx context.Context, req *webhookv1.ListWebhooksRequest) (*webhookv1.ListWebhooksResponse, error) {
	size, err := pagetoken.Size(req.GetPageSize(), pagetoken.MaxPage)
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("ListWebhooks", req.GetWorkspace(), req.GetState().String())
	cursor, err := s.cfg.Tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var from int32
	if len(cursor) == 4 {
		from = int32(binary.BigEndian.Uint32(cursor))
	}
	recs, next, err := s.cfg.Registry.List(ctx, req.GetWorkspace(), req.GetState(), from, size)
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	resp := &webhookv1.ListWebhooksResponse{}
	if resp.Webhooks, err = s.showAll(ctx, recs); err != nil {
		return nil, err
	}
	if next > 0 {
		resp.NextPageToken = s.cfg.Tokens.Encode(scope, binary.BigEndian.AppendUint32(nil, uint32(next)))
	}
	return resp, nil
}
