package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// proofTimeout bounds each of the two requests: Bitbucket gives up on a delivery after so long.
const proofTimeout = 10 * time.Second

// ProveDelivery sends a signed request to ourselves through the public URL, and asks Bitbucket's site for the
// time.
func (s *Server) ProveDelivery(ctx context.Context, req *webhookv1.ProveDeliveryRequest) (*webhookv1.ProveDeliveryResponse, error) {
	rec, secret, address, err := s.cfg.Registry.ToProve(ctx, req.GetWorkspace())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	resp := &webhookv1.ProveDeliveryResponse{Webhook: rec.GetId()}
	// Bitbucket follows no redirect, so neither do we.
	client := &http.Client{Transport: bitbucket.NewTransport(), Timeout: proofTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	wg.Go(func() { s.clock(ctx, client, resp) })
	switch err := s.cfg.Registry.View().Address.Unreachable(); {
	case rec == nil:
		resp.Skipped = "No app of this workspace deploys on pushes yet, so there is no webhook to send to."
	case err != nil:
		resp.Skipped = apierr.From(err).Message()
	default:
		p := hook.Prove(ctx, client, address, secret)
		resp.PublicUrl, resp.Status, resp.Verified, resp.Trouble = p.PublicURL, int32(p.Status), p.Verified, p.Trouble
	}
	wg.Wait()
	return resp, nil
}

// clock asks for Bitbucket's time.
func (s *Server) clock(ctx context.Context, client *http.Client, resp *webhookv1.ProveDeliveryResponse) {
	site := s.cfg.Registry.View().Site.SiteURL
	at, err := bitbucket.Clock(ctx, client, site)
	switch {
	case errors.Is(err, bitbucket.ErrNoTime):
		resp.ClockTrouble = site + " answers without a time."
	case err != nil:
		resp.ClockTrouble = site + " does not answer: " + hook.Cause(err)
	default:
		resp.BitbucketTime, resp.OwnTime = timestamppb.New(at), timestamppb.New(s.cfg.Now())
	}
}
