// Package server is devpilot.webhook.v1: one RPC, one file. Each validates, calls one use case of
// registry or delivery, and maps the result.
package server

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/delivery"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// Config is what a Server needs.
type Config struct {
	Registry *registry.Registry
	Log      *delivery.Log
	Tokens   *pagetoken.Codec
	Logger   *slog.Logger
	Now      func() time.Time
}

// Server implements webhookv1.WebhookServiceServer.
type Server struct {
	webhookv1.UnimplementedWebhookServiceServer
	cfg Config
}

// New makes a server.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// show is the webhook as people see it, with what last came to it.
func (s *Server) show(ctx context.Context, rec *storev1.WebhookRecord) (*webhookv1.Webhook, error) {
	w := s.cfg.Registry.View().Webhook(rec, s.cfg.Now())
	stand, err := s.cfg.Log.Stand(ctx, rec.GetWorkspace(), rec.GetId())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	w.LastDelivery, w.LastVerifiedTime, w.LastRefusedTime = stand.LastDelivery, stand.LastVerified, registry.LastRefused(rec, stand.Refused)
	s.cfg.Registry.View().Health(w, rec)
	return w, nil
}

// showAll is show for many.
func (s *Server) showAll(ctx context.Context, recs []*storev1.WebhookRecord) ([]*webhookv1.Webhook, error) {
	out := make([]*webhookv1.Webhook, len(recs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, rec := range recs {
		g.Go(func() (err error) {
			out[i], err = s.show(ctx, rec)
			return err
		})
	}
	return out, g.Wait()
}

// webhook finds the webhook that a request names.
func (s *Server) webhook(ctx context.Context, workspace, id string) (*storev1.WebhookRecord, error) {
	rec, err := s.cfg.Registry.Get(ctx, workspace, id)
	return rec, kv.ToAPI(err)
}

// repositoryID checks and normalises a repository's id.
func repositoryID(field, id string) (string, error) {
	if id = bitbucket.NormalizeUUID(id); !bitbucket.IsUUID(id) {
		return "", apierr.InvalidArgument(field, "a repository's id is Bitbucket's UUID, such as 85d08b4e-571d-44e9-a507-fa476535aa98")
	}
	return id, nil
}
