package gateway

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	doctorv1 "devpilot.io/bitbucket/proto/gen/devpilot/doctor/v1"
	"devpilot.io/bitbucket/services/gateway/internal/doctor"
)

// Checks is what the doctor asks this service: whether Devpilot answers at its public URL, and this machine's clock.
func (s *Service) Checks(context.Context) []checkup.Task {
	public := strings.TrimSuffix(s.cfg.PublicURL, "/")
	return []checkup.Task{
		{Name: "public-url", Run: func(ctx context.Context) checkup.Check {
			client := checkup.NewClient()
			defer client.CloseIdleConnections()
			return checkup.PublicURL(ctx, client, public, s.cfg.BitbucketSiteURL)
		}},
		{Name: "clock", Run: func(ctx context.Context) checkup.Check {
			client := checkup.NewClient()
			defer client.CloseIdleConnections()
			return checkup.Clock(ctx, client, s.cfg.BitbucketSiteURL)
		}},
	}
}

// newDoctor makes the one that asks every service.
func (s *Service) newDoctor(d Deps) *doctor.Doctor {
	own := d.Examined
	if own == nil {
		own = &checkup.Subject{Service: identity.Gateway, Version: s.cfg.Version, Tasks: func(context.Context) []checkup.Task { return nil }}
	}
	cfg := doctor.Config{Store: s.tenants, Own: own, Version: s.cfg.Version, Logger: d.Logger, Now: d.Now, AnswerTime: s.cfg.DoctorTime}
	for _, called := range []struct {
		name string
		conn grpc.ClientConnInterface
	}{{"auth", d.Auth}, {"repo", d.Repo}, {"webhook", d.Webhook}, {"deployer", d.Deployer}} {
		cfg.Services = append(cfg.Services, doctor.Service{Name: called.name, Client: doctorv1.NewDoctorServiceClient(called.conn)})
	}
	return doctor.New(cfg)
}
