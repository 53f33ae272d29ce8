package app

import (
	"fmt"
	"time"

	"devpilot.io/bitbucket/pkg/when"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// serverOffline is why something waits whose server has no worker that is heard.
const serverOffline = "SERVER_OFFLINE"

// syncMoving is why nothing is live of an app that was moved from a server that died.
const syncMoving = "SERVER_DIED"

// offline says that nobody serves a server, nil when somebody does.
func (s *Service) offline(server string) *deployerv1.DeploymentError {
	since, offline := s.cfg.Servers.Offline(server)
	if !offline {
		return nil
	}
	return &deployerv1.DeploymentError{Reason: serverOffline, Message: offlineMessage(server, since, s.now())}
}

func offlineMessage(server string, since, now time.Time) string {
	if since.IsZero() {
		return fmt.Sprintf("No worker has served its server %s yet. An operator can start one with --server %s.", server, server)
	}
	return fmt.Sprintf("Its server %s has not been heard of for %s, since %s. An operator can start a worker of it, or move its apps to another server.",
		server, when.Took(now.Sub(since).Truncate(time.Minute)), when.UTC(since))
}

// away is why an app's server is to be looked at: nobody serves the one that it is deployed on, or the one that
// has what is live. nil where all is well.
func (s *Service) away(p *parts) *deployerv1.DeploymentError {
	if e := s.offline(p.app.GetServer()); e != nil {
		return e
	}
	if live := p.lane.GetLive(); live != nil && !live.GetLost() {
		return s.offline(live.GetServer())
	}
	return nil
}
