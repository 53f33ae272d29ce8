package deployer_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// followed are the streams that a deployment writes to, and their consumers; each of them hears of it
// several times.
var followed = map[string]string{
	"KV_deployer-apps": "changes", "KV_deployer-deployments": "changes", "KV_deployer-lanes": "changes", "KV_deployer-repositories": "changes",
	stream.EventsStream: "deployer-statuses",
}

// Whoever follows what a deployment writes keeps no state of its own on disk: it would be written, and
// synced, for each message that is handed out and each that is acknowledged.
func TestDeployment_isFollowedWithoutWrites(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.PublicURL = "https://devpilot.example.com" })
	b.repo.Commit("main", "first", map[string]string{"index.html": "1"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	for in, durable := range followed {
		var info *jetstream.ConsumerInfo
		testkit.Eventually(t, timeout, func() error {
			c, err := b.keyset.JS.Consumer(t.Context(), in, durable)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", durable, in, err)
			}
			info = c.CachedInfo()
			return nil
		})
		if !info.Config.MemoryStorage {
			t.Errorf("%s of %s keeps its state on disk", durable, in)
		}
	}
}
