package app

import (
	"context"
	"regexp"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

const (
	defaultRetention = 5
	maxRetention     = 50
	// maxApps bounds a workspace's index record.
	maxApps = 10_000
)

var (
	slugPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// check refuses what cannot be saved.
func (s *Service) check(ctx context.Context, a *storev1.App) error {
	switch {
	case !slugPattern.MatchString(a.GetId()):
		return apierr.InvalidArgument("appId", "use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter or digit")
	case !uuidPattern.MatchString(a.GetRepository()):
		return apierr.InvalidArgument("app.repository", "give the repository's id: its UUID in lower case, without braces")
	case a.GetRetention() < 1 || a.GetRetention() > maxRetention:
		return apierr.InvalidArgument("app.retention", "keep between 1 and 50 releases")
	case !slugPattern.MatchString(a.GetServer()):
		return apierr.InvalidArgument("app.server", "give the name of a server")
	}
	if err := rules.CheckBranch(a.GetBranch()); err != nil {
		return apierr.InvalidArgument("app.branch", err.Error())
	}
	if err := checkSettings(a); err != nil {
		return err
	}
	known, err := s.cfg.Servers.Known(ctx, a.GetServer())
	if err != nil {
		return err
	}
	if !known {
		return apierr.Newf(apierr.ReasonServerUnknown, "There is no server %s. Choose one of the list, or start a deployer with --server %s.", a.GetServer(), a.GetServer())
	}
	return nil
}

func withDefaults(a *storev1.App) {
	if a.GetServer() == "" {
		a.Server = fleet.DefaultServer
	}
	if a.GetRetention() == 0 {
		a.Retention = defaultRetention
	}
}
