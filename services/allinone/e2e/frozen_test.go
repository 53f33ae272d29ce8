package e2e

import (
	"testing"
)

// replicasFrozen stops a process of each service that others call, so that its connections stay open and nothing
// comes back: what people ask for is answered by the other one.
func replicasFrozen(t *testing.T, s *shared) {
	running, ok := s.stack.(*processes)
	if !ok {
		t.Fatal("this stack has no processes")
	}
	site := s.site()
	repo := site.repository(t, "frozen", "site")
	n := s.tenant(t, "frozen")
	n.app("web", repo, "main")
	n.live("web", site.commit(t, repo, "main", "before"))
	for _, service := range []string{"repo", "auth", "webhook", "deployer"} {
		frozen := running.replicas[service][0]
		frozen.Stop()
		for range 10 { // the gateways take turns, and so do the replicas
			n.api.get(n.path("/repositories/%s/branches", repo.id))
			n.api.get(n.path("/integrations/bitbucket"))
			n.api.get(n.path("/webhooks"))
			n.api.get(n.path("/apps/web"))
		}
		frozen.Continue()
		awaitReady(t, frozen.ops)
	}
	n.live("web", site.commit(t, repo, "main", "after"))
}
