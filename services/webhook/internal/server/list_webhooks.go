package server

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// ListWebhooks lists the workspace's webhooks, the newest first or those that need somebody.
func (s *Server) ListWebhooks(ctx context.Context, req *webhookv1.ListWebhooksRequest) (*webhookv1.ListWebhooksResponse, error) {
	size, err := pagetoken.Size(req.GetPageSize(), pagetoken.MaxPage)
	if err != nil {
		return nil, err
	}
	switch req.GetOrderBy() {
	case "":
	case orderByHealth:
		return s.listByHealth(ctx, req, size)
	default:
		return nil, apierr.InvalidArgument("orderBy", `is "health", or left out for the newest first`)
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

const orderByHealth = "health"

// place is where a webhook stands in the order by health.
type place struct {
	Urgency  int
	Name, ID string
}

func placeOf(w *webhookv1.Webhook) place {
	return place{registry.Urgency(w), w.GetRepositoryFullName(), w.GetId()}
}

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.Urgency, other.Urgency), strings.Compare(p.Name, other.Name), strings.Compare(p.ID, other.ID))
}

// listByHealth looks at all webhooks of the workspace, from memory. A page goes on after the place of the
// last one: one whose health changed meanwhile is there twice, or not at all.
func (s *Server) listByHealth(ctx context.Context, req *webhookv1.ListWebhooksRequest, size int) (*webhookv1.ListWebhooksResponse, error) {
	scope := pagetoken.Scope("ListWebhooks", req.GetWorkspace(), req.GetState().String(), orderByHealth)
	cursor, err := s.cfg.Tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var after place
	if len(cursor) > 0 {
		if err := json.Unmarshal(cursor, &after); err != nil {
			return nil, apierr.InvalidArgument("pageToken", "is none that a page before gave")
		}
	}
	recs, err := s.cfg.Registry.All(ctx, req.GetWorkspace())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	all, err := s.showAll(ctx, recs)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(w *webhookv1.Webhook) bool {
		return req.GetState() != webhookv1.Webhook_STATE_UNSPECIFIED && w.GetState() != req.GetState() || placeOf(w).compare(after) <= 0
	})
	slices.SortFunc(all, func(a, b *webhookv1.Webhook) int { return placeOf(a).compare(placeOf(b)) })
	resp := &webhookv1.ListWebhooksResponse{Webhooks: all[:min(size, len(all))]}
	if len(all) > size {
		last, err := json.Marshal(placeOf(all[size-1]))
		if err != nil {
			return nil, err
		}
		resp.NextPageToken = s.cfg.Tokens.Encode(scope, last)
	}
	return resp, nil
}
